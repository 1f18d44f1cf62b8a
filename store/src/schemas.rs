//! Schemas of recorded events, loaded once and then kept in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use annals_schemas::{Fingerprint, Schema};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::error::Error;
use crate::store::Store;
use crate::stream::Category;

impl Store {
    /// The schemas with these fingerprints, from memory if known.
    ///
    /// # Errors
    /// [`Error::Unreadable`] if one is not registered or its definition cannot be parsed.
    pub async fn schemas(
        &self,
        fingerprints: BTreeSet<Fingerprint>,
    ) -> Result<BTreeMap<Fingerprint, Schema>, Error> {
        let found = self.known(&fingerprints);
        if found.len() == fingerprints.len() {
            return Ok(found);
        }
        let acquired = self.pool().acquire().await;
        let mut connection = acquired.map_err(Error::database("load schemas"))?;
        self.schemas_on(&mut connection, fingerprints).await
    }

    /// The schemas of all events that were ever appended to a category, in the order of their
    /// registration, for
    /// [`verify_released`](crate::verify_released).
    ///
    /// # Errors
    /// [`Error::Unreadable`] if one cannot be parsed; [`Error::Database`].
    pub async fn recorded_schemas(&self, category: &Category) -> Result<Vec<Schema>, Error> {
        let definitions = self.definitions_of(category).await?;
        definitions.into_iter().map(parse).collect()
    }

    /// The same up to one of them, or all if it is none of them. Later ones, which a later version
    /// may have written, are not parsed.
    ///
    /// # Errors
    /// [`Error::Unreadable`] if one of these cannot be parsed; [`Error::Database`].
    pub async fn recorded_schemas_up_to(
        &self,
        category: &Category,
        last: Fingerprint,
    ) -> Result<Vec<Schema>, Error> {
        let mut definitions = self.definitions_of(category).await?;
        let end = definitions.iter().position(|(fingerprint, _)| *fingerprint == last);
        definitions.truncate(end.map_or(usize::MAX, |end| end.saturating_add(1)));
        definitions.into_iter().map(parse).collect()
    }

    async fn definitions_of(
        &self,
        category: &Category,
    ) -> Result<Vec<(Fingerprint, String)>, Error> {
        let rows = sqlx::query(self.statements().schemas_of_category.clone())
            .bind(category.as_str())
            .fetch_all(self.pool());
        let rows = self.within_deadline(rows).await;
        let rows = rows.and_then(|rows| rows.iter().map(definition).collect::<Result<Vec<_>, _>>());
        rows.map_err(Error::database("load schemas"))
    }

    pub(crate) async fn schemas_on(
        &self,
        connection: &mut PgConnection,
        fingerprints: BTreeSet<Fingerprint>,
    ) -> Result<BTreeMap<Fingerprint, Schema>, Error> {
        let mut found = self.known(&fingerprints);
        let missing: Vec<_> =
            fingerprints.into_iter().filter(|key| !found.contains_key(key)).collect();
        if missing.is_empty() {
            return Ok(found);
        }
        let rows = self.load_definitions(connection, &missing).await;
        let rows = rows.map_err(Error::database("load schemas"))?;
        for row in rows {
            let fingerprint = row.0;
            let schema = parse(row)?;
            self.add_known(schema);
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
        let rows = sqlx::query(statement).bind(keys).fetch_all(connection);
        let rows = self.within_deadline(rows).await?;
        rows.iter().map(definition).collect()
    }

    fn known(&self, fingerprints: &BTreeSet<Fingerprint>) -> BTreeMap<Fingerprint, Schema> {
        let known = self.known_schemas().read().unwrap_or_else(PoisonError::into_inner);
        fingerprints.iter().filter_map(|key| known.get(key).map(|schema| (*key, *schema))).collect()
    }

    pub(crate) fn add_known(&self, schema: Schema) {
        let mut known = self.known_schemas().write().unwrap_or_else(PoisonError::into_inner);
        known.insert(schema.fingerprint(), schema);
    }
}

pub(crate) fn definition(row: &PgRow) -> Result<(Fingerprint, String), sqlx::Error> {
    Ok((row.try_get::<i64, _>("fingerprint")?.into(), row.try_get("definition")?))
}

fn parse((fingerprint, text): (Fingerprint, String)) -> Result<Schema, Error> {
    Schema::parse(&text).map_err(|error| unreadable(fingerprint, &error))
}

fn unreadable(fingerprint: Fingerprint, reason: &dyn std::fmt::Display) -> Error {
    Error::Unreadable { what: format!("schema {fingerprint}"), reason: reason.to_string() }
}
