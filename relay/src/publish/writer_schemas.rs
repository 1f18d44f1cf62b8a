//! The schemas of messages: their ids, and the schema that a category's event types share.

use std::sync::Arc;

use annals_schemas::{Fingerprint, Layout, Schema, SharedSchema};
use annals_store::{Category, Store};

use crate::config::{Config, Topics};
use crate::model::event_format::{EventFormat, WriterSchema};
use crate::publish::registry::{Asking, RegistryClient};
use crate::report::failure::Failure;
use crate::report::registry_failure::RegistryFailure;

/// The schema of a category's events.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SchemaKey {
    /// The topic of the category.
    pub(crate) topic: Arc<str>,
    pub(crate) category: String,
    pub(crate) fingerprint: Fingerprint,
}

/// Finds out how messages name the schemas of events.
pub(crate) struct WriterSchemas {
    store: Store,
    registry: RegistryClient,
    topics: Topics,
    format: EventFormat,
}

impl WriterSchemas {
    pub(crate) fn new(config: &Config, store: &Store, registry: RegistryClient) -> Self {
        Self {
            store: store.clone(),
            registry,
            topics: config.topics.clone(),
            format: EventFormat::of(config),
        }
    }

    pub(crate) fn format(&self) -> &EventFormat {
        &self.format
    }

    /// Whether the registry did not answer when it was last asked.
    pub(crate) fn is_registry_unavailable(&self) -> bool {
        self.registry.is_unavailable()
    }

    /// The schema of a category's events, as their messages name it.
    ///
    /// # Errors
    /// [`Failure::Schema`] if the registry has no usable id, or the types of the category cannot
    /// share a schema; [`Failure::Outage`].
    pub(crate) async fn of(
        &self,
        SchemaKey { topic, category, fingerprint }: &SchemaKey,
        asking: Asking,
    ) -> Result<WriterSchema, Failure> {
        let schema = self.store.schemas([*fingerprint].into()).await?[fingerprint];
        let layout = self.topics.layout(category);
        let shared = match layout {
            Layout::Record => None,
            Layout::Union | Layout::Envelope => {
                let versions = versions_up_to(&self.store, category, schema).await?;
                shared(layout, (topic, category), &versions)?
            }
        };
        let id = self.registry.id_for(asking, topic, schema, shared.as_ref()).await?;
        Ok(self.format.schema(id, schema, shared))
    }
}

/// The versions of a category up to one of them, in the order of their registration.
async fn versions_up_to(
    store: &Store,
    category: &str,
    schema: Schema,
) -> Result<Vec<Schema>, Failure> {
    // The store has checked the name.
    let Ok(category) = Category::new(category) else { return Ok(vec![schema]) };
    Ok(store.recorded_schemas_up_to(&category, schema.fingerprint()).await?)
}

/// The schema that the types of a category share.
///
/// # Errors
/// [`Failure::Schema`] if they cannot.
pub(crate) fn shared(
    layout: Layout,
    (topic, category): (&Arc<str>, &str),
    versions: &[Schema],
) -> Result<Option<SharedSchema>, Failure> {
    layout.shared(category, versions).map_err(|error| Failure::Schema {
        topic: Arc::clone(topic),
        schema: error.name.clone(),
        source: RegistryFailure::NotShared { layout: layout.name(), reason: error.reason },
    })
}
