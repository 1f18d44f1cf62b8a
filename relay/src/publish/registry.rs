//! The schema registry: the ids of schemas.
//!
//! Every message has an id, so it must mean the same schema for ever. The relay records it in the
//! database when the registry first returns it, checks it whenever the registry answers, and uses
//! it without the registry when that is unavailable.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_schemas::{Schema, SchemaId, SharedSchema};
use annals_store::{SchemaName, Store};
use schema_registry_converter::async_impl::schema_registry::{SrSettings, perform_sr_call};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{RawRegisteredSchema, SrCall};
use sqlx::PgPool;

use crate::config::{self, Config, Login};
use crate::publish::registry_answer::{RegistryAnswer, meaning_of, said};
use crate::publish::registry_outage::RegistryOutage;
use crate::publish::registry_tls::http_client;
use crate::report::failure::{Component, Failure};
use crate::report::registry_failure::RegistryFailure;
use crate::telemetry::metrics::metrics;

/// The longest that a recorded id is checked.
const CONFIRM_MAX: Duration = Duration::from_secs(1);

const ASK: &str = "ask the schema registry";

/// A client of the registry, with the recorded ids of schemas.
pub struct RegistryClient {
    settings: SrSettings,
    config: config::Registry,
    pool: PgPool,
    schema_name: SchemaName,
    outage: RegistryOutage,
}

/// Who asks for an id that is not recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asking {
    /// A page, which other events wait for: not while the registry is unavailable.
    Page,
    /// A check whether a registry has the id after an outage, or a command of an operator.
    Check,
}

/// The schema whose id is wanted: that of an event type, or the one that the types of its category
/// share.
struct Sought<'a> {
    subject: String,
    topic: &'a Arc<str>,
    schema: Schema,
    shared: Option<&'a SharedSchema>,
}

impl RegistryClient {
    /// Makes the client, without a request.
    ///
    /// # Errors
    /// [`Failure::Outage`] when TLS cannot be set up.
    pub fn connect(config: &Config, store: &Store) -> Result<Self, Failure> {
        let config = config.registry.clone();
        let client = http_client(&config)?;
        let mut builder = SrSettings::new_builder(config.url.clone());
        builder.set_timeout(config.timeout);
        match &config.login {
            Login::None => {}
            Login::Basic { username, password } => {
                builder.set_basic_authorization(username.expose(), Some(password.expose()));
            }
            Login::Token(token) => {
                builder.set_token_authorization(token.expose());
            }
        }
        Ok(Self {
            settings: builder
                .build_with(client)
                .map_err(|error| unavailable("make a client for the schema registry", error))?,
            config,
            pool: store.pool().clone(),
            schema_name: store.schema().clone(),
            outage: RegistryOutage::default(),
        })
    }

    /// The id of a schema for the readers of a topic: of the shared schema if there is one.
    /// Subjects are named after topic and record, that of a shared schema after the topic.
    ///
    /// # Errors
    /// [`Failure::Outage`] when the registry is unavailable and the id not recorded, or
    /// the database is unavailable; [`Failure::Schema`] when the registry returns no usable id.
    pub async fn id(
        &self,
        topic: &Arc<str>,
        schema: Schema,
        shared: Option<&SharedSchema>,
    ) -> Result<SchemaId, Failure> {
        self.id_for(Asking::Check, topic, schema, shared).await
    }

    /// The same, for a page or for a check.
    pub(crate) async fn id_for(
        &self,
        asking: Asking,
        topic: &Arc<str>,
        schema: Schema,
        shared: Option<&SharedSchema>,
    ) -> Result<SchemaId, Failure> {
        let sought = Sought::new(topic, schema, shared);
        if let Some(id) = self.recorded(&sought).await? {
            return self.confirm(&sought, id).await;
        }
        if let (Asking::Page, Some(reason)) = (asking, self.outage.reason()) {
            return Err(unavailable(ASK, SRCError::non_retryable_without_cause(&reason)));
        }
        let asked = self.ask(&sought).await;
        match &asked {
            Err(failure @ Failure::Outage { of: Component::Registry, source, .. }) => {
                let error = source.downcast_ref::<SRCError>();
                // An error of its own can concern one schema.
                if error.and_then(said).is_none() {
                    self.outage.failed(failure);
                }
            }
            Ok(_) | Err(Failure::Schema { .. }) => self.outage.answered(),
            Err(_) => {}
        }
        asked
    }

    /// Whether the registry did not answer when it was last asked.
    pub(super) fn is_unavailable(&self) -> bool {
        self.outage.reason().is_some()
    }

