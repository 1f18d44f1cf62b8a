//! The schemas that events were written with: registered before their first event, read with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use annals_schemas::{Fingerprint, Schema, can_read};
use sqlx::{Connection, PgConnection, Row};

use crate::append::Append;
use crate::error::{AppendError, Error, Refusal};
use crate::store::Store;

impl Store {
    /// Registers the schemas of an append that this store has not seen registered yet; normally none.
    ///
    /// In a transaction of its own, before the append: a schema that stays although the append does
    /// not is harmless.
    pub(crate) async fn register_schemas(&self, append: &Append) -> Result<(), AppendError> {
        if self.unregistered(append.schemas()).is_empty() {
            return Ok(());
        }
        let connection = self.pool().acquire().await.map_err(AppendError::Failed)?;
        self.register_on(connection.detach(), append).await
    }

    /// The same for an append inside a caller's transaction: on another connection all the same, because
    /// what it locks would otherwise be held until the caller ends, and by everybody who appends such an
    /// event for the first time. One of its own if none of the pool is free: all of them may be with
    /// callers that wait here.
    pub(crate) async fn register_schemas_beside(&self, append: &Append) -> Result<(), AppendError> {
        if self.unregistered(append.schemas()).is_empty() {
            return Ok(());
        }
        let own = match self.pool().try_acquire() {
            Some(connection) => connection.detach(),
            None => PgConnection::connect_with(&self.pool().connect_options())
                .await
                .map_err(AppendError::Failed)?,
        };
        self.register_on(own, append).await
    }

    /// The connection does not come back to the pool: where the future of `begin` is dropped at the wrong moment, sqlx 0.9.0
    /// would give it back inside the transaction, and what the application did next on it would be lost.
    async fn register_on(&self, mut own: PgConnection, append: &Append) -> Result<(), AppendError> {
        for schema in self.unregistered(append.schemas()) {
            let mut transaction = own.begin().await.map_err(AppendError::Failed)?;
            self.register(&mut transaction, schema).await?;
            transaction.commit().await.map_err(AppendError::Failed)?;
            self.remember(schema);
        }
        // What is registered is registered, however the connection ends.
        drop(own.close().await);
        Ok(())
    }

    async fn register(
        &self,
        transaction: &mut PgConnection,
        schema: Schema,
    ) -> Result<(), AppendError> {
        self.lock_versions(transaction, schema).await.map_err(AppendError::Failed)?;
        if let Some(before) = self.version_before(transaction, schema).await? {
            can_read(&schema, &before).map_err(|incompatible| {
                let full_name = schema.full_name().to_owned();
                let reason = incompatible.to_string();
                AppendError::Refused(vec![Refusal::IncompatibleSchema { full_name, reason }])
            })?;
        }
        sqlx::query(self.statements().schema_insert.clone())
            .bind(schema.fingerprint().get())
            .bind(schema.full_name())
            .bind(schema.definition())
            .execute(transaction)
            .await
            .map(drop)
            .map_err(AppendError::Failed)
    }

    async fn lock_versions(
        &self,
        connection: &mut PgConnection,
        schema: Schema,
    ) -> Result<(), sqlx::Error> {
        let statement = self.statements().schema_lock.clone();
        sqlx::query(statement).bind(schema.full_name()).execute(connection).await.map(drop)
    }

    /// The version that a new one must be able to read; none if it is not new, or the first.
    async fn version_before(
        &self,
        connection: &mut PgConnection,
        schema: Schema,
    ) -> Result<Option<Schema>, AppendError> {
        let known = self.load_definitions(connection, &[schema.fingerprint()]).await;
        if !known.map_err(AppendError::Failed)?.is_empty() {
            return Ok(None);
        }
        let definition: Option<String> =
            sqlx::query_scalar(self.statements().schema_latest.clone())
                .bind(schema.full_name())
                .fetch_optional(connection)
                .await
                .map_err(AppendError::Failed)?;
        let parsed = definition.map(|definition| Schema::parse(&definition)).transpose();
        parsed.map_err(|error| AppendError::Failed(sqlx::Error::Decode(Box::new(error))))
    }

    /// The schemas of these fingerprints, from memory where known.
    ///
    /// # Errors
    /// [`Error::Unreadable`] when one is not registered or its definition cannot be parsed.
    pub async fn schemas(
        &self,
        fingerprints: BTreeSet<Fingerprint>,
    ) -> Result<BTreeMap<Fingerprint, Schema>, Error> {
        let found = self.remembered(&fingerprints);
        if found.len() == fingerprints.len() {
            return Ok(found);
        }
        let acquired = self.pool().acquire().await;
        let mut connection = acquired.map_err(Error::database("load schemas"))?;
        self.schemas_on(&mut connection, fingerprints).await
    }

    pub(crate) async fn schemas_on(
        &self,
        connection: &mut PgConnection,
        fingerprints: BTreeSet<Fingerprint>,
    ) -> Result<BTreeMap<Fingerprint, Schema>, Error> {
        let mut found = self.remembered(&fingerprints);
        let missing: Vec<_> =
            fingerprints.into_iter().filter(|key| !found.contains_key(key)).collect();
        if missing.is_empty() {
            return Ok(found);
        }
        let rows = self.load_definitions(connection, &missing).await;
        let rows = rows.map_err(Error::database("load schemas"))?;
        for (fingerprint, definition) in rows {
            let schema =
                Schema::parse(&definition).map_err(|error| unreadable(fingerprint, &error))?;
            self.remember(schema);
            found.insert(fingerprint, schema);
        }
        match missing.iter().find(|key| !found.contains_key(key)) {
            Some(fingerprint) => Err(unreadable(*fingerprint, &"it is not registered")),
            None => Ok(found),
        }
    }

    async fn load_definitions(
        &self,
        connection: &mut PgConnection,
        fingerprints: &[Fingerprint],
    ) -> Result<Vec<(Fingerprint, String)>, sqlx::Error> {
        let keys: Vec<i64> = fingerprints.iter().map(|fingerprint| fingerprint.get()).collect();
        let statement = self.statements().schemas_by_fingerprint.clone();
        let rows = sqlx::query(statement).bind(keys).fetch_all(connection).await?;
        rows.iter()
            .map(|row| {
                Ok((row.try_get::<i64, _>("fingerprint")?.into(), row.try_get("definition")?))
            })
            .collect()
    }

    fn unregistered(&self, schemas: impl Iterator<Item = Schema>) -> Vec<Schema> {
        let known = self.schemas_known().read().unwrap_or_else(PoisonError::into_inner);
        let mut new: Vec<Schema> =
            schemas.filter(|schema| !known.contains_key(&schema.fingerprint())).collect();
        new.sort_by_key(Schema::fingerprint);
        new.dedup_by_key(|schema| schema.fingerprint());
        new
    }

    fn remembered(&self, fingerprints: &BTreeSet<Fingerprint>) -> BTreeMap<Fingerprint, Schema> {
        let known = self.schemas_known().read().unwrap_or_else(PoisonError::into_inner);
        fingerprints.iter().filter_map(|key| known.get(key).map(|schema| (*key, *schema))).collect()
    }

    fn remember(&self, schema: Schema) {
        let mut known = self.schemas_known().write().unwrap_or_else(PoisonError::into_inner);
        known.insert(schema.fingerprint(), schema);
    }
}

fn unreadable(fingerprint: Fingerprint, reason: &dyn std::fmt::Display) -> Error {
    Error::Unreadable { what: format!("schema {fingerprint}"), reason: reason.to_string() }
}
