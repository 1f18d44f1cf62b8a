//! Schemas by the registry's id, and decoding with them.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use annals_schemas::{DecodeError, EventSet, Schema, SchemaError, SchemaId};
use schema_registry_converter::async_impl::schema_registry::{SrSettings, get_schema_by_id};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{RawError, RegisteredSchema, SchemaType};

use crate::envelope::Delivered;
use crate::outage::Outage;
use crate::position::Place;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The schemas that wrote the events, by their id in the schema registry.
///
/// Each is asked for once and kept; clones share what they know. An id means one schema for ever, and one
/// registry only.
#[derive(Debug, Clone)]
pub struct Schemas {
    registry: Arc<SrSettings>,
    known: Arc<RwLock<HashMap<SchemaId, Schema>>>,
    name: Arc<str>,
}

/// The client of the schema registry could not be made.
#[derive(Debug, thiserror::Error)]
#[error("make a client for the schema registry")]
pub struct RegistrySetupError(#[from] SRCError);

/// A schema that cannot be had, however long one waits.
#[derive(Debug, thiserror::Error)]
pub enum SchemaLookupError {
    /// The registry does not know the id: it is another registry than the relay's, or has lost its
    /// data.
    #[error("the schema registry at {registry} knows no schema with id {id}")]
    Unknown {
        /// The id.
        id: SchemaId,
        /// Where it was asked for.
        registry: Arc<str>,
    },
    /// What stands under the id is not Avro.
    #[error("schema {id} of the registry is {found} and not Avro")]
    NotAvro {
        /// The id.
        id: SchemaId,
        /// What it is.
        found: String,
    },
    /// What stands under the id is not a schema of Annals events.
    #[error("schema {id} of the registry cannot be used")]
    Unusable {
        /// The id.
        id: SchemaId,
        /// Why.
        source: SchemaError,
    },
}

/// An event that was delivered and cannot be decoded. Says where it lies.
#[derive(Debug, thiserror::Error)]
pub enum DecodeFailure {
    /// The schema that wrote it cannot be had.
    #[error("find the schema that wrote record {place}")]
    Schema {
        /// Where the record lies.
        place: Place,
        /// Why not.
        source: SchemaLookupError,
    },
    /// Its payload and its schema do not go together, or do not fit the type asked for.
    #[error("decode {event_type} of record {place}")]
    Payload {
        /// Where the record lies.
        place: Place,
        /// The type of the event.
        event_type: String,
        /// Why not.
        source: DecodeError,
    },
}

impl Schemas {
    /// Will ask the registry at this base address of its Confluent API, such as
    /// `http://127.0.0.1:8081/apis/ccompat/v7`. Asks nothing yet.
    ///
    /// # Errors
    /// [`RegistrySetupError`] if the HTTP client cannot be made.
    pub fn new(registry_url: &str) -> Result<Self, RegistrySetupError> {
        let url = registry_url.trim_end_matches('/');
        let mut builder = SrSettings::new_builder(url.to_owned());
        Ok(Self {
            registry: Arc::new(builder.set_timeout(REQUEST_TIMEOUT).build()?),
            known: Arc::default(),
            name: Arc::from(without_password(url)),
        })
    }

    /// The schema with this id. While the registry is away this waits, and logs that it does; it can be
    /// cancelled.
    ///
    /// # Errors
    /// [`SchemaLookupError`] if there is no such schema or it cannot be used.
    pub async fn get(&self, id: SchemaId) -> Result<Schema, SchemaLookupError> {
        if let Some(schema) = self.known(id) {
            return Ok(schema);
        }
        let registered = self.fetch(id).await?;
        let schema = usable(id, &registered)?;
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(id, schema);
        Ok(schema)
    }

    fn known(&self, id: SchemaId) -> Option<Schema> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(&id).copied()
    }

    /// The free function of schema_registry_converter, which has no cache: the decoders of that crate keep an
    /// error for ever that an outage caused.
    async fn fetch(&self, id: SchemaId) -> Result<RegisteredSchema, SchemaLookupError> {
        let mut outage = Outage::of(format!("the schema registry at {}", self.name));
        let SchemaId(number) = id;
        loop {
            match get_schema_by_id(number, &self.registry).await {
                Ok(registered) => {
                    outage.over();
                    return Ok(registered);
                }
                Err(error) if is_unknown(&error) => {
                    return Err(SchemaLookupError::Unknown {
                        id,
                        registry: Arc::clone(&self.name),
                    });
                }
                Err(error) => tokio::time::sleep(outage.failed(&error)).await,
            }
        }
    }
}

impl Delivered {
    /// Decodes the event with the schema that wrote it. Asks the registry the first time a schema id is
    /// seen, and waits while it is away.
    ///
    /// # Errors
    /// [`DecodeFailure`], with the place of the record; an event type that `E` does not declare is a
    /// [`DecodeError::UnknownEventType`] in it.
    pub async fn decode<E: EventSet>(&self, schemas: &Schemas) -> Result<E, DecodeFailure> {
        let schema = schemas
            .get(self.schema_id)
            .await
            .map_err(|source| DecodeFailure::Schema { place: self.place(), source })?;
        E::decode(&self.event_type, &schema, &self.payload).map_err(|source| {
            DecodeFailure::Payload {
                place: self.place(),
                event_type: self.event_type.clone(),
                source,
            }
        })
    }
}

fn usable(id: SchemaId, registered: &RegisteredSchema) -> Result<Schema, SchemaLookupError> {
    if registered.schema_type != SchemaType::Avro {
        let found = format!("{:?}", registered.schema_type);
        return Err(SchemaLookupError::NotAvro { id, found });
    }
    Schema::parse(&registered.schema).map_err(|source| SchemaLookupError::Unusable { id, source })
}

/// 40403 is Confluent's code for an unknown schema. A 404 without such a code comes from something
/// else than a registry, like a proxy in front of one that is starting.
fn is_unknown(error: &SRCError) -> bool {
    let answer = error.source().and_then(|source| source.downcast_ref::<RawError>());
    answer.is_some_and(|answer| (40_400..40_500).contains(&answer.error_code))
}

fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (Some(_) | None, Some(_) | None) => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_in_the_address_stays_out_of_logs() {
        assert_eq!(without_password("http://me:secret@host:1/api"), "http://host:1/api");
        assert_eq!(without_password("http://host:1/api"), "http://host:1/api");
    }
}
