//! Migrations of the store's tables and functions, in its own database schema.

use std::borrow::Cow;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Connection, PgConnection, PgPool, SqlStr};

use crate::sqlstate::code_of;
use crate::statements::SchemaName;

/// Ordered by number. A released migration is never edited: a change is a new file.
const MIGRATIONS: [(i64, &str, &str); 5] = [
    (1, "streams and events", include_str!("../migrations/0001_streams_and_events.sql")),
    (2, "append", include_str!("../migrations/0002_append.sql")),
    (3, "relay", include_str!("../migrations/0003_relay.sql")),
    (4, "projections", include_str!("../migrations/0004_projections.sql")),
    (5, "roles", include_str!("../migrations/0005_roles.sql")),
];

/// Why the tables could not be created or upgraded. The database is unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrationError {
    /// PostgreSQL reported an error or was not reached.
    #[error("run a migration")]
    Database(#[source] sqlx::Error),
    /// The login lacks privileges.
    #[error(
        "the login may not migrate: the first migration needs CREATE on the database and CREATEROLE, \
         later ones membership in the role that owns the schema, annals_owner"
    )]
    NotPermitted(#[source] sqlx::Error),
    /// A later version of the crate migrated the database. Run that version, or a later one.
    #[error(
        "migration {number} in the database belongs to a later version of Annals: run that version, \
         or a later one"
    )]
    OfALaterVersion {
        /// The migration.
        number: i64,
    },
    /// A migration was applied with another text: the database belongs to another build of Annals.
    #[error(
        "migration {number} was applied with another text: the database belongs to another build of \
         Annals"
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

/// Applies the missing migrations in one transaction, under a lock that ends with the transaction.
pub(crate) async fn migrate(
    pool: &PgPool,
    schema: &SchemaName,
    lock: &SqlStr,
) -> Result<(), MigrationError> {
    // It does not return to the pool: after a dropped `begin`, it would return inside the
    // transaction.
    let connection = pool.acquire().await.map_err(MigrationError::Database)?;
    let mut own = connection.detach();
    let mut transaction = own.begin().await.map_err(MigrationError::Database)?;
    match apply(&mut transaction, schema, lock).await {
        Ok(()) => transaction.commit().await.map_err(MigrationError::Database),
        Err(error) => {
            // Other processes wait for the lock. If the rollback fails, the connection is closed,
            // too.
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
