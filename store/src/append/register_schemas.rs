//! Registration of schemas, before the first event that is encoded with them.

use std::sync::PoisonError;

use annals_schemas::{Broken, Compatibility, Fingerprint, Schema};
use sqlx::pool::PoolConnection;
use sqlx::{Connection, PgConnection, Postgres};

use crate::append::request::Append;
use crate::error::{AppendError, Refusal};
use crate::event::NewEvent;
use crate::schemas::definition;
use crate::sqlstate::is_read_only;
use crate::store::Store;

const BEGIN_READ_COMMITTED: &str = "begin isolation level read committed";

impl Store {
    /// Registers the schemas of an append that are not known to be registered; usually none.
    ///
    /// The registration commits before the append: a schema without events is harmless.
    pub(crate) async fn register_schemas(&self, append: &Append) -> Result<(), AppendError> {
        if self.unregistered(append).is_empty() {
            return Ok(());
        }
        let registered = async {
            let pooled = self.pool().acquire().await?;
            Ok(self.register_on_pooled(pooled, append).await)
        };
        self.within_deadline(registered).await.map_err(AppendError::Failed)?
    }

    /// The same for an append inside a caller's transaction, on another connection: in the
    /// transaction, the lock of the registration would be held until the caller's commit. If the
    /// pool has no idle connection, a new one is opened: the pool can be exhausted by callers that
    /// wait here.
    pub(crate) async fn register_schemas_beside(&self, append: &Append) -> Result<(), AppendError> {
        if self.unregistered(append).is_empty() {
            return Ok(());
        }
        let registered = async {
            Ok(match self.pool().try_acquire() {
                Some(idle) => self.register_on_pooled(idle, append).await,
                None => self.register_on_new(append).await,
            })
        };
        self.within_deadline(registered).await.map_err(AppendError::Failed)?
    }

    /// Registers on a connection of the pool; if its session is older than the end of a read-only
    /// state, on a new one.
    async fn register_on_pooled(
        &self,
        pooled: PoolConnection<Postgres>,
        append: &Append,
    ) -> Result<(), AppendError> {
        let registered = self.register_on(pooled.detach(), append).await;
        match registered.map_err(|error| self.expire_read_only_sessions(error)) {
            Err(AppendError::Failed(error)) if is_read_only(&error) => {
                self.register_on_new(append).await
            }
            registered => registered,
        }
    }

    async fn register_on_new(&self, append: &Append) -> Result<(), AppendError> {
        let new = PgConnection::connect_with(&self.pool().connect_options())
            .await
            .map_err(AppendError::Failed)?;
        self.register_on(new, append).await.map_err(|error| self.expire_read_only_sessions(error))
    }

    /// The connection does not return to the pool: if the future of `begin` is dropped at the wrong
    /// moment, sqlx 0.9.0 returns the connection inside the transaction, and the next user's
    /// statements are lost.
    async fn register_on(&self, mut own: PgConnection, append: &Append) -> Result<(), AppendError> {
        for (category, event) in self.unregistered(append) {
            // Above READ COMMITTED the transaction would not see what another one has registered
            // while this one waited for the lock.
            let begun = own.begin_with(BEGIN_READ_COMMITTED).await;
            let mut transaction = begun.map_err(AppendError::Failed)?;
            self.register(&mut transaction, category, event).await?;
            transaction.commit().await.map_err(AppendError::Failed)?;
            self.add_known(event.schema);
            self.add_registered(category, event.schema);
        }
        // The transactions are committed, also if the connection breaks.
        drop(own.close().await);
        Ok(())
    }