    /// Whether the registry answers, for any schema.
    ///
    /// # Errors
    /// [`Failure::Outage`] if it does not.
    pub(crate) async fn is_reachable(&self) -> Result<(), Failure> {
        match self.call(SrCall::GetLatest("annals-check")).await {
            RegistryAnswer::Found(_) | RegistryAnswer::Unknown | RegistryAnswer::Refused(_) => {
                Ok(())
            }
            RegistryAnswer::Unavailable(error) => Err(unavailable(ASK, error)),
        }
    }

    /// Looks a schema up for the readers of a topic; registers and records nothing.
    ///
    /// # Errors
    /// [`Failure::Schema`] if the registry does not have it; [`Failure::Outage`].
    pub(crate) async fn look_up(
        &self,
        topic: &Arc<str>,
        schema: Schema,
        shared: Option<&SharedSchema>,
    ) -> Result<(), Failure> {
        let sought = Sought::new(topic, schema, shared);
        match self.call(SrCall::PostForVersion(&sought.subject, &sought.body())).await {
            RegistryAnswer::Found(_) => Ok(()),
            RegistryAnswer::Unknown | RegistryAnswer::Refused(_) => {
                Err(sought.failed(self.not_registered(&sought)))
            }
            RegistryAnswer::Unavailable(error) => Err(unavailable(ASK, error)),
        }
    }

    /// Checks a recorded id if the registry answers.
    async fn confirm(&self, sought: &Sought<'_>, id: SchemaId) -> Result<SchemaId, Failure> {
        if self.outage.is_recent() {
            return Ok(id);
        }
        let checked = tokio::time::timeout(CONFIRM_MAX, self.check(sought, id)).await;
        match checked.unwrap_or_else(|elapsed| Err(late(elapsed))) {
            Err(failure @ Failure::Outage { .. }) => self.outage.failed(&failure),
            Err(failure) => return Err(failure),
            Ok(()) => self.outage.answered(),
        }
        Ok(id)
    }

    /// Asks the registry for an id that is not recorded, and records it.
    async fn ask(&self, sought: &Sought<'_>) -> Result<SchemaId, Failure> {
        let body = sought.body();
        let answer = if self.config.auto_register {
            self.register(&sought.subject, &body).await
        } else {
            self.call(SrCall::PostForVersion(&sought.subject, &body)).await
        };
        let found = match answer {
            RegistryAnswer::Found(found) => found,
            RegistryAnswer::Unknown => return Err(sought.failed(self.not_registered(sought))),
            RegistryAnswer::Refused(reason) => {
                let subject = sought.subject.clone();
                return Err(sought.failed(RegistryFailure::Refused { subject, reason }));
            }
            RegistryAnswer::Unavailable(error) => return Err(unavailable(ASK, error)),
        };
        let Some(id) = found.id.map(SchemaId) else {
            return Err(unavailable(
                ASK,
                SRCError::non_retryable_without_cause("its answer has no id"),
            ));
        };
        self.check(sought, id).await?;
        self.record(sought, id).await?;
        Ok(id)
    }

    /// Registers a schema, unless it is registered. If several relays register the first schema of
    /// a subject at once, a registry may refuse all but one, or answer with an error of no known
    /// meaning (Apicurio: 409 with the error code 0). The schema is then looked up, and after a
    /// refusal registered once more.
    async fn register(&self, subject: &str, body: &str) -> RegistryAnswer {
        let answer = self.call(SrCall::PostNew(subject, body)).await;
        let is_looked_up = match &answer {
            RegistryAnswer::Found(_) | RegistryAnswer::Unknown => false,
            RegistryAnswer::Refused(_) => true,
            RegistryAnswer::Unavailable(error) => said(error).is_some(),
        };
        if !is_looked_up {
            return answer;
        }
        tracing::debug!(subject, "looking up a schema that the registry does not register");
        match (self.call(SrCall::PostForVersion(subject, body)).await, answer) {
            (found @ RegistryAnswer::Found(_), _)
            | (found @ RegistryAnswer::Unavailable(_), RegistryAnswer::Refused(_)) => found,
            (_, RegistryAnswer::Refused(_)) => self.call(SrCall::PostNew(subject, body)).await,
            (_, unavailable) => unavailable,
        }
    }

    /// Checks that the id means the schema.
    async fn check(&self, sought: &Sought<'_>, id: SchemaId) -> Result<(), Failure> {
        let mismatch = |is_known| {
            let subject = sought.subject.clone();
            Err(sought.failed(RegistryFailure::IdMismatch { subject, id, is_known }))
        };
        match self.call(SrCall::GetById(id.0)).await {
            // A proxy's answer in JSON, for instance: it says nothing about the id.
            RegistryAnswer::Found(RawRegisteredSchema { schema: None, .. }) => {
                let no_schema = SRCError::non_retryable_without_cause("its answer has no schema");
                Err(unavailable(ASK, no_schema))
            }
            RegistryAnswer::Found(found) if sought.is(found.schema.as_deref()) => Ok(()),
            RegistryAnswer::Found(_) => mismatch(true),
            RegistryAnswer::Unknown => mismatch(false),
            RegistryAnswer::Refused(reason) => {
                Err(unavailable(ASK, SRCError::non_retryable_without_cause(&reason)))
            }
            RegistryAnswer::Unavailable(error) => Err(unavailable(ASK, error)),
        }
    }

