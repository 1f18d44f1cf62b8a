//! Migrations of the store's tables and functions, in its own database schema.

use std::borrow::Cow;
use std::collections::BTreeMap;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{Connection, PgConnection, Row};

use crate::error::{Error, MigrationError};
use crate::limits::POSTGRES_MAJOR_MIN;
use crate::options::RolesPolicy;
use crate::store::Store;

/// Ordered by number. A released migration is never edited: a change is a new file.
const MIGRATIONS: [(i64, &str, &str); 9] = [
    (1, "streams and events", include_str!("../migrations/0001_streams_and_events.sql")),
    (2, "append", include_str!("../migrations/0002_append.sql")),
    (3, "relay", include_str!("../migrations/0003_relay.sql")),
    (4, "projections", include_str!("../migrations/0004_projections.sql")),
    (5, "personal data", include_str!("../migrations/0005_personal_data.sql")),
    (6, "life of streams", include_str!("../migrations/0006_stream_life.sql")),
    (7, "audit log", include_str!("../migrations/0007_audit_log.sql")),
    (8, "tags", include_str!("../migrations/0008_tags.sql")),
    (9, "roles", include_str!("../migrations/0009_roles.sql")),
];

/// The purpose of a role, in [`Store::grants_for`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// Appends, reads and follows.
    Append,
    /// Reads and follows.
    Read,
    /// A relay.
    Relay,
    /// Administration: adopt, rebase, and changes of recorded events.
    Admin,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Read => "read",
            Self::Relay => "relay",
            Self::Admin => "admin",
        }
    }
}

impl Store {
    /// Creates or upgrades the store's tables and functions. Each process can call it at each
    /// start: one of them applies the missing migrations in one transaction, and the others wait
    /// for it. With nothing to do it only reads, and needs no privilege that an appender does not
    /// have. It works through a pooler, too.
    ///
    /// A database that a later version migrated is accepted if this version can work with it: see
    /// [`check`](Self::check).
    ///
    /// # Errors
    /// [`Error::Migrate`] if a statement fails, a later version migrated the database, or the
    /// server is too old; [`Error::NotDurable`] if the server runs with `fsync = off`.
    pub async fn migrate(&self) -> Result<(), Error> {
        self.check_durable().await?;
        self.migrate_tables().await.map_err(Error::Migrate)
    }

    /// Checks, without a change, that the tables exist and that this version can work with them:
    /// for services whose tables another login migrates.
    ///
    /// A rolling upgrade, and the return to the version before, work as long as the later version
    /// made no change that the earlier one cannot work with; the database knows the oldest version
    /// that can.
    ///
    /// If the login may append, and its sessions are read-only (`default_transaction_read_only`),
    /// it logs a warning: reads work, and appends do again when that is over.
    ///
    /// # Errors
    /// [`Error::Migrate`]: migrations are missing, or of a later version that this one cannot work
    /// with, or the server is too old; [`Error::NotDurable`] if the server runs with `fsync = off`.
    pub async fn check(&self) -> Result<(), Error> {
        let missing = async {
            let acquired = self.pool().acquire().await.map_err(MigrationError::Database);
            self.first_missing(&mut *acquired?).await
        };
        let missing = self.all_within_deadline(missing, MigrationError::Database).await;
        if let Some(number) = missing.map_err(Error::Migrate)? {
            return Err(Error::Migrate(MigrationError::Missing { number }));
        }
        self.warn_of_read_only_sessions().await?;
        self.check_durable().await
    }

    async fn warn_of_read_only_sessions(&self) -> Result<(), Error> {
        let statement = self.statements().is_read_only_appender.clone();
        let found = self.within_deadline(sqlx::query_scalar(statement).fetch_one(self.pool()));
        if found.await.map_err(Error::database("read the session's settings"))? {
            tracing::warn!(
                setting = "default_transaction_read_only",
                "the sessions of the store are read-only: it appends nothing until the setting is \
                 reset for the login, the database or the server"
            );
        }
        Ok(())
    }

