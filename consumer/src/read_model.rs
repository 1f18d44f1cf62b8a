//! A version of a projection's read model: its tables, and the views that readers see.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Postgres, Transaction};

use crate::projection_error::ProjectionError;
use crate::projection_store::needs_no_quotes;
use crate::read_model_store::{
    ReadModelStore, VersionTables, create_statements, enter, show_statements,
};

const RESERVED: [&str; 2] = ["public", "information_schema"];

/// A version of a projection's read model.
#[derive(Debug, Clone)]
pub(crate) struct ReadModel {
    pub(crate) tables: VersionTables,
    pub(crate) store: Arc<ReadModelStore>,
}

/// What a [switch](crate::Projection::switch) does while its version has applied less than the one
/// that readers see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IfBehind {
    /// It waits so long, and switches when the version has applied as much.
    WaitFor(Duration),
    /// It switches: readers see an earlier state, or one without some streams.
    Switch,
}

impl ReadModel {
    /// `progress_schema` is the schema of the offsets and versions.
    pub(crate) fn new(
        projection: &str,
        version: u32,
        tables: &'static str,
        progress_schema: &str,
    ) -> Result<Self, ProjectionError> {
        let illegal = || ProjectionError::Version { name: projection.to_owned(), version };
        let schema = format!("{projection}_v{version}");
        let is_reserved = RESERVED.contains(&projection)
            || projection.starts_with("pg_")
            || [projection, &schema].contains(&progress_schema);
        if is_reserved || version == 0 || !needs_no_quotes(&schema) {
            return Err(illegal());
        }
        let version = i32::try_from(version).map_err(|_too_high| illegal())?;
        let (name, schema) = (Arc::from(projection), Arc::from(schema));
        let store = Arc::new(ReadModelStore::new(progress_schema));
        let tables = VersionTables { name, version, schema, create: tables };
        Ok(Self { tables, store })
    }

    pub(crate) fn number(&self) -> u32 {
        self.tables.version.unsigned_abs()
    }

    /// The schema of another version, which is also the name of its progress.
    fn schema_of(&self, version: i32) -> String {
        format!("{}_v{version}", self.tables.name)
    }

    /// Registers the version and creates its tables, unless it is registered. The first version of
    /// a read model is shown at once.
    pub(crate) async fn register(&self, pool: &PgPool) -> Result<(), ProjectionError> {
        let failed = database("create the tables of the read model");
        // It does not return to the pool: a dropped future leaves its transaction open.
        let mut connection = pool.acquire().await.map_err(failed)?.detach();
        let mut transaction = connection.begin().await.map_err(failed)?;
        if self.store.register(&mut transaction, &self.tables).await.map_err(failed)? {
            self.create(&mut transaction).await.map_err(failed)?;
            return transaction.commit().await.map_err(failed);
        }
        let tables =
            self.store.create_text(&mut transaction, &self.tables).await.map_err(failed)?;
        if tables.as_deref() == Some(self.tables.create) {
            return Ok(());
        }
        Err(ProjectionError::OtherTables {
            name: self.tables.name.to_string(),
            version: self.number(),
        })
    }

    async fn create(&self, transaction: &mut Transaction<'_, Postgres>) -> Result<(), sqlx::Error> {
        let create = create_statements(transaction, &self.tables.schema).await?;
        execute_all(transaction, create).await?;
        enter(transaction, &self.tables.schema).await?;
        sqlx::raw_sql(self.tables.create).execute(&mut **transaction).await?;
        match self.store.shown(transaction, &self.tables.name).await? {
            None => self.show(transaction, None).await,
            Some(shown) => {
                self.store.copy_gaps(transaction, &self.tables, &self.schema_of(shown)).await
            }
        }
    }

    /// Lets readers see this version instead of the one shown.
    async fn show(
        &self,
        transaction: &mut Transaction<'_, Postgres>,
        shown: Option<i32>,
    ) -> Result<(), sqlx::Error> {
        let create = create_statements(transaction, &self.tables.name).await?;
        execute_all(transaction, create).await?;
        let shown = shown.map(|version| self.schema_of(version));
        let show =
            show_statements(transaction, &self.tables.name, shown.as_deref(), &self.tables.schema)
                .await?;
        execute_all(transaction, show).await?;
        self.store.show(transaction, &self.tables).await
    }

    /// Returns by how much this version is behind the one that readers see; zero: they see this one
    /// now.
    pub(crate) async fn try_switch(
        &self,
        connection: &mut PgConnection,
        if_behind: IfBehind,
    ) -> Result<u64, sqlx::Error> {
        let mut transaction = connection.begin().await?;
        let shown = self.store.shown(&mut transaction, &self.tables.name).await?;
        if shown == Some(self.tables.version) {
            return Ok(0);
        }
        let behind = match (shown, if_behind) {
            (Some(shown), IfBehind::WaitFor(_)) => self.behind(&mut transaction, shown).await?,
            (None, _) | (Some(_), IfBehind::Switch) => 0,
        };
        if behind == 0 {
            self.show(&mut transaction, shown).await?;
            transaction.commit().await?;
        }
        Ok(behind)
    }

    async fn behind(&self, transaction: &mut PgConnection, shown: i32) -> Result<u64, sqlx::Error> {
        let shown = self.schema_of(shown);
        match self.store.records_behind(transaction, &self.tables, &shown).await? {
            Some(records) => Ok(records),
            // It reads other topics: what both have are the versions of streams.
            None => self.store.streams_behind(transaction, &self.tables, &shown).await,
        }
    }
}

/// The texts are results of this crate's statements, in which `format` quotes each name.
pub(crate) async fn execute_all(
    transaction: &mut PgConnection,
    statements: Vec<String>,
) -> Result<(), sqlx::Error> {
    for statement in statements {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *transaction).await?;
    }
    Ok(())
}

pub(crate) fn database(action: &'static str) -> impl Fn(sqlx::Error) -> ProjectionError + Copy {
    move |source| ProjectionError::Database { action, source }
}
