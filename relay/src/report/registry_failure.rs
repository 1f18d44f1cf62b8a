//! Failures of the schema registry that concern one schema.

use annals_schemas::SchemaId;

/// Why a schema has no id that can be used. An operator has to act.
#[derive(Debug, thiserror::Error)]
pub enum RegistryFailure {
    /// It refuses the schema.
    #[error("the registry refuses the schema under subject {subject}: {reason}")]
    Refused {
        /// The subject.
        subject: String,
        /// The registry's own words.
        reason: String,
    },
    /// It does not have the schema, and the relay may not register it.
    #[error(
        "the registry does not have the schema under subject {subject}, and registry.auto_register is off; \
         register it: {command}"
    )]
    NotRegistered {
        /// The subject.
        subject: String,
        /// The command that registers it.
        command: String,
    },
    /// The event types of the category cannot share a schema.
    #[error(
        "the event types of the category cannot share a schema in the layout {layout}: {reason}"
    )]
    NotShared {
        /// The layout.
        layout: &'static str,
        /// The conflict.
        reason: String,
    },
    /// It has another schema under the recorded id, or none.
    #[error(
        "id {id} of subject {subject} means {} in the registry: it has lost its data or is another one, and \
         messages with this id cannot be read with it. Restore it; if nothing was published with the id, \
         delete its row from relay_schema_ids instead",
        if *.is_known { "another schema" } else { "nothing" }
    )]
    IdMismatch {
        /// The subject.
        subject: String,
        /// The id.
        id: SchemaId,
        /// Whether it has another schema under the id, and not none.
        is_known: bool,
    },
}
