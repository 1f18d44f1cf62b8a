//! How the parts of a composite are handed to a type.

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde_json::Value;

use super::error::FitError;
use super::state::{Place, State};
use super::walk::Walk;
use crate::datum::put_index;
use crate::node::{Branches, Fields, Node, Shape};

fn name<'n>(name: &'n str) -> StrDeserializer<'n, FitError> {
    name.into_deserializer()
}

/// The fields of a record in the schema's order, then those that only the type insists on.
pub(super) struct FieldAccess<'s> {
    left: std::vec::IntoIter<(&'static str, Option<Node>, &'static [Value])>,
    current: Option<(&'static str, Option<Node>, &'static [Value])>,
    place: &'s Place,
    state: &'s mut State,
}

impl<'s> FieldAccess<'s> {
    pub(super) fn new(fields: Option<Fields>, place: &'s Place, state: &'s mut State) -> Self {
        let fields = fields.iter().flat_map(|fields| fields.iter()).map(|(field, node)| {
            let examples = field.custom_attributes.get("examples").and_then(Value::as_array);
            (field.name.as_str(), Some(node), examples.map_or(&[][..], Vec::as_slice))
        });
        let insisted = state.required(place).into_iter().map(|name| (name, None, &[][..]));
        let left: Vec<_> = fields.chain(insisted).collect();
        Self { left: left.into_iter(), current: None, place, state }
    }
}

impl<'de> MapAccess<'de> for FieldAccess<'_> {
    type Error = FitError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, FitError> {
        self.current = self.left.next();
        self.current.map(|(field, _, _)| seed.deserialize(name(field))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, FitError> {
        let Some((field, node, examples)) = self.current.take() else {
            return Err(FitError::Refusal("a value was asked for before its key".into()));
        };
        let place = self.place.field(field);
        Walk { node, place, state: self.state, examples }.descend(seed)
    }
}

/// Items, each at a place of its own.
pub(super) struct ItemAccess<'s> {
    pub(super) items: std::vec::IntoIter<(Option<Node>, Place)>,
    pub(super) state: &'s mut State,
    pub(super) examples: &'static [Value],
}

impl<'de> SeqAccess<'de> for ItemAccess<'_> {
    type Error = FitError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, FitError> {
        let Some((node, place)) = self.items.next() else { return Ok(None) };
        Walk { node, place, state: self.state, examples: self.examples }.descend(seed).map(Some)
    }
}

/// The one entry of a map, if it is not empty this time. The walk is that of its values.
pub(super) struct EntryAccess<'s> {
    pub(super) walk: Walk<'s>,
    pub(super) left: bool,
}

impl<'de> MapAccess<'de> for EntryAccess<'_> {
    type Error = FitError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, FitError> {
        if !std::mem::take(&mut self.left) {
            return Ok(None);
        }
        let key = self.walk.node.map(Node::map_key);
        let place = self.walk.place.inside("{key}", "{key}");
        let mut walk = self.walk.at(key, place);
        walk.examples = &[];
        walk.descend(seed).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, FitError> {
        let place = self.walk.place.inside("{}", "{}");
        self.walk.at(self.walk.node, place).descend(seed)
    }
}

/// A symbol of an enum.
pub(super) struct SymbolAccess<'s> {
    pub(super) name: &'s str,
    /// There is no enum in the schema, and the variant gets whatever it wants.
    pub(super) wild: bool,
    pub(super) place: &'s Place,
    pub(super) state: &'s mut State,
}

impl<'de> EnumAccess<'de> for SymbolAccess<'_> {
    type Error = FitError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), FitError> {
        Ok((seed.deserialize(name(self.name))?, self))
    }
}

impl SymbolAccess<'_> {
    /// The walk through what a variant holds, if there is no schema to forbid it.
    fn content(&mut self) -> Result<Walk<'_>, FitError> {
        if !self.wild {
            let holds = format!("variant {} of the type holds data", self.name);
            let says = "the schema says enum, whose symbols hold none";
            self.state.read_misfit(&self.place.shown, holds, says, "say a union of records");
            return Err(FitError::Told);
        }
        Ok(Walk { node: None, place: self.place.clone(), state: self.state, examples: &[] })
    }
}

impl<'de> VariantAccess<'de> for SymbolAccess<'_> {
    type Error = FitError;

    fn unit_variant(self) -> Result<(), FitError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(
        mut self,
        seed: T,
    ) -> Result<T::Value, FitError> {
        self.content()?.descend(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(
        mut self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, FitError> {
        self.content()?.tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        mut self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FitError> {
        self.content()?.fields(Some(fields), visitor)
    }
}

/// A branch of a union, for an enum whose variants are its branches.
pub(super) struct BranchAccess<'s> {
    pub(super) chosen: usize,
    pub(super) branches: Branches,
    pub(super) place: &'s Place,
    pub(super) state: &'s mut State,
}

impl<'de, 's> EnumAccess<'de> for BranchAccess<'s> {
    type Error = FitError;
    type Variant = BranchContent<'s>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, BranchContent<'s>), FitError> {
        let Self { chosen, branches, place, state } = self;
        let index = u32::try_from(chosen).unwrap_or(u32::MAX);
        let variant = seed.deserialize(IntoDeserializer::<FitError>::into_deserializer(index))?;
        let Some(node) = branches.get(chosen) else {
            let has = format!("the type has a variant number {chosen}, counted from 0");
            let says = format!("the schema's union has {} branches", branches.len());
            state.read_misfit(&place.shown, has, &says, "one variant a branch, in the same order");
            return Err(FitError::Told);
        };
        put_index(&mut state.datum, chosen);
        let place = place.inside("", &format!("|{chosen}"));
        Ok((variant, BranchContent(Walk { node: Some(node), place, state, examples: &[] })))
    }
}

pub(super) struct BranchContent<'s>(Walk<'s>);

impl<'de> VariantAccess<'de> for BranchContent<'_> {
    type Error = FitError;

    fn unit_variant(self) -> Result<(), FitError> {
        let Self(Walk { node, place, state, .. }) = self;
        match node.map(|node| (node, node.shape())) {
            Some((_, Shape::Null)) | None => Ok(()),
            Some((_, Shape::Record(fields))) if fields.record.fields.is_empty() => Ok(()),
            Some((node, _)) => {
                let lacks = "the variant of the type holds nothing".into();
                state.read_misfit(&place.shown, lacks, &super::state::says(node), "");
                Err(FitError::Told)
            }
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, FitError> {
        self.0.descend(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, FitError> {
        serde::Deserializer::deserialize_tuple(self.0, len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FitError> {
        self.0.variant_fields(fields, visitor)
    }
}
