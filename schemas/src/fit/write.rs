//! A serializer that keeps nothing: a type that is written to it shows what it gives.

use serde::ser::{Serialize, Serializer};

use super::ask::Ask;
use super::error::FitError;
use super::parts::{Content, Parts};
use super::state::{Place, State, says};
use crate::node::{Branches, Fields, Node, Shape};

/// One place of the schema, about to be written.
pub(super) struct Check<'s> {
    /// Nothing below a place where type and schema differ.
    pub(super) node: Option<Node>,
    pub(super) place: Place,
    pub(super) state: &'s mut State,
}

impl<'s> Check<'s> {
    pub(super) fn root(node: Node, state: &'s mut State) -> Self {
        Self { node: Some(node), place: Place::default(), state }
    }

    /// Checks what is given, and finds the branch that takes it where the schema has a union.
    fn give(&mut self, ask: Ask) {
        let Some(node) = self.node else { return };
        if let Shape::Union(branches) = node.shape() {
            self.node = branches.iter().find(|branch| ask.suits(*branch));
        } else if !ask.suits(node) {
            self.node = None;
        }
        if self.node.is_none() {
            self.state.write_misfit(
                &self.place.shown,
                format!("the type writes {ask}"),
                &says(node),
                &ask.advice(node),
            );
        }
    }

    fn leaf(mut self, ask: Ask) -> Result<(), FitError> {
        self.give(ask);
        Ok(())
    }

    fn misfit(&mut self, gives: String) {
        if let Some(node) = self.node.take() {
            self.state.write_misfit(&self.place.shown, gives, &says(node), "");
        }
    }

    fn branches(&self) -> Option<Branches> {
        self.node.and_then(Node::union)
    }

    /// The record that a variant with parts is written as.
    fn variant(&mut self, index: u32, variant: &str, len: usize) -> Option<Fields> {
        let branch = self.branches().and_then(|branches| branches.get(index.try_into().ok()?));
        let record = branch
            .and_then(Node::record)
            .filter(|fields| fields.name() == variant && fields.record.fields.len() == len);
        if record.is_none() {
            self.misfit(format!("the type writes variant {variant} with {len} parts"));
        }
        record
    }

    fn parts(self, content: Content) -> Parts<'s> {
        let Self { place, state, .. } = self;
        Parts::new(content, place, state)
    }
}

/// Whether a place is an enum, in a union one of this name, with this symbol.
fn has_symbol(node: Node, name: Option<&str>, symbol: &str) -> bool {
    matches!(node.shape(), Shape::Enum(of)
        if name.is_none_or(|name| of.name.name() == name)
            && of.symbols.iter().any(|known| known == symbol))
}

/// Whether a place is a record of this name without fields.
fn is_unit(node: Node, name: &str) -> bool {
    node.record().is_some_and(|fields| fields.name() == name && fields.record.fields.is_empty())
}

/// The values without parts.
macro_rules! leaves {
    ($($method:ident($given:ty): $ask:ident),+ $(,)?) => {
        $(
            fn $method(self, _: $given) -> Result<(), FitError> {
                self.leaf(Ask::$ask)
            }
        )+
    };
}

impl<'s> Serializer for Check<'s> {
    type Ok = ();
    type Error = FitError;
    type SerializeSeq = Parts<'s>;
    type SerializeTuple = Parts<'s>;
    type SerializeTupleStruct = Parts<'s>;
    type SerializeTupleVariant = Parts<'s>;
    type SerializeMap = Parts<'s>;
    type SerializeStruct = Parts<'s>;
    type SerializeStructVariant = Parts<'s>;

    leaves! {
        serialize_bool(bool): Bool,
        serialize_i8(i8): I8,
        serialize_i16(i16): I16,
        serialize_i32(i32): I32,
        serialize_i64(i64): I64,
        serialize_i128(i128): I128,
        serialize_u8(u8): U8,
        serialize_u16(u16): U16,
        serialize_u32(u32): U32,
        serialize_u64(u64): U64,
        serialize_u128(u128): U128,
        serialize_f32(f32): F32,
        serialize_f64(f64): F64,
        serialize_char(char): Char,
        serialize_str(&str): Text,
        serialize_bytes(&[u8]): Bytes,
    }