    /// The statements that give a role the rights for a purpose, for installations whose roles
    /// another tool manages. The owner of the tables executes them.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn grants_for(&self, purpose: Purpose, role: &str) -> Result<Vec<String>, Error> {
        let grants = sqlx::query_scalar(self.statements().grants_for.clone())
            .bind(purpose.as_str())
            .bind(role)
            .fetch_all(self.pool());
        self.within_deadline(grants).await.map_err(Error::database("list grants"))
    }

    async fn migrate_tables(&self) -> Result<(), MigrationError> {
        let read = async {
            // It does not return to the pool: after a dropped `begin`, it would return inside the
            // transaction.
            let connection = self.pool().acquire().await.map_err(MigrationError::Database)?;
            let mut own = connection.detach();
            if self.first_missing(&mut own).await?.is_some() {
                return Ok(Some(own));
            }
            drop(own.close().await);
            Ok(None)
        };
        let read = self.all_within_deadline(read, MigrationError::Database).await?;
        let Some(mut own) = read else { return Ok(()) };
        let mut transaction = own.begin().await?;
        match self.apply_migrations(&mut transaction).await {
            Ok(()) => Ok(transaction.commit().await?),
            Err(error) => {
                // Other processes wait for the lock. If the rollback fails, the connection is
                // closed, too.
                drop(transaction.rollback().await);
                Err(error)
            }
        }
    }

    /// Applies the missing migrations under a lock that ends with the transaction.
    async fn apply_migrations(&self, connection: &mut PgConnection) -> Result<(), MigrationError> {
        let statements = self.statements();
        sqlx::raw_sql(statements.migrate_lock.clone()).execute(&mut *connection).await?;
        if self.first_missing(connection).await?.is_none() {
            return Ok(());
        }
        let target = sqlx::query(statements.migrate_target.clone()).fetch_one(&mut *connection);
        let target = target.await?;
        let found: String = target.try_get("encoding")?;
        if found != "UTF8" {
            return Err(MigrationError::Encoding { found });
        }
        if self.options().roles == RolesPolicy::Leave {
            let set = sqlx::raw_sql(statements.migrate_without_roles.clone());
            set.execute(&mut *connection).await?;
        }
        let mut migrator = self.migrator();
        // `create schema if not exists` needs the right to create schemas even if it exists.
        if !target.try_get("has_schema")? {
            migrator.create_schema(self.schema().as_str().to_owned());
        }
        Ok(migrator.run_direct(None, connection, false).await?)
    }

    /// The first migration that is missing, if any. All that are present must have the text of this
    /// version, or be of a later version that this one can work with; and the server must be new
    /// enough.
    async fn first_missing(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Option<i64>, MigrationError> {
        let target = sqlx::query(self.statements().migrate_target.clone());
        let target = target.fetch_one(&mut *connection).await?;
        let found: i32 = target.try_get("major")?;
        if found < POSTGRES_MAJOR_MIN {
            return Err(MigrationError::ServerTooOld { found });
        }
        let applied = match target.try_get("has_migrations")? {
            true => {
                let applied = sqlx::query(self.statements().migrations_applied.clone());
                applied.fetch_all(&mut *connection).await?
            }
            false => Vec::new(),
        };
        let applied: Result<BTreeMap<i64, Vec<u8>>, sqlx::Error> = applied
            .iter()
            .map(|row| Ok((row.try_get("version")?, row.try_get("checksum")?)))
            .collect();
        let mut applied = applied?;
        let mut missing = None;
        for migration in self.migrator().iter() {
            match applied.remove(&migration.version) {
                Some(checksum) if checksum == *migration.checksum => {}
                Some(_other) => {
                    return Err(MigrationError::Changed { number: migration.version });
                }
                None => missing = missing.or(Some(migration.version)),
            }
        }
        if let Some(number) = applied.into_keys().next_back() {
            self.check_later(connection, number).await?;
        }
        Ok(missing)
    }

    /// Checks that this version can work with the tables of a later one.
    async fn check_later(
        &self,
        connection: &mut PgConnection,
        number: i64,
    ) -> Result<(), MigrationError> {
        let oldest = sqlx::query_scalar(self.statements().oldest_client.clone());
        let oldest: i64 = oldest.fetch_one(connection).await?;
        let last = MIGRATIONS.map(|(version, _, _)| version).into_iter().max();
        if last < Some(oldest) { Err(MigrationError::OfALaterVersion { number }) } else { Ok(()) }
    }

    fn migrator(&self) -> Migrator {
        let schema = self.schema();
        let migrations = MIGRATIONS.map(|(version, description, text)| {
            let text = schema.statement(text);
            let description = Cow::Borrowed(description);
            Migration::new(version, description, MigrationType::Simple, text, false)
        });
        let mut migrator = Migrator::with_migrations(migrations.into());
        migrator.set_locking(false);
        migrator.set_ignore_missing(true);
        migrator.dangerous_set_table_name(format!("{schema}.migrations"));
        migrator
    }
}
