//! Errors of migrations.

use sqlx::migrate::MigrateError;

use crate::limits::POSTGRES_MAJOR_MIN;
use crate::sqlstate::code_of;

/// Why the tables could not be created or upgraded. The database is unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrationError {
    /// PostgreSQL reported an error or was not reached.
    #[error("run a migration")]
    Database(#[source] sqlx::Error),
    /// The login lacks privileges.
    #[error(
        "the login may not migrate: the first migration needs CREATE on the database, EXECUTE on \
         pg_control_system() (which everybody has unless it was revoked, and appends need, too), and \
         CREATEROLE or StoreOptions::without_roles; later ones need membership in the role that owns \
         the schema, annals_owner"
    )]
    NotPermitted(#[source] sqlx::Error),
    /// A later version of the crate migrated the database, with a change that this version cannot
    /// work with. Run that version, or a later one.
    #[error(
        "migration {number} in the database belongs to a later version of Annals, and this version \
         cannot work with it: run that version, or a later one"
    )]
    OfALaterVersion {
        /// The migration.
        number: i64,
    },
    /// The tables are missing, or of an earlier version. Run
    /// [`Store::migrate`](crate::Store::migrate) or `annals-relay migrate`, as a login that may.
    #[error(
        "the tables of Annals are missing or of an earlier version, without migration {number}: run \
         Store::migrate or `annals-relay migrate` as a login that may create tables"
    )]
    Missing {
        /// The first missing migration.
        number: i64,
    },
    /// The server is older than [`POSTGRES_MAJOR_MIN`].
    #[error(
        "the server is PostgreSQL {found}, which is too old: use PostgreSQL {POSTGRES_MAJOR_MIN} \
         or later"
    )]
    ServerTooOld {
        /// The major version of the server.
        found: i32,
    },
    /// The database has another encoding than UTF-8.
    #[error(
        "the database has the encoding {found}, and Annals needs UTF8: create the database with \
         `create database ... encoding 'UTF8' template template0`"
    )]
    Encoding {
        /// The encoding.
        found: String,
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

impl From<sqlx::Error> for MigrationError {
    fn from(error: sqlx::Error) -> Self {
        match code_of(&error).as_deref() {
            Some("42501") => Self::NotPermitted(error),
            Some(_) | None => Self::Database(error),
        }
    }
}

impl From<MigrateError> for MigrationError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
                Self::from(source)
            }
            MigrateError::VersionMissing(number) => Self::OfALaterVersion { number },
            MigrateError::VersionMismatch(number) => Self::Changed { number },
            other => Self::Database(sqlx::Error::Migrate(Box::new(other))),
        }
    }
}
