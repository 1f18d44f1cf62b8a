//! Checks a definition before it is used as a schema.

use apache_avro::Schema as Avro;
use apache_avro::schema::{Name, RecordField};

use crate::SchemaError;
use crate::avro_types::{Fields, Node, Shape};
use crate::default;

/// The name in errors of a definition without one.
pub(crate) const NAMELESS: &str = "?";

/// A length that registry subjects (`<topic>-<full name>`) and most file systems allow.
const FULL_NAME_BYTES_MAX: usize = 200;

/// The nesting of records: each level uses stack while decoding.
const DEPTH_MAX: usize = 32;

/// Removes the white space between the tokens of a JSON text.
///
/// It does not parse and print the text: whether that keeps the order of attributes depends on
/// features of the JSON library that any crate of the build can enable. The fingerprint must not.
pub(crate) fn minified(json: &str) -> String {
    let mut in_string = false;
    let mut escaped = false;
    let mut kept = |character: char| {
        let was_in_string = in_string;
        if character == '"' && !escaped {
            in_string = !in_string;
        }
        escaped = was_in_string && character == '\\' && !escaped;
        was_in_string || !matches!(character, ' ' | '\t' | '\n' | '\r')
    };
    json.chars().filter(|character| kept(*character)).collect()
}

pub(crate) fn refuse(name: &str, reason: impl Into<String>) -> SchemaError {
    SchemaError { name: name.to_owned(), reason: reason.into() }
}

pub(crate) fn parse(definition: &str) -> Result<Avro, SchemaError> {
    Avro::parse_str(definition).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        refuse(NAMELESS, format!("not an Avro definition: {error}{}", cause.unwrap_or_default()))
    })
}

/// The full name of a record that may name an event type.
pub(crate) fn full_name(avro: &Avro) -> Result<String, SchemaError> {
    let Avro::Record(record) = avro else {
        return Err(refuse(NAMELESS, format!("an event is an Avro record, and this is a {avro}")));
    };
    let full_name = record.name.fullname(None);
    // Any crate of the build can replace the library's own check.
    let legal = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && part.chars().all(|other| other.is_ascii_alphanumeric() || other == '_')
    };
    if !full_name.split('.').all(legal) {
        let reason = "a name is letters, digits and _, not starting with a digit";
        return Err(refuse(&full_name, reason));
    }
    if full_name.len() > FULL_NAME_BYTES_MAX {
        let reason = format!("the full name is longer than {FULL_NAME_BYTES_MAX} bytes");
        return Err(refuse(&full_name, reason));
    }
    Ok(full_name)
}

/// Checks the rules for every type of a schema.
pub(crate) fn check(root: Node, full_name: &str) -> Result<(), SchemaError> {
    let mut check = DefinitionCheck { path: Vec::new(), open: Vec::new() };
    let checked = check.node(root);
    checked.map_err(|reason| match check.path.as_slice() {
        [] => refuse(full_name, reason),
        path => refuse(full_name, format!("field `{}`: {reason}", path.join("."))),
    })
}

struct DefinitionCheck {
    path: Vec<&'static str>,
    open: Vec<&'static Name>,
}

impl DefinitionCheck {
    fn node(&mut self, node: Node) -> Result<(), String> {
        match node.shape() {
            Shape::Record(fields) => self.record(fields),
            Shape::Union(branches) if branches.len() == 0 => {
                Err("a union without branches has no value".into())
            }
            Shape::Union(branches) => branches.iter().try_for_each(|branch| self.node(branch)),
            // Items without bytes would let a short payload claim a huge count.
            Shape::Array(items) if is_empty(items) => {
                Err(format!("an array of {items}, which takes no bytes, is only a number"))
            }
            Shape::Array(items) | Shape::Map(items) => self.node(items),
            Shape::Null
            | Shape::Boolean
            | Shape::Int
            | Shape::Long
            | Shape::Float
            | Shape::Double
            | Shape::Bytes
            | Shape::String
            | Shape::Fixed(_)
            | Shape::Enum(_) => Ok(()),
        }
    }

    fn record(&mut self, fields: Fields) -> Result<(), String> {
        let name = &fields.record.name;
        // With recursion a small payload could exhaust the stack.
        if self.open.contains(&name) {
            return Err(format!("record {name} contains itself; use an array of flat records"));
        }
        if self.open.len() == DEPTH_MAX {
            return Err(format!("records are nested deeper than {DEPTH_MAX}"));
        }
        self.open.push(name);
        for (field, node) in fields.iter() {
            self.path.push(&field.name);
            check_aliases(fields, field)?;
            self.node(node)?;
            if let Some(value) = &field.default {
                let mut unused = Vec::new();
                default::encode(node, value, &mut unused)?;
            }
            self.path.pop();
        }
        self.open.pop();
        Ok(())
    }
}

/// The library looks fields up by name and alias alike: it would confuse two with the same one.
fn check_aliases(fields: Fields, field: &RecordField) -> Result<(), String> {
    let taken = |alias: &&String| {
        let mut others = fields.iter().filter(|(other, _)| other.name != field.name);
        others.any(|(other, _)| other.name == **alias || other.aliases.contains(alias))
    };
    match field.aliases.iter().find(taken) {
        Some(alias) => Err(format!("its alias {alias} is the name or alias of another field")),
        None => Ok(()),
    }
}

fn is_empty(node: Node) -> bool {
    match node.shape() {
        Shape::Null => true,
        Shape::Fixed(fixed) => fixed.size == 0,
        Shape::Record(fields) => fields.iter().all(|(_, node)| is_empty(node)),
        Shape::Boolean
        | Shape::Int
        | Shape::Long
        | Shape::Float
        | Shape::Double
        | Shape::Bytes
        | Shape::String
        | Shape::Enum(_)
        | Shape::Array(_)
        | Shape::Map(_)
        | Shape::Union(_) => false,
    }
}