    async fn register(
        &self,
        transaction: &mut PgConnection,
        category: &str,
        event: &NewEvent,
    ) -> Result<(), AppendError> {
        let schema = event.schema;
        let lock = sqlx::query(self.statements().schema_lock.clone());
        let lock = lock.bind(category).execute(&mut *transaction);
        lock.await.map_err(AppendError::Failed)?;
        let versions = self.versions(transaction, category, schema.full_name()).await;
        let compatibility = self.options().compatibility;
        check_new(compatibility, event, &versions.map_err(AppendError::Failed)?)?;
        sqlx::query(self.statements().schema_insert.clone())
            .bind(category)
            .bind(schema.fingerprint().get())
            .bind(schema.full_name())
            .bind(schema.definition())
            .execute(transaction)
            .await
            .map(drop)
            .map_err(AppendError::Failed)
    }

    /// All versions of a record that are registered for a category.
    async fn versions(
        &self,
        connection: &mut PgConnection,
        category: &str,
        full_name: &str,
    ) -> Result<Vec<(Fingerprint, String)>, sqlx::Error> {
        let versions = sqlx::query(self.statements().schema_versions.clone());
        let versions = versions.bind(category).bind(full_name).fetch_all(connection).await?;
        versions.iter().map(definition).collect()
    }

    /// An event of an append for each schema that is not known to be registered.
    fn unregistered<'a>(&self, append: &'a Append) -> Vec<(&'a str, &'a NewEvent)> {
        let known = self.registered_schemas().read().unwrap_or_else(PoisonError::into_inner);
        let is_known = |category: &str, event: &NewEvent| {
            known.get(&event.schema.fingerprint()).is_some_and(|known| known.contains(category))
        };
        let mut new: Vec<_> =
            append.by_category().filter(|(category, event)| !is_known(category, event)).collect();
        new.sort_by_key(|(category, event)| (*category, event.schema.fingerprint()));
        new.dedup_by_key(|(category, event)| (*category, event.schema.fingerprint()));
        new
    }

    fn add_registered(&self, category: &str, schema: Schema) {
        let mut known = self.registered_schemas().write().unwrap_or_else(PoisonError::into_inner);
        known.entry(schema.fingerprint()).or_default().insert(category.to_owned());
    }
}

/// Checks the schema of an event by itself, in its set and against all registered versions, unless
/// it is one of them.
fn check_new(
    compatibility: Compatibility,
    event: &NewEvent,
    versions: &[(Fingerprint, String)],
) -> Result<(), AppendError> {
    let schema = event.schema;
    if versions.iter().any(|(fingerprint, _)| *fingerprint == schema.fingerprint()) {
        return Ok(());
    }
    let incompatible = versions.iter().flat_map(|(earlier, definition)| {
        let broken = broken_by(compatibility, schema, definition);
        broken.into_iter().map(|(breaks, reason)| {
            let full_name = schema.full_name().to_owned();
            Refusal::IncompatibleSchema { full_name, earlier: *earlier, breaks, reason }
        })
    });
    let refusals: Vec<Refusal> = refused_elsewhere(event).into_iter().chain(incompatible).collect();
    if refusals.is_empty() { Ok(()) } else { Err(AppendError::Refused(refusals)) }
}

/// The refusal of an event whose schema other programs refuse or misread.
pub(crate) fn refused_elsewhere(event: &NewEvent) -> Option<Refusal> {
    let reasons = event.refused_elsewhere();
    let full_name = event.schema.full_name().to_owned();
    (!reasons.is_empty()).then_some(Refusal::RefusedElsewhere { full_name, reasons })
}

/// Who would break if a schema followed an earlier version, and why.
fn broken_by(compatibility: Compatibility, new: Schema, earlier: &str) -> Vec<(Broken, String)> {
    match Schema::parse(earlier) {
        Ok(earlier) => {
            let broken = compatibility.broken_by(&new, &earlier).into_iter();
            broken.map(|(breaks, reason)| (breaks, reason.to_string())).collect()
        }
        Err(error) => {
            let reason = format!("its definition cannot be parsed: {error}");
            vec![(Broken::ReadersOfOldEvents, reason)]
        }
    }
}
