//! The texts of errors that pass a probe: serde hides their types.

use std::fmt;

/// Whether the library refuses the request itself for this schema, with any datum.
pub(super) fn is_of_the_request(error: &str) -> bool {
    error.contains(": Expected Schema::")
        || error.contains("Only expected `deserialize_identifier`")
}

/// The text of an error without the library's introduction, which may print the whole schema.
pub(super) fn plain(error: &impl fmt::Display) -> String {
    let text = error.to_string();
    let facts = ["Could not convert ", "Read more than ", "String is empty"];
    let fact = facts.into_iter().find_map(|fact| text.find(fact));
    let custom = "Failed to deserialize Avro value into value: ";
    let start = text.rfind(custom).map(|start| start + custom.len()).or(fact);
    text.get(start.unwrap_or_default()..).unwrap_or_default().to_owned()
}
