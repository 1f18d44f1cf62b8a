//! The walk of a type through its schema: each place, what is checked there, what is answered.

use std::fmt;

use serde::de::{DeserializeSeed, Expected, Visitor};
use serde_json::Value;

use super::ask::Ask;
use super::error::FitError;
use super::sample::samples;
use super::state::{Place, State, says};
use super::unit::Unit;
use crate::datum::put_index;
use crate::node::Node;

/// One place of the schema, met by the type.
pub(super) struct Walk<'s> {
    /// Nothing below a place where type and schema differ: there the type gets whatever it wants,
    /// so that what comes after is looked at too.
    pub(super) node: Option<Node>,
    pub(super) place: Place,
    pub(super) state: &'s mut State,
    /// What the schema gives as examples for this field.
    pub(super) examples: &'static [Value],
}

struct Expecting<'v, V>(&'v V);

impl<'de, V: Visitor<'de>> fmt::Display for Expecting<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Expected::fmt(self.0, f)
    }
}

impl<'s> Walk<'s> {
    pub(super) fn root(node: Node, state: &'s mut State) -> Self {
        Self { node: Some(node), place: Place::default(), state, examples: &[] }
    }

    pub(super) fn at(&mut self, node: Option<Node>, place: Place) -> Walk<'_> {
        Walk { node, place, state: self.state, examples: self.examples }
    }

    /// Lets a part of the type read this place, and notes what it says against it.
    pub(super) fn descend<'de, S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<S::Value, FitError> {
        let Self { node, place, state, examples } = self;
        let walk = Walk { node, place: place.clone(), state: &mut *state, examples };
        match seed.deserialize(walk) {
            Ok(value) => {
                state.accept(&place);
                Ok(value)
            }
            Err(error) => Err(state.judge(&place, error)),
        }
    }

    /// Checks a request, and takes a branch where the schema has a union.
    pub(super) fn settle(&mut self, ask: Ask) -> Result<(), FitError> {
        let Some(node) = self.node else {
            self.state.sound = false;
            return Ok(());
        };
        if !ask.suits(node) {
            self.state.ask_misfit(&self.place, ask, node);
            self.state.sound = false;
            self.node = None;
            return Ok(());
        }
        // These do with the whole union what they have to.
        let takes_union = matches!(ask, Ask::Option | Ask::Enum(_) | Ask::Tuple(1));
        if takes_union { Ok(()) } else { self.take_branch() }
    }

    /// Takes the next branch, if there is a union here.
    pub(super) fn take_branch(&mut self) -> Result<(), FitError> {
        let Some(branches) = self.node.and_then(Node::union) else { return Ok(()) };
        let labels = branches.iter().map(|branch| branch.to_string()).collect();
        let chosen = self.state.choose(&self.place, branches.len(), Some(labels));
        let index = chosen.ok_or(FitError::Told)?;
        put_index(&mut self.state.datum, index);
        self.node = branches.get(index);
        self.place = self.place.inside("", &format!("|{index}"));
        Ok(())
    }

    pub(super) fn leaf<'de, V: Visitor<'de>>(
        mut self,
        ask: Ask,
        visitor: V,
    ) -> Result<V::Value, FitError> {
        self.settle(ask)?;
        self.check_unit(&Expecting(&visitor).to_string());
        let samples = samples(ask, self.node, self.examples);
        let chosen = self.state.choose_sample(&self.place, samples.len()).ok_or(FitError::Told)?;
        let Some(sample) = samples.into_iter().nth(chosen) else { return Err(FitError::Told) };
        if let Some(node) = self.node {
            self.state.sound &= sample.put(node, &mut self.state.datum).is_some();
        }
        let fed = sample.feed(ask, visitor);
        fed.map_err(|error| self.state.judge(&self.place, error))
    }

    /// Numbers of milliseconds and microseconds look alike; what a type says that it expects is the
    /// only sign.
    fn check_unit(&mut self, expecting: &str) {
        let Some(node) = self.node else { return };
        let (Some(wanted), Some(said)) =
            (Unit::mentioned(expecting), node.logical().and_then(Unit::of))
        else {
            return;
        };
        if wanted != said {
            let wants = format!("the type wants {expecting}");
            let avro = says(node);
            self.state.read_misfit(&self.place.shown, wants, &avro, "use the same unit");
            self.state.sound = false;
            self.node = None;
        }
    }
}
