//! The walk through what has parts: records, arrays, enums and unions.

use apache_avro::schema::{EnumSchema, RecordField};
use serde::de::Visitor;

use super::access::{BranchAccess, FieldAccess, ItemAccess, SymbolAccess};
use super::error::FitError;
use super::state::{Place, says};
use super::walk::Walk;
use crate::datum::put_index;
use crate::node::{Branches, Node, Shape};

impl Walk<'_> {
    /// Reads a record field by field; `own` are the fields that the type knows, if it says so.
    pub(super) fn fields<'de, V: Visitor<'de>>(
        self,
        own: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Result<V::Value, FitError> {
        let Self { node, place, state, .. } = self;
        let fields = node.and_then(Node::record);
        for (field, node) in fields.iter().flat_map(|fields| fields.iter()) {
            if own.is_some_and(|own| !own.contains(&field.name.as_str())) {
                let shown = place.field(&field.name).shown;
                let says = says(node);
                state.read_misfit(&shown, "the type has no such field".into(), &says, "");
            }
        }
        let read = visitor.visit_map(FieldAccess::new(fields, &place, state));
        if let (Err(FitError::MissingField(name)), None) = (&read, fields) {
            // Where the schema has no record, a missing field is no news.
            state.insist(&place, name);
            return Err(FitError::Told);
        }
        read.map_err(|error| state.judge(&place, error))
    }

    /// Reads as many items as there are nodes, each at its place.
    pub(super) fn items<'de, V: Visitor<'de>>(
        self,
        items: Vec<(Option<Node>, Place)>,
        visitor: V,
    ) -> Result<V::Value, FitError> {
        let Self { place, state, examples, .. } = self;
        let items = items.into_iter();
        let read = visitor.visit_seq(ItemAccess { items, state, examples });
        read.map_err(|error| state.judge(&place, error))
    }

    pub(super) fn symbols<'de, V: Visitor<'de>>(
        self,
        of: &'static EnumSchema,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FitError> {
        let Self { place, state, .. } = self;
        let symbols = of.symbols.iter().map(String::as_str);
        for symbol in symbols.clone().filter(|symbol| !variants.contains(symbol)) {
            let lacks = format!("the type has no variant {symbol}");
            let has = format!("enum {} has that symbol", of.name.name());
            state.misfit(&place.shown, lacks, &has, "");
        }
        // Variants without a symbol are tried too. Aliases are among them: those write another name.
        let extra =
            variants.iter().copied().filter(|variant| !of.symbols.iter().any(|s| s == variant));
        let names: Vec<&'static str> = symbols.chain(extra).collect();
        let labels = names.iter().map(|name| format!("symbol {name}")).collect();
        let chosen = state.choose(&place, names.len(), Some(labels)).ok_or(FitError::Told)?;
        let Some(name) = names.get(chosen) else { return Err(FitError::Told) };
        if chosen < of.symbols.len() {
            put_index(&mut state.datum, chosen);
        } else {
            state.sound = false;
        }
        let read = visitor.visit_enum(SymbolAccess { name, wild: false, place: &place, state });
        read.map_err(|error| state.judge(&place, error))
    }

    pub(super) fn branches<'de, V: Visitor<'de>>(
        self,
        branches: Branches,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FitError> {
        let Self { place, state, .. } = self;
        if variants.len() < branches.len() {
            let has = format!("the type has {} variants", variants.len());
            let says = format!("the schema's union has {} branches", branches.len());
            state.read_misfit(&place.shown, has, &says, "one variant a branch, in the same order");
        }
        // Variants without a branch are tried too; if the type takes one, it is no alias.
        let count = variants.len().max(branches.len());
        let labels = branches.iter().map(|branch| format!("branch {branch}")).collect();
        let chosen = state.choose(&place, count, Some(labels)).ok_or(FitError::Told)?;
        let access = BranchAccess { chosen, branches, place: &place, state };
        let read = visitor.visit_enum(access);
        read.map_err(|error| state.judge(&place, error))
    }

    pub(super) fn wild_enum<'de, V: Visitor<'de>>(
        self,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FitError> {
        let Self { place, state, .. } = self;
        let name = variants.first().copied().unwrap_or_default();
        let read = visitor.visit_enum(SymbolAccess { name, wild: true, place: &place, state });
        read.map_err(|error| state.judge(&place, error))
    }

    pub(super) fn tuple<'de, V: Visitor<'de>>(
        mut self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, FitError> {
        let place = self.place.clone();
        let at = |(field, node): (&RecordField, Node)| (Some(node), place.field(&field.name));
        let items = match self.node.and_then(Node::record) {
            // A tuple of one is its only item.
            Some(_) | None if len == 1 => vec![(self.node, place)],
            Some(fields) => fields.iter().map(at).collect(),
            None => vec![(None, place); len],
        };
        let here = self.place.clone();
        self.at(None, here).items(items, visitor)
    }

    /// For a type that takes what comes.
    pub(super) fn any_symbol<'de, V: Visitor<'de>>(
        self,
        of: &'static EnumSchema,
        visitor: V,
    ) -> Result<V::Value, FitError> {
        let Self { place, state, .. } = self;
        let labels = of.symbols.iter().map(|symbol| format!("symbol {symbol}")).collect();
        let chosen = state.choose(&place, of.symbols.len(), Some(labels)).ok_or(FitError::Told)?;
        put_index(&mut state.datum, chosen);
        let Some(name) = of.symbols.get(chosen) else { return Err(FitError::Told) };
        let read = visitor.visit_enum(SymbolAccess { name, wild: false, place: &place, state });
        read.map_err(|error| state.judge(&place, error))
    }

    /// A variant with fields, at the branch of a union.
    pub(super) fn variant_fields<'de, V: Visitor<'de>>(
        mut self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FitError> {
        if let Some(node) = self.node
            && !matches!(node.shape(), Shape::Record(_))
        {
            let holds = "the variant of the type holds fields".into();
            self.state.read_misfit(&self.place.shown, holds, &says(node), "");
            self.node = None;
        }
        self.fields(Some(fields), visitor)
    }

    /// Whether an array or map has one item this time, or none: a type may leave out what is empty.
    pub(super) fn one_or_none(&mut self) -> Result<bool, FitError> {
        let labels = ["one item", "no item"].map(str::to_owned).to_vec();
        let one = self.state.choose(&self.place, 2, Some(labels)).ok_or(FitError::Told)? == 0;
        if one {
            put_index(&mut self.state.datum, 1);
        }
        Ok(one)
    }
}
