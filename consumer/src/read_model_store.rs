//! The statements on versions of read models.

use std::sync::Arc;

use sqlx::PgConnection;

use crate::projection_store::{in_schema, safe};

/// The tables of a version of a read model.
#[derive(Debug, Clone)]
pub(crate) struct VersionTables {
    /// The name that its versions share, and the schema of the views.
    pub(crate) name: Arc<str>,
    pub(crate) version: i32,
    /// The schema of its tables, and the name of its progress.
    pub(crate) schema: Arc<str>,
    /// The statements that create them.
    pub(crate) create: &'static str,
}

/// The state of a version of a read model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadModelVersion {
    /// The version.
    pub version: u32,
    /// Readers see this version.
    pub is_shown: bool,
    /// The records that the version shown has read beyond it, in the partitions that both read;
    /// before its first run, in all of that version's. Transaction markers count.
    pub records_behind: u64,
}

/// The statements, with the schema of the progress in them.
#[derive(Debug)]
pub(crate) struct ReadModelStore {
    register: Arc<str>,
    tables: Arc<str>,
    shown: Arc<str>,
    show: Arc<str>,
    versions: Arc<str>,
    records_behind: Arc<str>,
    streams_behind: Arc<str>,
    copy_gaps: Arc<str>,
    remove: Arc<str>,
}

impl ReadModelStore {
    /// `schema` replaces the name in the statements: it must need no quotes.
    pub(crate) fn new(schema: &str) -> Self {
        Self {
            register: in_schema(include_str!("../sql/register_read_model.sql"), schema),
            tables: in_schema(include_str!("../sql/read_model_tables.sql"), schema),
            shown: in_schema(include_str!("../sql/read_model_shown.sql"), schema),
            show: in_schema(include_str!("../sql/show_read_model.sql"), schema),
            versions: in_schema(include_str!("../sql/read_models.sql"), schema),
            records_behind: in_schema(include_str!("../sql/records_behind.sql"), schema),
            streams_behind: in_schema(include_str!("../sql/streams_behind.sql"), schema),
            copy_gaps: in_schema(include_str!("../sql/copy_gaps.sql"), schema),
            remove: in_schema(include_str!("../sql/drop_read_model.sql"), schema),
        }
    }

    /// Returns false if the version is registered already.
    pub(crate) async fn register(
        &self,
        connection: &mut PgConnection,
        model: &VersionTables,
    ) -> Result<bool, sqlx::Error> {
        let inserted = sqlx::query(safe(&self.register))
            .bind(&*model.name)
            .bind(model.version)
            .bind(model.create)
            .execute(connection)
            .await?;
        Ok(inserted.rows_affected() == 1)
    }

    /// The statements that created the tables of a version; none if it is not registered.
    pub(crate) async fn create_text(
        &self,
        connection: &mut PgConnection,
        model: &VersionTables,
    ) -> Result<Option<String>, sqlx::Error> {
        let tables = sqlx::query_scalar(safe(&self.tables)).bind(&*model.name).bind(model.version);
        tables.fetch_optional(connection).await
    }

    /// The version that readers see, until the end of the transaction.
    pub(crate) async fn shown(
        &self,
        connection: &mut PgConnection,
        name: &str,
    ) -> Result<Option<i32>, sqlx::Error> {
        sqlx::query_scalar(safe(&self.shown)).bind(name).fetch_optional(connection).await
    }

    pub(crate) async fn show(
        &self,
        connection: &mut PgConnection,
        model: &VersionTables,
    ) -> Result<(), sqlx::Error> {
        let show = sqlx::query(safe(&self.show)).bind(&*model.name).bind(model.version);
        show.execute(connection).await?;
        Ok(())
    }

    pub(crate) async fn versions(
        &self,
        connection: &mut PgConnection,
        name: &str,
    ) -> Result<Vec<ReadModelVersion>, sqlx::Error> {
        let rows: Vec<(i32, bool, i64)> =
            sqlx::query_as(safe(&self.versions)).bind(name).fetch_all(connection).await?;
        let versions = rows.into_iter().map(|(version, is_shown, records_behind)| {
            // Neither is negative.
            let (version, records_behind) = (version.unsigned_abs(), records_behind.unsigned_abs());
            ReadModelVersion { version, is_shown, records_behind }
        });
        Ok(versions.collect())
    }

    /// The records by which a version is behind another projection; none if that one reads other
    /// partitions, too. No batch of either commits until the end of the transaction.
    pub(crate) async fn records_behind(
        &self,
        connection: &mut PgConnection,
        model: &VersionTables,
        other: &str,
    ) -> Result<Option<u64>, sqlx::Error> {
        let records: Option<i64> = sqlx::query_scalar(safe(&self.records_behind))
            .bind(&*model.schema)
            .bind(other)
            .fetch_one(connection)
            .await?;
        Ok(records.map(i64::unsigned_abs))
    }

    /// The streams of which a version has applied less than another projection.
    pub(crate) async fn streams_behind(
        &self,
        connection: &mut PgConnection,
        model: &VersionTables,
        other: &str,
    ) -> Result<u64, sqlx::Error> {
        let streams: i64 = sqlx::query_scalar(safe(&self.streams_behind))
            .bind(&*model.schema)
            .bind(other)
            .fetch_one(connection)
            .await?;
        Ok(streams.unsigned_abs())
    }

    pub(crate) async fn copy_gaps(
        &self,
        connection: &mut PgConnection,
        model: &VersionTables,
        other: &str,
    ) -> Result<(), sqlx::Error> {
        let copy = sqlx::query(safe(&self.copy_gaps)).bind(&*model.schema).bind(other);
        copy.execute(connection).await?;
        Ok(())
    }

    /// Returns false if the version is not registered.
    pub(crate) async fn remove(
        &self,
        connection: &mut PgConnection,
        model: &VersionTables,
    ) -> Result<bool, sqlx::Error> {
        let removed: Option<i32> = sqlx::query_scalar(safe(&self.remove))
            .bind(&*model.name)
            .bind(model.version)
            .bind(&*model.schema)
            .fetch_optional(connection)
            .await?;
        Ok(removed.is_some())
    }
}

/// Lets the rest of the transaction name the tables of a database schema without it.
pub(crate) async fn enter(connection: &mut PgConnection, schema: &str) -> Result<(), sqlx::Error> {
    let enter = sqlx::query(include_str!("../sql/enter_read_model.sql")).bind(schema);
    enter.execute(connection).await?;
    Ok(())
}

/// The statements that create a database schema, unless it exists.
pub(crate) async fn create_statements(
    connection: &mut PgConnection,
    schema: &str,
) -> Result<Vec<String>, sqlx::Error> {
    let statements = sqlx::query_scalar(include_str!("../sql/create_statements.sql")).bind(schema);
    statements.fetch_all(connection).await
}

/// The statements that make the views of one schema show the tables of another one.
pub(crate) async fn show_statements(
    connection: &mut PgConnection,
    views: &str,
    shown: Option<&str>,
    tables: &str,
) -> Result<Vec<String>, sqlx::Error> {
    let statements = sqlx::query_scalar(include_str!("../sql/show_statements.sql"));
    statements.bind(views).bind(shown).bind(tables).fetch_all(connection).await
}

/// The statements that delete a database schema, if it exists.
pub(crate) async fn drop_statements(
    connection: &mut PgConnection,
    schema: &str,
) -> Result<Vec<String>, sqlx::Error> {
    let statements = sqlx::query_scalar(include_str!("../sql/drop_statements.sql")).bind(schema);
    statements.fetch_all(connection).await
}
