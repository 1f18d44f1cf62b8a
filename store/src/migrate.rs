//! Creates or upgrades the store's tables and functions, in its own schema and nowhere else.

use std::borrow::Cow;

use sqlx::PgPool;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};

use crate::sql::SchemaName;

/// In the order of their numbers. Released migrations are never edited: a change is a new file.
const MIGRATIONS: [(i64, &str, &str); 4] = [
    (1, "streams and events", include_str!("../migrations/0001_streams_and_events.sql")),
    (2, "append", include_str!("../migrations/0002_append.sql")),
    (3, "relay", include_str!("../migrations/0003_relay.sql")),
    (4, "roles", include_str!("../migrations/0004_roles.sql")),
];

/// Applies what is missing, each migration in a transaction, under a lock that makes others wait.
pub(crate) async fn migrate(pool: &PgPool, schema: &SchemaName) -> Result<(), MigrateError> {
    migrator(schema).run(pool).await
}

fn migrator(schema: &SchemaName) -> Migrator {
    let migrations = MIGRATIONS.map(|(version, description, text)| {
        let text = schema.statement(text);
        Migration::new(version, Cow::Borrowed(description), MigrationType::Simple, text, false)
    });
    let mut migrator = Migrator::with_migrations(migrations.into());
    migrator.create_schema(schema.as_str().to_owned());
    migrator.dangerous_set_table_name(format!("{schema}.migrations"));
    migrator
}
