//! The place of the schema that a type reads, and the checks of its requests there.

use std::fmt;

use serde::de::{Expected, Visitor};

use super::advice::advice;
use super::findings::{dotted, with};
use crate::avro_types::{Logical, Node};

/// A place of the schema.
#[derive(Clone)]
pub(super) struct At {
    pub(super) node: Option<Node>,
    pub(super) shown: String,
}

impl At {
    pub(super) fn field(&self, index: usize) -> Self {
        match self.node.and_then(Node::record).and_then(|fields| fields.get(index)) {
            Some((field, node)) => {
                Self { node: Some(node), shown: dotted(&self.shown, &field.name) }
            }
            None => self.clone(),
        }
    }

    pub(super) fn inside(&self, node: Option<Node>, shown: &str) -> Self {
        Self { node, shown: format!("{}{shown}", self.shown) }
    }

    /// The branch that this round's sample takes, in a union.
    pub(super) fn branch(&self) -> Self {
        let branches = self.node.and_then(Node::union);
        let taken = branches.zip(with(|findings| findings.branch(&self.shown)));
        let node = taken.and_then(|(branches, index)| branches.get(index));
        Self { node: node.or(self.node), shown: self.shown.clone() }
    }

    pub(super) fn says(&self) -> String {
        self.node.map_or_else(
            || "the schema says nothing".into(),
            |node| format!("the schema says {node}"),
        )
    }

    pub(super) fn unreadable(&self, wanted: &str) {
        let advice = self.node.map(|node| advice(wanted, node)).unwrap_or_default();
        let wants = format!("the type wants {wanted}");
        with(|findings| findings.unreadable(&self.shown, &wants, &self.says(), &advice));
    }

    /// The schema's fields of which the type says that it has none.
    pub(super) fn check_fields(&self, known: &[&str]) {
        for (field, node) in
            self.node.and_then(Node::record).iter().flat_map(|record| record.iter())
        {
            if !known.contains(&field.name.as_str()) {
                let lacks = "the type has no such field".into();
                let says = format!("the schema says {node}");
                let shown = dotted(&self.shown, &field.name);
                with(|findings| findings.read_misfit(&shown, lacks, &says, ""));
            }
        }
    }

    /// Numbers of milliseconds and microseconds look alike: only the text in which a type names its
    /// expectation tells them apart.
    pub(super) fn check_unit<'de, V: Visitor<'de>>(&self, visitor: &V) {
        const UNITS: [&str; 4] = ["nanosecond", "microsecond", "millisecond", "second"];
        let expecting = Expecting(visitor).to_string();
        let lower = expecting.to_ascii_lowercase();
        let wanted = UNITS.into_iter().find(|unit| lower.contains(unit));
        if let (Some(wanted), Some(said)) =
            (wanted, self.node.and_then(Node::logical).and_then(unit))
            && wanted != said
        {
            let wants = format!("the type wants {expecting}");
            with(|findings| {
                findings.unreadable(&self.shown, &wants, &self.says(), "use the same unit");
            });
        }
        self.check_decimal(&expecting);
    }

    /// The bytes of a decimal do not say where its point is.
    fn check_decimal(&self, expecting: &str) {
        let logical = self.node.and_then(Node::logical);
        if expecting.starts_with("decimal(")
            && logical.is_none_or(|said| said.to_string() != expecting)
        {
            let wants = format!("the type wants {expecting}");
            let advice = "use the same precision and scale";
            with(|findings| {
                findings.unreadable(&self.shown, &wants, &self.says(), advice);
            });
        }
    }
}

struct Expecting<'v, V>(&'v V);

impl<'de, V: Visitor<'de>> fmt::Display for Expecting<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Expected::fmt(self.0, f)
    }
}

/// The unit that a logical type counts.
fn unit(logical: Logical) -> Option<&'static str> {
    let name = logical.to_string();
    let units = [("-millis", "millisecond"), ("-micros", "microsecond"), ("-nanos", "nanosecond")];
    units.into_iter().find_map(|(suffix, unit)| name.ends_with(suffix).then_some(unit))
}
