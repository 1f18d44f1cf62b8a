//! Loads schemas from the schema registry, and decodes events with them.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use annals_schemas::personal::placed;
use annals_schemas::{
    DecodeError, EventSchemas, EventSet, Schema, SchemaError, SchemaId, event_schemas,
};
use percent_encoding::percent_decode_str;
use schema_registry_converter::async_impl::schema_registry::{SrSettings, get_schema_by_id};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{RawError, RegisteredSchema, SchemaType};

use crate::envelope::Delivered;
use crate::outage::Outage;
use crate::position::RecordLocation;
use crate::registry_refusal::Unanswered;
use crate::registry_settings::{RegistrySettings, RegistrySetupError};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A client of the schema registry, with a cache of schemas by id.
///
/// It requests each schema once; clones share the cache. An id always names the same schema, within
/// one registry.
#[derive(Clone)]
pub struct SchemaRegistry {
    registry: Arc<SrSettings>,
    known: Arc<RwLock<HashMap<SchemaId, EventSchemas>>>,
    name: Arc<str>,
}

/// A permanent error of a schema lookup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaLookupError {
    /// The registry does not know the id: it is not the relay's registry, or has lost its data.
    #[error("the schema registry at {registry} knows no schema with id {id}")]
    Unknown {
        /// The id.
        id: SchemaId,
        /// The address of the registry.
        registry: Arc<str>,
    },
    /// The schema with this id is not Avro.
    #[error("schema {id} of the registry is {found} and not Avro")]
    NotAvro {
        /// The id.
        id: SchemaId,
        /// Its type.
        found: String,
    },
    /// The schema with this id is not a schema of Annals events.
    #[error("schema {id} of the registry cannot be used")]
    Unusable {
        /// The id.
        id: SchemaId,
        /// The cause.
        source: SchemaError,
    },
}

/// An event that cannot be decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeRecordError {
    /// The schema that wrote it cannot be loaded.
    #[error("find the schema that wrote record {location}")]
    Schema {
        /// The record.
        location: RecordLocation,
        /// The cause.
        source: SchemaLookupError,
    },
    /// Its payload does not match its schema, or its schema is incompatible with the reader's.
    #[error("decode {event_type} of record {location}")]
    Payload {
        /// The record.
        location: RecordLocation,
        /// The type of the event.
        event_type: String,
        /// The cause.
        source: DecodeError,
    },
}

impl SchemaRegistry {
    /// Makes a client for the base URL of a registry's Confluent API, such as
    /// `http://127.0.0.1:8081/apis/ccompat/v7`. A login in it, `http://user:password@..`, is used
    /// and never logged; reserved characters in it are percent-encoded. Sends nothing yet.
    ///
    /// # Errors
    /// [`RegistrySetupError`] if the HTTP client cannot be made, or the URL is ambiguous.
    pub fn new(registry_url: &str) -> Result<Self, RegistrySetupError> {
        Self::connect(&RegistrySettings::new(registry_url))
    }

    /// Makes a client with a token or with certificates. Sends nothing yet.
    ///
    /// # Errors
    /// [`RegistrySetupError`] if the HTTP client cannot be made, the URL is ambiguous, or a
    /// certificate cannot be used.
    pub fn connect(settings: &RegistrySettings) -> Result<Self, RegistrySetupError> {
        let address = RegistryAddress::parse(settings.url.trim_end_matches('/'))?;
        let client = settings.client()?;
        let mut builder = SrSettings::new_builder(address.url.clone());
        if let Some((username, password)) = &address.login {
            builder.set_basic_authorization(username, Some(password));
        }
        if let Some(token) = &settings.token {
            builder.set_token_authorization(token);
        }
        let built = builder.set_timeout(REQUEST_TIMEOUT).build_with(client);
        Ok(Self {
            registry: Arc::new(built.map_err(RegistrySetupError)?),
            known: Arc::default(),
            name: Arc::from(address.url),
        })
    }

    /// A registry with these schemas, each under its place in the list, which is never asked.
    pub(crate) fn of_schemas(schemas: &[Schema]) -> Self {
        let registry = Self::new("http://127.0.0.1:9");
        let registry = registry.unwrap_or_else(|error| panic!("make a registry: {error}"));
        let schemas = schemas.iter().copied().map(EventSchemas::One);
        let numbered = (0..).map(SchemaId).zip(schemas);
        registry.known.write().unwrap_or_else(PoisonError::into_inner).extend(numbered);
        registry
    }

    /// Returns the schema with this id: that of an event type, or of all that a category has. Waits
    /// while the registry is unavailable or refuses this client, and logs why, with what to do; can
    /// be cancelled. A client that is refused is made anew with other settings, or accepted by the
    /// registry later.
    ///
    /// # Errors
    /// [`SchemaLookupError`] if the schema does not exist or cannot be used.
    pub async fn get(&self, id: SchemaId) -> Result<EventSchemas, SchemaLookupError> {
        if let Some(schema) = self.known(id) {
            return Ok(schema);
        }
        let registered = self.fetch(id).await?;
        let schemas = usable(id, &registered)?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        Ok(known.entry(id).or_insert(schemas).clone())
    }

