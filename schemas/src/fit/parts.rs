//! The parts of a composite, as a type writes them.

use serde::ser::{self, Serialize};
use serde_json::Value;

use super::error::FitError;
use super::state::{NO_FIELD, Place, State, says};
use super::write::Check;
use crate::node::{Fields, Node};

/// What the parts are to the schema; without a node there is nothing to compare them with.
pub(super) enum Content {
    /// Items of an array.
    Items(Option<Node>),
    /// The only item of a tuple stands for the tuple.
    Same(Option<Node>),
    /// Values of a map.
    Entries(Option<Node>),
    /// Fields by their place, and which one is next.
    Ordered(Fields, usize),
    /// Fields by their name, and which were written.
    Named { fields: Fields, written: Vec<bool>, as_map: bool },
}

impl Content {
    pub(super) fn ordered(node: Option<Node>) -> Self {
        let fields = node.and_then(Node::record);
        fields.map_or(Self::Items(None), |fields| Self::Ordered(fields, 0))
    }

    pub(super) fn named(node: Option<Node>) -> Self {
        node.and_then(Node::record).map_or(Self::Items(None), Self::fields_of)
    }

    pub(super) fn fields_of(fields: Fields) -> Self {
        Self::Named { fields, written: vec![false; fields.record.fields.len()], as_map: false }
    }

    /// A struct with flattened parts is written as a map.
    pub(super) fn entries_of(fields: Fields) -> Self {
        Self::Named { fields, written: vec![false; fields.record.fields.len()], as_map: true }
    }
}

pub(super) struct Parts<'s> {
    content: Content,
    key: Option<String>,
    place: Place,
    state: &'s mut State,
}

impl<'s> Parts<'s> {
    pub(super) fn new(content: Content, place: Place, state: &'s mut State) -> Self {
        Self { content, key: None, place, state }
    }

    fn write<T: ?Sized + Serialize>(
        &mut self,
        node: Option<Node>,
        place: Place,
        value: &T,
    ) -> Result<(), FitError> {
        value.serialize(Check { node, place, state: self.state })
    }

    /// The next part of those without a name.
    fn next<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), FitError> {
        let (node, place) = match &mut self.content {
            Content::Items(node) | Content::Entries(node) => (*node, self.place.inside("[]", "[]")),
            Content::Same(node) => (*node, self.place.clone()),
            Content::Ordered(fields, next) => match fields.get(*next) {
                Some((field, node)) => {
                    *next += 1;
                    (Some(node), self.place.field(&field.name))
                }
                None => (None, self.place.clone()),
            },
            Content::Named { .. } => (None, self.place.clone()),
        };
        self.write(node, place, value)
    }

    fn field<T: ?Sized + Serialize>(&mut self, name: &str, value: &T) -> Result<(), FitError> {
        let place = self.place.field(name);
        let Content::Named { fields, written, .. } = &mut self.content else {
            return self.write(None, place, value);
        };
        let found = fields.position(name);
        let node = found.and_then(|index| fields.get(index)).map(|(_, node)| node);
        match found.and_then(|index| written.get_mut(index)) {
            Some(written) => *written = true,
            None => {
                let writes = format!("the type writes field {name}");
                self.state.write_misfit(&place.shown, writes, NO_FIELD, "");
            }
        }
        self.write(node, place, value)
    }

    /// A field that the type left out this time: the default takes its place.
    fn skip(&mut self, name: &str) {
        let place = self.place.field(name);
        let Content::Named { fields, written, .. } = &mut self.content else { return };
        let index = fields.position(name);
        let default = index.and_then(|index| fields.get(index)?.0.default.as_ref());
        if let Some(written) = index.and_then(|index| written.get_mut(index)) {
            *written = true;
        }
        let lacks = match (index, default) {
            (Some(_), Some(_)) => return,
            (Some(_), None) => "the schema has no default for it",
            (None, _) => NO_FIELD,
        };
        let leaves_out = "the type leaves it out at times".into();
        self.state.write_misfit(&place.shown, leaves_out, lacks, "do not skip it");
    }

    fn finish(self) {
        let Self { content, place, state, .. } = self;
        let Content::Named { fields, written, as_map } = content else { return };
        for ((field, node), written) in fields.iter().zip(written) {
            // A map does not tell what it leaves out; whether the default is right shows later.
            let left_to_default = as_map && field.default.is_some();
            if !(written || left_to_default) {
                let shown = place.field(&field.name).shown;
                state.write_misfit(&shown, "the type never writes it".into(), &says(node), "");
            }
        }
    }
}

/// Text keys are the only ones that an Avro map can have.
fn key_text<T: ?Sized + Serialize>(key: &T) -> Option<String> {
    match serde_json::to_value(key) {
        Ok(Value::String(text)) => Some(text),
        Ok(_) | Err(_) => None,
    }
}

impl ser::SerializeMap for Parts<'_> {
    type Ok = ();
    type Error = FitError;

    fn serialize_key<T: ?Sized + Serialize>(&mut self, key: &T) -> Result<(), FitError> {
        self.key = key_text(key);
        let Content::Entries(Some(values)) = &self.content else { return Ok(()) };
        let key_node = values.map_key();
        let place = self.place.inside("{key}", "{key}");
        self.write(Some(key_node), place, key)
    }

    fn serialize_value<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), FitError> {
        if let (Content::Named { .. }, Some(name)) = (&self.content, self.key.take()) {
            return self.field(&name, value);
        }
        let values = if let Content::Entries(node) = &self.content { *node } else { None };
        let place = self.place.inside("{}", "{}");
        self.write(values, place, value)
    }

    fn end(self) -> Result<(), FitError> {
        self.finish();
        Ok(())
    }
}

/// The traits of those parts that have names.
macro_rules! named {
    ($($name:ident),+) => {
        $(
            impl ser::$name for Parts<'_> {
                type Ok = ();
                type Error = FitError;

                fn serialize_field<T: ?Sized + Serialize>(
                    &mut self,
                    name: &'static str,
                    value: &T,
                ) -> Result<(), FitError> {
                    self.field(name, value)
                }

                fn skip_field(&mut self, name: &'static str) -> Result<(), FitError> {
                    self.skip(name);
                    Ok(())
                }

                fn end(self) -> Result<(), FitError> {
                    self.finish();
                    Ok(())
                }
            }
        )+
    };
}

/// The traits of those parts that have a place only.
macro_rules! ordered {
    ($($name:ident::$method:ident),+) => {
        $(
            impl ser::$name for Parts<'_> {
                type Ok = ();
                type Error = FitError;

                fn $method<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), FitError> {
                    self.next(value)
                }

                fn end(self) -> Result<(), FitError> {
                    Ok(())
                }
            }
        )+
    };
}

named!(SerializeStruct, SerializeStructVariant);
ordered!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);
