//! The schema registry: which id a schema has there.
//!
//! An id goes into every message, so it must mean the same schema for ever. It is kept in the database when it
//! is first told, checked against the registry whenever that answers, and used without it when it is
//! away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_schemas::{Schema, SchemaId};
use annals_store::{SchemaName, Store};
use schema_registry_converter::async_impl::schema_registry::{SrSettings, perform_sr_call};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{RawError, RawRegisteredSchema, SrCall};
use serde_json::Value;
use sqlx::PgPool;

use crate::config::{self, Config, Login};
use crate::failure::{Component, Failure};

/// A registry that did not answer is left alone for so long, where the ids are known without it.
const REST: Duration = Duration::from_secs(10);

const ASK: &str = "ask the schema registry";

/// Why a schema has no id that can be used. Waiting helps when somebody mends it.
#[derive(Debug, thiserror::Error)]
pub enum RegistryFailure {
    /// It will not have the schema.
    #[error("the registry refuses the schema under subject {subject}: {reason}")]
    Refused {
        /// The subject.
        subject: String,
        /// The registry's sentence.
        reason: String,
    },
    /// It does not know the schema, and the relay may not tell it.
    #[error(
        "the registry does not have the schema under subject {subject}, and registry.auto_register is off; \
         this registers it: {command}"
    )]
    NotRegistered {
        /// The subject.
        subject: String,
        /// The command that registers it.
        command: String,
    },
    /// It has another schema under the id, or none: it has lost its data, or is another registry.
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
        /// Whether there is another schema under the id.
        is_known: bool,
    },
}

/// Knows the ids of schemas.
pub struct Registry {
    settings: SrSettings,
    config: config::Registry,
    pool: PgPool,
    schema_name: SchemaName,
    away_since: Option<Instant>,
}

/// What the registry answers, by what it means here.
enum Answer {
    Found(RawRegisteredSchema),
    Unknown,
    Refused(String),
    Away(SRCError),
}

/// What is known of one schema.
struct Sought<'a> {
    subject: String,
    topic: &'a Arc<str>,
    schema: Schema,
}

impl Registry {
    /// Makes the client; asks nothing yet.
    ///
    /// # Errors
    /// [`Failure::Outage`] when TLS cannot be set up.
    pub fn connect(config: &Config, store: &Store) -> Result<Self, Failure> {
        let config = config.registry.clone();
        let mut builder = SrSettings::new_builder(config.url.clone());
        builder.set_timeout(config.timeout);
        match &config.login {
            Login::None => {}
            Login::Basic { username, password } => {
                builder.set_basic_authorization(username, Some(password.expose()));
            }
            Login::Token(token) => {
                builder.set_token_authorization(token.expose());
            }
        }
        Ok(Self {
            settings: builder
                .build()
                .map_err(|error| away("make a client for the schema registry", error))?,
            config,
            pool: store.pool().clone(),
            schema_name: store.schema().clone(),
            away_since: None,
        })
    }

    /// The id under which a topic's readers find a schema. Subjects are named after topic and record.
    ///
    /// # Errors
    /// [`Failure::Outage`] when the registry is away and the id not known yet, or the database is away;
    /// [`Failure::Schema`] when the registry does not give one that can be used.
    pub async fn id(&mut self, topic: &Arc<str>, schema: Schema) -> Result<SchemaId, Failure> {
        let subject = format!("{topic}-{}", schema.full_name());
        let sought = Sought { subject, topic, schema };
        match self.recorded(&sought).await? {
            Some(id) => self.confirm(&sought, id).await,
            None => self.ask(&sought).await,
        }
    }

    /// Checks a known id where the registry answers; it need not.
    async fn confirm(&mut self, sought: &Sought<'_>, id: SchemaId) -> Result<SchemaId, Failure> {
        if self.away_since.is_some_and(|since| since.elapsed() < REST) {
            return Ok(id);
        }
        match self.check(sought, id).await {
            Err(Failure::Outage { source, .. }) => self.is_away(&*source),
            Err(failure) => return Err(failure),
            Ok(()) => self.is_back(),
        }
        Ok(id)
    }

    /// Asks for an id that is not known yet, and keeps it.
    async fn ask(&self, sought: &Sought<'_>) -> Result<SchemaId, Failure> {
        let body =
            serde_json::json!({ "schema": sought.schema.definition(), "schemaType": "AVRO" });
        let body = body.to_string();
        let answer = if self.config.auto_register {
            self.register(&sought.subject, &body).await
        } else {
            self.call(SrCall::PostForVersion(&sought.subject, &body)).await
        };
        let found = match answer {
            Answer::Found(found) => found,
            Answer::Unknown => return Err(sought.failed(self.not_registered(sought))),
            Answer::Refused(reason) => {
                let subject = sought.subject.clone();
                return Err(sought.failed(RegistryFailure::Refused { subject, reason }));
            }
            Answer::Away(error) => return Err(away(ASK, error)),
        };
        let Some(id) = found.id.map(SchemaId) else {
            return Err(away(ASK, SRCError::non_retryable_without_cause("its answer has no id")));
        };
        self.check(sought, id).await?;
        self.record(sought, id).await?;
        Ok(id)
    }

