//! Changes that would make a type fit.

use crate::avro_types::{Logical, Node, Shape};

/// Advice for a type that makes this request where the schema says `node`; empty where none is
/// needed.
pub(super) fn advice(wanted: &str, node: Node) -> String {
    match (wanted, node.shape()) {
        ("an Option", Shape::Union(_)) => "an Option is null and one other branch".into(),
        ("an Option", shape) => format!("drop the Option, or say [\"null\", {shape}]"),
        (_, Shape::Union(branches)) if branches.as_option().is_some() => {
            "use an Option, or take null out of the schema".into()
        }
        ("u64" | "u128" | "i128", _) => "Avro's widest integer is i64".into(),
        ("i64" | "u32", Shape::Int) => "use i32, or say long".into(),
        ("i8" | "i16" | "i32" | "u8" | "u16", Shape::Long) => "use i64, or say int".into(),
        ("f32", Shape::Double) => "use f64, or say float".into(),
        ("f64", Shape::Float) => "use f32, or say double".into(),
        ("bytes", Shape::String) if node.logical() == Some(Logical::Uuid) => {
            "a uuid::Uuid is 16 bytes here: say fixed of 16, or write it as text with \
             #[serde(with = \"uuid::serde::hyphenated\")]"
                .into()
        }
        ("text", Shape::Int | Shape::Long) if node.logical().is_some() => {
            "write the number, as #[serde(with = \"timestamp_millis\")] does".into()
        }
        (_, shape) => compound(wanted, shape),
    }
}

fn compound(wanted: &str, shape: Shape) -> String {
    let is_listed = wanted == "a sequence" || wanted.starts_with("a tuple");
    match (wanted.split_once(' '), shape) {
        (_, Shape::Bytes | Shape::Fixed(_)) if is_listed => {
            "use #[serde(with = \"serde_bytes\")]".into()
        }
        (_, Shape::Array(_)) if is_listed => "use a Vec".into(),
        (Some(("newtype", name)), _) => format!("put #[serde(transparent)] on {name}"),
        (Some(("struct", name)), Shape::Record(fields)) => {
            let record = fields.name();
            format!("name both the same, or put #[serde(rename = \"{record}\")] on {name}")
        }
        (_, _) => String::new(),
    }
}