    fn known(&self, id: SchemaId) -> Option<EventSchemas> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Uses the free function of schema_registry_converter, which has no cache: the decoders of
    /// that crate cache errors of an outage permanently.
    async fn fetch(&self, id: SchemaId) -> Result<RegisteredSchema, SchemaLookupError> {
        let mut outage = Outage::of(format!("the schema registry at {}", self.name));
        let SchemaId(number) = id;
        loop {
            match get_schema_by_id(number, &self.registry).await {
                Ok(registered) => {
                    outage.record_success();
                    return Ok(registered);
                }
                Err(error) if is_unknown(&error) => {
                    return Err(SchemaLookupError::Unknown {
                        id,
                        registry: Arc::clone(&self.name),
                    });
                }
                Err(error) => tokio::time::sleep(delay_after(error, &mut outage)).await,
            }
        }
    }
}

/// Omits the client, which has the login.
impl std::fmt::Debug for SchemaRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SchemaRegistry").field("registry", &self.name).finish_non_exhaustive()
    }
}

impl Delivered {
    /// Decodes the event with the schema that wrote it. Requests a schema from the registry once,
    /// and waits while the registry is unavailable.
    ///
    /// # Errors
    /// [`DecodeRecordError`], with the location of the record; an event type that `E` does not
    /// declare is a [`DecodeError::UnknownEventType`] in it.
    pub async fn decode<E: EventSet>(
        &self,
        schemas: &SchemaRegistry,
    ) -> Result<E, DecodeRecordError> {
        self.decode_with(schemas, E::decode).await
    }

    /// Decodes the event as [`decode`](Self::decode) does; one of a set that `E` replaces as the
    /// events that the upcasters make of it: none, one or several.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub async fn decode_all<E: EventSet>(
        &self,
        schemas: &SchemaRegistry,
    ) -> Result<Vec<E>, DecodeRecordError> {
        self.decode_with(schemas, E::decode_all).await
    }

    async fn decode_with<T>(
        &self,
        schemas: &SchemaRegistry,
        decode: fn(&str, &Schema, &[u8]) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeRecordError> {
        let schema = schemas
            .get(self.schema_id)
            .await
            .map_err(|source| DecodeRecordError::Schema { location: self.location(), source })?;
        let decoded = match schema.event(&self.payload) {
            Some((schema, datum)) => {
                let event_id = *self.event_id.as_bytes();
                let datum = placed(&schema, event_id, &self.event_type, datum);
                decode(&self.event_type, &schema, &datum)
            }
            None => Err(DecodeError::Malformed {
                record: self.full_type.clone(),
                reason: "it begins with no branch of its schema".to_owned(),
            }),
        };
        decoded.map_err(|source| DecodeRecordError::Payload {
            location: self.location(),
            event_type: self.event_type.clone(),
            source,
        })
    }
}

/// Records a failed request, and returns the delay before the next one.
fn delay_after(error: SRCError, outage: &mut Outage) -> Duration {
    let unanswered = Unanswered::from(error);
    if unanswered.is_refusal() {
        outage.record_refusal(&unanswered)
    } else {
        outage.record_failure(&unanswered)
    }
}

fn usable(id: SchemaId, registered: &RegisteredSchema) -> Result<EventSchemas, SchemaLookupError> {
    if registered.schema_type != SchemaType::Avro {
        let found = format!("{:?}", registered.schema_type);
        return Err(SchemaLookupError::NotAvro { id, found });
    }
    event_schemas(&registered.schema).map_err(|source| SchemaLookupError::Unusable { id, source })
}

/// 40403 is Confluent's code for an unknown schema. A 404 without such a code comes from another
/// server than the registry, such as a proxy before a registry that is starting.
fn is_unknown(error: &SRCError) -> bool {
    let answer = error.source().and_then(|source| source.downcast_ref::<RawError>());
    answer.is_some_and(|answer| (40_400..40_500).contains(&answer.error_code))
}

/// A registry's URL without its login, which no log and no error may contain.
struct RegistryAddress {
    url: String,
    login: Option<(String, String)>,
}

impl RegistryAddress {
    fn parse(url: &str) -> Result<Self, RegistrySetupError> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if path.contains('@') {
            return Err(unusable(
                "its address has an @ behind the host: \
                 in a user or a password, write / as %2F, ? as %3F and # as %23",
            ));
        }
        let (login, host) = match authority.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, authority),
        };
        let login = login.map(decoded).transpose()?;
        Ok(Self { url: format!("{scheme}://{host}{path}"), login })
    }
}

fn decoded(login: &str) -> Result<(String, String), RegistrySetupError> {
    let (username, password) = login.split_once(':').unwrap_or((login, ""));
    let text = |part| percent_decode_str(part).decode_utf8().map(String::from);
    match (text(username), text(password)) {
        (Ok(username), Ok(password)) => Ok((username, password)),
        (Err(_), _) | (_, Err(_)) => {
            Err(unusable("its address has a user or a password that is not UTF-8"))
        }
    }
}

fn unusable(reason: &str) -> RegistrySetupError {
    RegistrySetupError(SRCError::non_retryable_without_cause(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_in_the_address_is_used_and_stays_out_of_logs() {
        let address = RegistryAddress::parse("http://me:sec%2fret@host:1/api").unwrap();
        assert_eq!(address.url, "http://host:1/api");
        assert_eq!(address.login, Some(("me".to_owned(), "sec/ret".to_owned())));
        assert_eq!(RegistryAddress::parse("http://host:1/api").unwrap().login, None);
        let shown = format!("{:?}", SchemaRegistry::new("http://me:secret@host:1/api").unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn a_login_that_cannot_be_told_from_the_address_is_refused_without_being_shown() {
        let refused = SchemaRegistry::new("http://me:sec/ret@host").unwrap_err();
        let said = format!("{refused}: {}", refused.source().unwrap());
        assert!(said.contains("%2F") && !said.contains("ret@"), "{said}");
    }
}
