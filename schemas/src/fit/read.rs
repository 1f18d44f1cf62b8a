//! A deserializer without bytes: a type that is read from it shows what it asks for.

use serde::de::{Deserializer, Visitor};

use super::access::EntryAccess;
use super::ask::Ask;
use super::error::FitError;
use super::walk::Walk;
use crate::datum::put_index;
use crate::node::{Node, Shape};

/// The requests for single values.
macro_rules! leaves {
    ($($method:ident: $ask:ident),+ $(,)?) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FitError> {
                self.leaf(Ask::$ask, visitor)
            }
        )+
    };
}

impl<'de> Deserializer<'de> for Walk<'_> {
    type Error = FitError;

    leaves! {
        deserialize_bool: Bool,
        deserialize_i8: I8,
        deserialize_i16: I16,
        deserialize_i32: I32,
        deserialize_i64: I64,
        deserialize_i128: I128,
        deserialize_u8: U8,
        deserialize_u16: U16,
        deserialize_u32: U32,
        deserialize_u64: U64,
        deserialize_u128: U128,
        deserialize_f32: F32,
        deserialize_f64: F64,
        deserialize_char: Char,
        deserialize_str: Text,
        deserialize_string: Text,
        deserialize_bytes: Bytes,
        deserialize_byte_buf: Bytes,
        deserialize_identifier: Text,
    }

    /// A type that takes what comes gets what the schema has.
    fn deserialize_any<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, FitError> {
        let Some(node) = self.node else {
            self.state.sound = false;
            return visitor.visit_unit();
        };
        match node.shape() {
            Shape::Null => self.deserialize_unit(visitor),
            Shape::Boolean => self.leaf(Ask::Bool, visitor),
            Shape::Int => self.leaf(Ask::I32, visitor),
            Shape::Long => self.leaf(Ask::I64, visitor),
            Shape::Float => self.leaf(Ask::F32, visitor),
            Shape::Double => self.leaf(Ask::F64, visitor),
            Shape::Bytes | Shape::Fixed(_) => self.leaf(Ask::Bytes, visitor),
            Shape::String => self.leaf(Ask::Text, visitor),
            Shape::Array(_) => self.deserialize_seq(visitor),
            Shape::Map(_) => self.deserialize_map(visitor),
            Shape::Record(_) => self.fields(None, visitor),
            Shape::Enum(of) => self.any_symbol(of, visitor),
            Shape::Union(_) => {
                self.take_branch()?;
                self.deserialize_any(visitor)
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, FitError> {
        let asked = self.node;
        self.settle(Ask::Option)?;
        let Some(branches) = self.node.and_then(Node::union) else {
            return match asked {
                // Not nullable: noted, and what is inside the Option is looked at nevertheless.
                Some(_) => {
                    let place = self.place.clone();
                    visitor.visit_some(self.at(asked, place))
                }
                None => visitor.visit_none(),
            };
        };
        let labels = vec!["None".to_owned(), "Some".to_owned()];
        let chosen = self.state.choose(&self.place, branches.len(), Some(labels));
        let index = chosen.ok_or(FitError::Told)?;
        put_index(&mut self.state.datum, index);
        let Some(branch) = branches.get(index) else { return Err(FitError::Told) };
        if branch.is_null() {
            return visitor.visit_none();
        }
        let place = self.place.inside("", "?");
        let some = visitor.visit_some(self.at(Some(branch), place.clone()));
        some.map_err(|error| self.state.judge(&place, error))
    }

    fn deserialize_unit<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, FitError> {
        self.settle(Ask::Unit)?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, FitError> {
        self.settle(Ask::UnitStruct(name))?;
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, FitError> {
        let asked = self.node;
        self.settle(Ask::Newtype(name))?;
        let only = self.node.and_then(Node::record).and_then(|fields| fields.get(0));
        let (node, place) = match only {
            Some((field, node)) => (Some(node), self.place.field(&field.name)),
            // Noted, and what is inside is looked at nevertheless.
            None => (asked, self.place.clone()),
        };
        let read = visitor.visit_newtype_struct(self.at(node, place.clone()));
        read.map_err(|error| self.state.judge(&place, error))
    }

    fn deserialize_seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, FitError> {
        self.settle(Ask::Seq)?;
        let Some(items) = self.node.and_then(Node::items) else {
            return self.items(Vec::new(), visitor);
        };
        let place = self.place.inside("[]", "[]");
        // First one item, then none: a type may leave out what is empty.
        let one = self.one_or_none()?;
        let items = one.then_some((Some(items), place)).into_iter().collect();
        let here = self.place.clone();
        let read = self.at(None, here).items(items, visitor);
        self.state.datum.push(0);
        read
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        mut self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, FitError> {
        self.settle(Ask::Tuple(len))?;
        self.tuple(len, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, FitError> {
        self.settle(Ask::TupleStruct(name, len))?;
        self.tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, FitError> {
        self.settle(Ask::Map)?;
        let Some(values) = self.node.and_then(Node::values) else {
            return self.fields(None, visitor);
        };
        let one = self.one_or_none()?;
        let place = self.place.clone();
        let walk = self.at(Some(values), place.clone());
        let read = visitor.visit_map(EntryAccess { walk, left: one });
        self.state.datum.push(0);
        read.map_err(|error| self.state.judge(&place, error))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FitError> {
        let asked = self.node;
        self.settle(Ask::Struct(name))?;
        // With another name: noted, and the fields are looked at nevertheless.
        self.node = self.node.or(asked.filter(|node| node.record().is_some()));
        self.fields(Some(fields), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FitError> {
        self.settle(Ask::Enum(name))?;
        if let Some(Shape::Enum(of)) = self.node.map(Node::shape) {
            return self.symbols(of, variants, visitor);
        }
        match self.node.and_then(Node::union) {
            Some(branches) => self.branches(branches, variants, visitor),
            None => self.wild_enum(variants, visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FitError> {
        self.deserialize_any(visitor)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}
