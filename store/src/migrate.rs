//! Creates or upgrades the store's tables and functions, in its own schema and nowhere else.

use std::borrow::Cow;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Connection, PgConnection, PgPool, SqlStr};

use crate::error::code_of;
use crate::sql::SchemaName;

/// In the order of their numbers. Released migrations are never edited: a change is a new file.
const MIGRATIONS: [(i64, &str, &str); 4] = [
    (1, "streams and events", include_str!("../migrations/0001_streams_and_events.sql")),
    (2, "append", include_str!("../migrations/0002_append.sql")),
    (3, "relay", include_str!("../migrations/0003_relay.sql")),
    (4, "roles", include_str!("../migrations/0004_roles.sql")),
];

/// Why the tables could not be created or upgraded. The database is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrationError {
    /// PostgreSQL refused, or was not reached.
    #[error("run a migration")]
    Database(#[source] sqlx::Error),
    /// The login has too few rights.
    #[error(
        "the login may not migrate: it needs CREATE on the database and CREATEROLE the first time, and later to be a member of \
         the role that owns the schema, annals_owner"
    )]
    NotPermitted(#[source] sqlx::Error),
    /// A migration that this version of the crate does not know: a later version was here. Run that one, or a later one.
    #[error(
        "migration {number} in the database is of a later version of Annals: run that version, or a later one"
    )]
    OfALaterVersion {
        /// The migration.
        number: i64,
    },
    /// A migration was applied with another text: this is the database of another make of Annals.
    #[error(
        "migration {number} was applied with another text: the database is of another make of Annals"
    )]
    Changed {
        /// The migration.
        number: i64,
    },
}

impl From<MigrateError> for MigrationError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
                match code_of(&source).as_deref() {
                    Some("42501") => Self::NotPermitted(source),
                    Some(_) | None => Self::Database(source),
                }
            }
            MigrateError::VersionMissing(number) => Self::OfALaterVersion { number },
            MigrateError::VersionMismatch(number) => Self::Changed { number },
            other => Self::Database(sqlx::Error::Migrate(Box::new(other))),
        }
    }
}

/// Applies what is missing, in one transaction, under a lock that makes others wait and that ends with the transaction,
/// whatever becomes of it.
pub(crate) async fn migrate(
    pool: &PgPool,
    schema: &SchemaName,
    lock: &SqlStr,
) -> Result<(), MigrationError> {
    // It does not come back to the pool: dropped while it begins, it would come back inside the transaction.
    let connection = pool.acquire().await.map_err(MigrationError::Database)?;
    let mut own = connection.detach();
    let mut transaction = own.begin().await.map_err(MigrationError::Database)?;
    match apply(&mut transaction, schema, lock).await {
        Ok(()) => transaction.commit().await.map_err(MigrationError::Database),
        Err(error) => {
            // At once, and not when the connection is next used: others wait. If it fails, the connection is gone, too.
            drop(transaction.rollback().await);
            Err(error)
        }
    }
}

async fn apply(
    connection: &mut PgConnection,
    schema: &SchemaName,
    lock: &SqlStr,
) -> Result<(), MigrationError> {
    let locked = sqlx::raw_sql(lock.clone()).execute(&mut *connection).await;
    locked.map_err(MigrationError::Database)?;
    Ok(migrator(schema).run_direct(None, connection, false).await?)
}

fn migrator(schema: &SchemaName) -> Migrator {
    let migrations = MIGRATIONS.map(|(version, description, text)| {
        let text = schema.statement(text);
        Migration::new(version, Cow::Borrowed(description), MigrationType::Simple, text, false)
    });
    let mut migrator = Migrator::with_migrations(migrations.into());
    migrator.set_locking(false);
    migrator.create_schema(schema.as_str().to_owned());
    migrator.dangerous_set_table_name(format!("{schema}.migrations"));
    migrator
}
