//! The marks of personal fields in a schema.

use apache_avro::schema::RecordField;
use serde_json::Value;

use crate::avro_types::{Node, Shape};

/// The property of a field that marks it.
const OWN: &str = "annals.personal";
/// Confluent's property, with a list of tags, and the tag that marks a field.
const TAGS: &str = "confluent:tags";
const TAG: &str = "PII";

/// Whether a field is marked.
pub(crate) fn is_marked(field: &RecordField) -> bool {
    let own = field.custom_attributes.get(OWN).and_then(Value::as_bool).unwrap_or_default();
    let tags = field.custom_attributes.get(TAGS).and_then(Value::as_array);
    own || tags.is_some_and(|tags| tags.iter().any(|tag| tag == TAG))
}

/// The marks of a schema, found once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Marks {
    /// Whether any field of type bytes is marked.
    pub(crate) any: bool,
    /// The marked fields of other types, which cannot be sealed.
    pub(crate) misplaced: Vec<String>,
}

impl Marks {
    pub(crate) fn of(root: Node) -> Self {
        let mut marks = Self::default();
        marks.search(root, "");
        marks
    }

    fn note(&mut self, field: &RecordField, node: Node, path: String) {
        match (is_marked(field), can_be_sealed(node)) {
            (true, true) => self.any = true,
            (true, false) => self.misplaced.push(path),
            (false, _) => self.search(node, &path),
        }
    }

    fn search(&mut self, node: Node, path: &str) {
        match node.shape() {
            Shape::Record(fields) => fields.iter().for_each(|(field, inner)| {
                let dot = if path.is_empty() { "" } else { "." };
                self.note(field, inner, format!("{path}{dot}{}", field.name));
            }),
            Shape::Array(inner) | Shape::Map(inner) => self.search(inner, path),
            Shape::Union(branches) => branches.iter().for_each(|branch| self.search(branch, path)),
            Shape::Null
            | Shape::Boolean
            | Shape::Int
            | Shape::Long
            | Shape::Float
            | Shape::Double
            | Shape::Bytes
            | Shape::String
            | Shape::Fixed(_)
            | Shape::Enum(_) => {}
        }
    }
}

/// `bytes`, and null, arrays and maps of them.
fn can_be_sealed(node: Node) -> bool {
    match node.shape() {
        Shape::Bytes => node.logical().is_none(),
        Shape::Array(inner) | Shape::Map(inner) => can_be_sealed(inner),
        Shape::Union(branches) => branches.as_option().is_some_and(can_be_sealed),
        Shape::Null
        | Shape::Boolean
        | Shape::Int
        | Shape::Long
        | Shape::Float
        | Shape::Double
        | Shape::String
        | Shape::Fixed(_)
        | Shape::Enum(_)
        | Shape::Record(_) => false,
    }
}
