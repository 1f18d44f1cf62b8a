//! Which store and which cluster the database is.

use annals_store::{Identity, Store};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::config::{DatabaseOid, StoreFacts};
use crate::report::failure::Failure;

/// Reads which store this is, and the publications in it.
pub(crate) async fn store_facts(store: &Store) -> Result<(StoreFacts, Vec<String>), Failure> {
    let failed = Failure::database("read which store this is");
    let identity = store.identity().await?;
    let statement = store.schema().statement(include_str!("../../sql/store_facts.sql"));
    let row = sqlx::query(statement).fetch_one(store.pool()).await;
    row.and_then(|row| Ok((facts(&identity, &row)?, row.try_get("publications")?))).map_err(failed)
}

fn facts(identity: &Identity, row: &PgRow) -> Result<StoreFacts, sqlx::Error> {
    let oids: Vec<i64> = row.try_get("database_oids")?;
    let names: Vec<String> = row.try_get("database_names")?;
    Ok(StoreFacts {
        id: identity.store_id,
        history: i32::try_from(identity.history).unwrap_or(i32::MAX),
        system_identifier: row.try_get("system_identifier")?,
        database_oid: DatabaseOid(row.try_get("database_oid")?),
        databases: oids.into_iter().map(DatabaseOid).zip(names).collect(),
    })
}
