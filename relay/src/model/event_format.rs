//! The parts of messages that do not differ from event to event, and the schemas that they name.

use std::sync::Arc;

use annals_schemas::{Framing, Schema, SchemaId, SharedSchema};

use crate::config::Config;

/// The parts that all messages of a relay have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventFormat {
    /// `ce_source`.
    pub source: String,
    /// Where a message names the schema of its value.
    pub framing: Framing,
    /// The base of the registry's API, with which `ce_dataschema` begins.
    pub registry_url: String,
}

impl EventFormat {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            source: config.relay.source.clone(),
            framing: config.topics.framing,
            registry_url: config.registry.url.clone(),
        }
    }

    /// A schema, as the messages name it.
    #[must_use]
    pub fn schema(
        &self,
        id: SchemaId,
        schema: Schema,
        shared: Option<SharedSchema>,
    ) -> WriterSchema {
        let uri = format!("{}/schemas/ids/{id}", self.registry_url).into();
        WriterSchema { id, full_name: schema.full_name(), uri, shared }
    }
}

/// The schema that wrote an event, as its message names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterSchema {
    /// The registry's id.
    pub id: SchemaId,
    /// The full name of its record: `ce_type`.
    pub full_name: &'static str,
    /// `ce_dataschema`.
    pub uri: Arc<str>,
    /// The schema that the category's event types share, if they do: the id is its id.
    pub shared: Option<SharedSchema>,
}

impl WriterSchema {
    pub(crate) fn value(&self, framing: Framing, payload: &[u8]) -> Vec<u8> {
        match &self.shared {
            Some(shared) => framing.value(self.id, &shared.datum(payload)),
            None => framing.value(self.id, payload),
        }
    }
}
