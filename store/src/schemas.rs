//! The schemas that events were written with: registered before their first event, read with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use annals_schemas::{Fingerprint, Schema, can_read};
use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, Row};

use crate::append::Append;
use crate::error::{AppendError, Error, Refusal, is_read_only};
use crate::store::Store;

impl Store {
    /// Registers the schemas of an append that this store has not seen registered yet; normally none.
    ///
    /// In a transaction of its own, before the append: a schema that stays although the append does
    /// not is harmless.
    pub(crate) async fn register_schemas(&self, append: &Append) -> Result<(), AppendError> {
        if self.unregistered(append).is_empty() {
            return Ok(());
        }
        match self.register_from_pool(append).await {
            // The session may have been older than the database's right to write.
            Err(AppendError::Failed(error)) if is_read_only(&error) => {
                self.register_from_pool(append).await
            }
            registered => registered,
        }
    }

    async fn register_from_pool(&self, append: &Append) -> Result<(), AppendError> {
        let connection = self.pool().acquire().await.map_err(AppendError::Failed)?;
        self.register_on(connection.detach(), append).await.map_err(|error| self.noted(error))
    }

    /// The same for an append inside a caller's transaction: on another connection all the same, because
    /// what it locks would otherwise be held until the caller ends, and by everybody who appends such an
    /// event for the first time. One of its own if none of the pool is free: all of them may be with
    /// callers that wait here.
    pub(crate) async fn register_schemas_beside(&self, append: &Append) -> Result<(), AppendError> {
        if self.unregistered(append).is_empty() {
            return Ok(());
        }
        let own = match self.pool().try_acquire() {
            Some(connection) => connection.detach(),
            None => PgConnection::connect_with(&self.pool().connect_options())
                .await
                .map_err(AppendError::Failed)?,
        };
        self.register_on(own, append).await.map_err(|error| self.noted(error))
    }

    /// The connection does not come back to the pool: where the future of `begin` is dropped at the wrong moment, sqlx 0.9.0
    /// would give it back inside the transaction, and what the application did next on it would be lost.
    async fn register_on(&self, mut own: PgConnection, append: &Append) -> Result<(), AppendError> {
        for (category, schema) in self.unregistered(append) {
            let mut transaction = own.begin().await.map_err(AppendError::Failed)?;
            self.register(&mut transaction, category, schema).await?;
            transaction.commit().await.map_err(AppendError::Failed)?;
            self.remember(schema);
            self.remember_registered(category, schema);
        }
        // What is registered is registered, however the connection ends.
        drop(own.close().await);
        Ok(())
    }

    async fn register(
        &self,
        transaction: &mut PgConnection,
        category: &str,
        schema: Schema,
    ) -> Result<(), AppendError> {
        let lock = sqlx::query(self.statements().schema_lock.clone());
        let lock = lock.bind(category).bind(schema.full_name()).execute(&mut *transaction);
        lock.await.map_err(AppendError::Failed)?;
        let versions = self.versions(transaction, category, schema.full_name()).await;
        check_versions(schema, &versions.map_err(AppendError::Failed)?)?;
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

    /// Every version of a record that was registered for a category.
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
        rows.iter().map(definition).collect()
    }

    /// What an append needs registered and this store has not seen registered yet, each once.
    fn unregistered<'a>(&self, append: &'a Append) -> Vec<(&'a str, Schema)> {
        let known = self.schemas_registered().read().unwrap_or_else(PoisonError::into_inner);
        let is_known = |category: &str, schema: &Schema| {
            known.get(&schema.fingerprint()).is_some_and(|known| known.contains(category))
        };
        let mut new: Vec<_> =
            append.schemas().filter(|(category, schema)| !is_known(category, schema)).collect();
        new.sort_by_key(|(category, schema)| (*category, schema.fingerprint()));
        new.dedup_by_key(|(category, schema)| (*category, schema.fingerprint()));
        new
    }

    fn remember_registered(&self, category: &str, schema: Schema) {
        let mut known = self.schemas_registered().write().unwrap_or_else(PoisonError::into_inner);
        known.entry(schema.fingerprint()).or_default().insert(category.to_owned());
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

/// Checks that a schema can read what each version before it wrote; nothing where it is one of them.
fn check_versions(schema: Schema, versions: &[(Fingerprint, String)]) -> Result<(), AppendError> {
    if versions.iter().any(|(fingerprint, _)| *fingerprint == schema.fingerprint()) {
        return Ok(());
    }
    let refusals: Vec<Refusal> = versions
        .iter()
        .filter_map(|(earlier, definition)| {
            let reason = reason_against(schema, definition)?;
            let full_name = schema.full_name().to_owned();
            Some(Refusal::IncompatibleSchema { full_name, earlier: *earlier, reason })
        })
        .collect();
    if refusals.is_empty() { Ok(()) } else { Err(AppendError::Refused(refusals)) }
}

/// Why a schema cannot read what an earlier version wrote; none where it can.
fn reason_against(schema: Schema, earlier: &str) -> Option<String> {
    match Schema::parse(earlier) {
        Ok(earlier) => can_read(&schema, &earlier).err().map(|reason| reason.to_string()),
        Err(error) => Some(format!("its definition cannot be parsed: {error}")),
    }
}

fn definition(row: &PgRow) -> Result<(Fingerprint, String), sqlx::Error> {
    Ok((row.try_get::<i64, _>("fingerprint")?.into(), row.try_get("definition")?))
}

fn unreadable(fingerprint: Fingerprint, reason: &dyn std::fmt::Display) -> Error {
    Error::Unreadable { what: format!("schema {fingerprint}"), reason: reason.to_string() }
}