    fn serialize_none(mut self) -> Result<(), FitError> {
        if self.branches().and_then(Branches::as_option).is_none() {
            self.misfit("the type writes None".into());
        }
        Ok(())
    }

    fn serialize_some<T: ?Sized + Serialize>(mut self, value: &T) -> Result<(), FitError> {
        match self.branches().and_then(Branches::as_option) {
            Some(branch) => self.node = Some(branch),
            None => self.misfit("the type writes Some".into()),
        }
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), FitError> {
        self.leaf(Ask::Unit)
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<(), FitError> {
        self.leaf(Ask::UnitStruct(name))
    }

    fn serialize_unit_variant(
        mut self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<(), FitError> {
        let fits = match self.branches() {
            Some(branches) => {
                let at_index = index.try_into().ok().and_then(|index| branches.get(index));
                at_index.is_some_and(|branch| branch.is_null() || is_unit(branch, variant))
                    || branches.iter().any(|branch| has_symbol(branch, Some(name), variant))
            }
            None => self.node.is_none_or(|node| has_symbol(node, None, variant)),
        };
        if !fits {
            self.misfit(format!("the type writes variant {variant}"));
        }
        Ok(())
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(
        mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), FitError> {
        let asked = self.node;
        self.give(Ask::Newtype(name));
        let only = self.node.and_then(Node::record).and_then(|fields| fields.get(0));
        if let Some((field, _)) = only {
            self.place = self.place.field(&field.name);
        }
        // Without a record: noted, and what is inside is looked at nevertheless.
        self.node = only.map(|(_, node)| node).or(asked);
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        mut self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), FitError> {
        match self.branches().and_then(|branches| branches.get(index.try_into().ok()?)) {
            Some(branch) => self.node = Some(branch),
            None => self.misfit(format!("the type writes variant {variant} with data")),
        }
        value.serialize(self)
    }

    fn serialize_seq(mut self, _: Option<usize>) -> Result<Parts<'s>, FitError> {
        self.give(Ask::Seq);
        let items = self.node.and_then(Node::items);
        Ok(self.parts(Content::Items(items)))
    }

    fn serialize_tuple(mut self, len: usize) -> Result<Parts<'s>, FitError> {
        if len == 1 {
            let only = self.node;
            return Ok(self.parts(Content::Same(only)));
        }
        self.give(Ask::Tuple(len));
        let content = Content::ordered(self.node);
        Ok(self.parts(content))
    }

    fn serialize_tuple_struct(
        mut self,
        name: &'static str,
        len: usize,
    ) -> Result<Parts<'s>, FitError> {
        self.give(Ask::TupleStruct(name, len));
        let content = Content::ordered(self.node);
        Ok(self.parts(content))
    }

    fn serialize_tuple_variant(
        mut self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Parts<'s>, FitError> {
        let fields = self.variant(index, variant, len);
        Ok(self.parts(fields.map_or(Content::Items(None), |fields| Content::Ordered(fields, 0))))
    }

    fn serialize_map(mut self, _: Option<usize>) -> Result<Parts<'s>, FitError> {
        self.give(Ask::Map);
        let content = match self.node.and_then(Node::record) {
            Some(fields) => Content::entries_of(fields),
            None => Content::Entries(self.node.and_then(Node::values)),
        };
        Ok(self.parts(content))
    }

    fn serialize_struct(mut self, name: &'static str, _: usize) -> Result<Parts<'s>, FitError> {
        let asked = self.node;
        self.give(Ask::Struct(name));
        // With another name: noted, and the fields are looked at nevertheless.
        self.node = self.node.or(asked.filter(|node| node.record().is_some()));
        let content = Content::named(self.node);
        Ok(self.parts(content))
    }

    fn serialize_struct_variant(
        mut self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Parts<'s>, FitError> {
        let fields = self.variant(index, variant, len);
        Ok(self.parts(fields.map_or(Content::Items(None), Content::fields_of)))
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}