    /// Registers a schema, unless it is registered. Of relays that register the first schema of a subject at once, a
    /// registry may refuse all but one: what is refused is looked up, and tried once more.
    async fn register(&self, subject: &str, body: &str) -> Answer {
        let refused = match self.call(SrCall::PostNew(subject, body)).await {
            Answer::Refused(reason) => reason,
            answer @ (Answer::Found(_) | Answer::Unknown | Answer::Away(_)) => return answer,
        };
        tracing::debug!(subject, refused, "looking up what the registry refuses to register");
        match self.call(SrCall::PostForVersion(subject, body)).await {
            Answer::Unknown | Answer::Refused(_) => self.call(SrCall::PostNew(subject, body)).await,
            answer @ (Answer::Found(_) | Answer::Away(_)) => answer,
        }
    }

    /// Makes sure that the id means the schema.
    async fn check(&self, sought: &Sought<'_>, id: SchemaId) -> Result<(), Failure> {
        let mismatch = |is_known| {
            let subject = sought.subject.clone();
            Err(sought.failed(RegistryFailure::IdMismatch { subject, id, is_known }))
        };
        match self.call(SrCall::GetById(id.0)).await {
            // A proxy's page, say, in JSON: nothing about the id.
            Answer::Found(RawRegisteredSchema { schema: None, .. }) => {
                let no_schema = SRCError::non_retryable_without_cause("its answer has no schema");
                Err(away(ASK, no_schema))
            }
            Answer::Found(found) if same(found.schema.as_deref(), sought.schema.definition()) => {
                Ok(())
            }
            Answer::Found(_) => mismatch(true),
            Answer::Unknown => mismatch(false),
            Answer::Refused(reason) => {
                Err(away(ASK, SRCError::non_retryable_without_cause(&reason)))
            }
            Answer::Away(error) => Err(away(ASK, error)),
        }
    }

    async fn call(&self, call: SrCall<'_>) -> Answer {
        let error = match perform_sr_call(&self.settings, call).await {
            Ok(found) => return Answer::Found(found),
            Err(error) => error,
        };
        // The library calls everything but 502 and 503 permanent; the registry's own code says more.
        let source = std::error::Error::source(&error);
        match source.and_then(|source| source.downcast_ref::<RawError>()) {
            Some(RawError { error_code: 404 | 40400..=40499, .. }) => Answer::Unknown,
            Some(RawError {
                error_code: 409 | 40900..=40999 | 422 | 42200..=42299,
                message,
                ..
            }) => Answer::Refused(message.clone()),
            Some(_) | None => Answer::Away(error),
        }
    }

    async fn recorded(&self, sought: &Sought<'_>) -> Result<Option<SchemaId>, Failure> {
        let statement = self.schema_name.statement(include_str!("../sql/schema_id_find.sql"));
        let id: Option<i64> = sqlx::query_scalar(statement)
            .bind(&sought.subject)
            .bind(sought.schema.fingerprint().get())
            .fetch_optional(&self.pool)
            .await
            .map_err(Failure::database("look a schema's id up"))?;
        Ok(id.and_then(|id| u32::try_from(id).ok()).map(SchemaId))
    }

    async fn record(&self, sought: &Sought<'_>, SchemaId(id): SchemaId) -> Result<(), Failure> {
        let statement = self.schema_name.statement(include_str!("../sql/schema_id_record.sql"));
        sqlx::query(statement)
            .bind(&sought.subject)
            .bind(sought.schema.fingerprint().get())
            .bind(i64::from(id))
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(Failure::database("keep a schema's id"))
    }

    fn not_registered(&self, sought: &Sought<'_>) -> RegistryFailure {
        let (subject, url) = (sought.subject.clone(), &self.config.url);
        let select = format!(
            "select json_build_object('schema', definition) from {}.schemas where fingerprint = {} limit 1",
            self.schema_name,
            sought.schema.fingerprint().get()
        );
        let command = format!(
            "psql -Atc \"{select}\" | curl --data @- --header 'Content-Type: application/vnd.schemaregistry.v1+json' \
             {url}/subjects/{subject}/versions"
        );
        RegistryFailure::NotRegistered { subject, command }
    }

    fn is_away(&mut self, error: &(dyn std::error::Error + 'static)) {
        if self.away_since.replace(Instant::now()).is_none() {
            tracing::warn!(
                error,
                "the schema registry is away: going on with the ids that are known"
            );
        }
    }

    fn is_back(&mut self) {
        if self.away_since.take().is_some() {
            tracing::info!("the schema registry is back");
        }
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Sought<'_> {
    fn failed(&self, source: RegistryFailure) -> Failure {
        let schema = self.schema.full_name().to_owned();
        Failure::Schema { topic: Arc::clone(self.topic), schema, source }
    }
}

fn away(action: &'static str, error: SRCError) -> Failure {
    Failure::outage(Component::Registry, action, error)
}

/// Whether both are the same JSON, however it is written.
fn same(registered: Option<&str>, definition: &str) -> bool {
    let parsed = |text: &str| serde_json::from_str::<Value>(text).ok();
    let registered = registered.and_then(parsed);
    registered.is_some() && registered == parsed(definition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_compared_as_json_and_not_as_text() {
        assert!(same(Some(r#"{ "name": "a",  "type": "long" }"#), r#"{"type":"long","name":"a"}"#));
        assert!(!same(Some(r#"{"name":"a","type":"string"}"#), r#"{"type":"long","name":"a"}"#));
        assert!(!same(Some("no json"), "no json"));
        assert!(!same(None, "{}"));
    }
}