    async fn call(&self, call: SrCall<'_>) -> RegistryAnswer {
        let began = Instant::now();
        let answer = self.perform(call).await;
        metrics().clients.registry_answered(answer.outcome(), began.elapsed());
        answer
    }

    async fn perform(&self, call: SrCall<'_>) -> RegistryAnswer {
        let error = match perform_sr_call(&self.settings, call).await {
            Ok(found) => return RegistryAnswer::Found(found),
            Err(error) => error,
        };
        // The library takes every error but 502 and 503 for permanent; the registry's own code is
        // more precise.
        let meant =
            said(&error).and_then(|said| Some(meaning_of(said.error_code)?(said.message.clone())));
        meant.unwrap_or(RegistryAnswer::Unavailable(error))
    }

    async fn recorded(&self, sought: &Sought<'_>) -> Result<Option<SchemaId>, Failure> {
        let statement = self.schema_name.statement(include_str!("../../sql/schema_id_find.sql"));
        let id: Option<i64> = sqlx::query_scalar(statement)
            .bind(&sought.subject)
            .bind(sought.schema.fingerprint().get())
            .fetch_optional(&self.pool)
            .await
            .map_err(Failure::database("look a schema's id up"))?;
        Ok(id.and_then(|id| u32::try_from(id).ok()).map(SchemaId))
    }

    async fn record(&self, sought: &Sought<'_>, SchemaId(id): SchemaId) -> Result<(), Failure> {
        let statement = self.schema_name.statement(include_str!("../../sql/schema_id_record.sql"));
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
        if sought.shared.is_some() {
            let command = "annals-relay schemas register FOLDER".to_owned();
            return RegistryFailure::NotRegistered { subject, command };
        }
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
}

impl std::fmt::Debug for RegistryClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryClient").field("config", &self.config).finish_non_exhaustive()
    }
}

impl<'a> Sought<'a> {
    fn new(topic: &'a Arc<str>, schema: Schema, shared: Option<&'a SharedSchema>) -> Self {
        let subject = match shared {
            Some(_) => format!("{topic}-value"),
            None => format!("{topic}-{}", schema.full_name()),
        };
        Self { subject, topic, schema, shared }
    }

    /// The body of a request to register it, or to look it up.
    fn body(&self) -> String {
        let definition = match self.shared {
            Some(shared) => shared.definition(),
            None => self.schema.definition(),
        };
        serde_json::json!({ "schema": definition, "schemaType": "AVRO" }).to_string()
    }

    /// Whether the registry's schema is this one.
    fn is(&self, registered: Option<&str>) -> bool {
        match self.shared {
            Some(shared) => registered.is_some_and(|printed| shared.is_equivalent_to(printed)),
            None => is_schema(registered, &self.schema),
        }
    }

    fn failed(&self, source: RegistryFailure) -> Failure {
        let schema = self.schema.full_name().to_owned();
        Failure::Schema { topic: Arc::clone(self.topic), schema, source }
    }
}

fn late(elapsed: tokio::time::error::Elapsed) -> Failure {
    Failure::outage(Component::Registry, ASK, elapsed)
}

fn unavailable(action: &'static str, error: SRCError) -> Failure {
    Failure::outage(Component::Registry, action, error)
}

/// Whether the registered schema is this one. The registry may print it differently: the meaning
/// counts, not the text.
fn is_schema(registered: Option<&str>, schema: &Schema) -> bool {
    let registered = registered.and_then(|text| Schema::parse(text).ok());
    registered.is_some_and(|registered| registered.is_equivalent_to(schema))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_compared_by_their_meaning_and_not_as_text() {
        let schema = |text: &str| Schema::parse(text).unwrap();
        let wanted =
            schema(r#"{"type":"record","name":"a.R","fields":[{"name":"x","type":"long"}]}"#);
        let printed = r#"{ "type": "record", "name": "R", "namespace": "a", "fields":
            [{ "name": "x", "type": {"type": "long"} }] }"#;
        assert!(is_schema(Some(printed), &wanted));
        assert!(!is_schema(Some(&printed.replace("long", "int")), &wanted));
        assert!(!is_schema(Some("no schema"), &wanted));
        assert!(!is_schema(None, &wanted));
    }
}
