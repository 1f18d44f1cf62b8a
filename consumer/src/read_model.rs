//! Versions of a projection's read model: their tables, and which of them readers see.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Postgres, Transaction};

use crate::projection::{Projection, needs_no_quotes};
use crate::projection_error::ProjectionError;
use crate::read_model_store::{
    ReadModelStore, create_statements, drop_statements, enter, show_statements,
};

/// The pause between two tries to switch.
const SWITCH_PAUSE: Duration = Duration::from_millis(20);
const RESERVED: [&str; 2] = ["public", "information_schema"];

/// A version of a projection's read model.
#[derive(Debug, Clone)]
pub(crate) struct ReadModel {
    /// The name that its versions share, and the schema of the views.
    pub(crate) name: Arc<str>,
    pub(crate) version: i32,
    /// The schema of its tables, and the name of its progress.
    pub(crate) schema: Arc<str>,
    /// The statements that create its tables.
    pub(crate) tables: &'static str,
    store: Arc<ReadModelStore>,
}

/// The state of a version of a read model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadModelVersion {
    /// The version.
    pub version: u32,
    /// Readers see this version.
    pub is_shown: bool,
    /// The records that the version shown has read beyond it, in the partitions that both read;
    /// before its first run, in all of that version's. Transaction markers count.
    pub records_behind: u64,
}

/// What a [switch](Projection::switch) does while its version has applied less than the one that
/// readers see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
        Ok(Self { name, version, schema, tables, store })
    }

    fn number(&self) -> u32 {
        self.version.unsigned_abs()
    }

    /// The schema of another version, which is also the name of its progress.
    fn schema_of(&self, version: i32) -> String {
        format!("{}_v{version}", self.name)
    }

    /// Registers the version and creates its tables, unless it is registered. The first version of
    /// a read model is shown at once.
    pub(crate) async fn register(&self, pool: &PgPool) -> Result<(), ProjectionError> {
        let failed = database("create the tables of the read model");
        // It does not return to the pool: a dropped future leaves its transaction open.
        let mut connection = pool.acquire().await.map_err(failed)?.detach();
        let mut transaction = connection.begin().await.map_err(failed)?;
        if self.store.register(&mut transaction, self).await.map_err(failed)? {
            self.create(&mut transaction).await.map_err(failed)?;
            return transaction.commit().await.map_err(failed);
        }
        let tables = self.store.tables(&mut transaction, self).await.map_err(failed)?;
        if tables.as_deref() == Some(self.tables) {
            return Ok(());
        }
        Err(ProjectionError::OtherTables { name: self.name.to_string(), version: self.number() })
    }

    async fn create(&self, transaction: &mut Transaction<'_, Postgres>) -> Result<(), sqlx::Error> {
        let create = create_statements(transaction, &self.schema).await?;
        execute_all(transaction, create).await?;
        enter(transaction, &self.schema).await?;
        sqlx::raw_sql(self.tables).execute(&mut **transaction).await?;
        match self.store.shown(transaction, &self.name).await? {
            None => self.show(transaction, None).await,
            Some(shown) => self.store.copy_gaps(transaction, self, &self.schema_of(shown)).await,
        }
    }

    /// Lets readers see this version instead of the one shown.
    async fn show(
        &self,
        transaction: &mut Transaction<'_, Postgres>,
        shown: Option<i32>,
    ) -> Result<(), sqlx::Error> {
        let create = create_statements(transaction, &self.name).await?;
        execute_all(transaction, create).await?;
        let shown = shown.map(|version| self.schema_of(version));
        let show = show_statements(transaction, &self.name, shown.as_deref(), &self.schema).await?;
        execute_all(transaction, show).await?;
        self.store.show(transaction, self).await
    }

    /// Returns by how much this version is behind the one that readers see; zero: they see this one
    /// now.
    async fn try_switch(
        &self,
        connection: &mut PgConnection,
        if_behind: IfBehind,
    ) -> Result<u64, sqlx::Error> {
        let mut transaction = connection.begin().await?;
        let shown = self.store.shown(&mut transaction, &self.name).await?;
        if shown == Some(self.version) {
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
        match self.store.records_behind(transaction, self, &shown).await? {
            Some(records) => Ok(records),
            // It reads other topics: what both have are the versions of streams.
            None => self.store.streams_behind(transaction, self, &shown).await,
        }
    }
}

/// The texts are results of this crate's statements, in which `format` quotes each name.
async fn execute_all(
    transaction: &mut PgConnection,
    statements: Vec<String>,
) -> Result<(), sqlx::Error> {
    for statement in statements {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *transaction).await?;
    }
    Ok(())
}

fn database(action: &'static str) -> impl Fn(sqlx::Error) -> ProjectionError + Copy {
    move |source| ProjectionError::Database { action, source }
}

/// A batch and the switch waited for each other.
fn is_deadlock(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code == "40P01")
}

impl Projection {
    /// Lets readers see this [version](Self::version) instead of the present one, in one
    /// transaction: the views in the schema with the projection's name show its tables from then
    /// on. The other version stays, and a switch to it shows it again.
    ///
    /// Run the version before and meanwhile. It is behind until it has read as far as the version
    /// that readers see; if it does not read all topics of that version, until it has applied as
    /// many versions of each stream. Batches of both versions wait for the moment of the switch.
    /// The login needs the right to create views in that schema; new views have the schema's
    /// default privileges.
    ///
    /// # Errors
    /// [`ProjectionError::Behind`] at the end of the wait; [`ProjectionError::NotRegistered`]
    /// without [`version`](Self::version) or [`prepare`](Self::prepare);
    /// [`ProjectionError::Database`].
    pub async fn switch(&self, pool: &PgPool, if_behind: IfBehind) -> Result<(), ProjectionError> {
        let failed = database("switch the read model");
        let model = self.read_model()?;
        let started_at = Instant::now();
        loop {
            let mut connection = pool.acquire().await.map_err(failed)?.detach();
            let tables = model.store.tables(&mut connection, model).await.map_err(failed)?;
            if tables.is_none() {
                return Err(self.not_registered());
            }
            let behind = match model.try_switch(&mut connection, if_behind).await {
                Ok(0) => return Ok(()),
                Ok(behind) => behind,
                Err(error) if is_deadlock(&error) => continue,
                Err(error) => return Err(failed(error)),
            };
            if let IfBehind::WaitFor(time) = if_behind
                && started_at.elapsed() >= time
            {
                let (name, version) = (model.name.to_string(), model.number());
                return Err(ProjectionError::Behind { name, version, behind });
            }
            tokio::time::sleep(SWITCH_PAUSE).await;
        }
    }

    /// The [versions](Self::version) of this projection's read model, the lowest first.
    ///
    /// # Errors
    /// [`ProjectionError::NotRegistered`] without [`version`](Self::version);
    /// [`ProjectionError::Database`].
    pub async fn versions(&self, pool: &PgPool) -> Result<Vec<ReadModelVersion>, ProjectionError> {
        let failed = database("load the versions of the read model");
        let model = self.read_model()?;
        let mut connection = pool.acquire().await.map_err(failed)?;
        model.store.versions(&mut connection, &model.name).await.map_err(failed)
    }

    /// Deletes this [version](Self::version) with its tables and its progress. End its runners
    /// first.
    ///
    /// # Errors
    /// [`ProjectionError::NotRegistered`]; [`ProjectionError::Database`], also if readers see the
    /// version.
    pub async fn drop_version(&self, pool: &PgPool) -> Result<(), ProjectionError> {
        let failed = database("delete a version of the read model");
        let model = self.read_model()?;
        let mut connection = pool.acquire().await.map_err(failed)?.detach();
        let mut transaction = connection.begin().await.map_err(failed)?;
        if !model.store.remove(&mut transaction, model).await.map_err(failed)? {
            return Err(self.not_registered());
        }
        let statements = drop_statements(&mut transaction, &model.schema).await.map_err(failed)?;
        execute_all(&mut transaction, statements).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)
    }

    fn read_model(&self) -> Result<&ReadModel, ProjectionError> {
        self.read_model.as_ref().ok_or_else(|| self.not_registered())
    }

    fn not_registered(&self) -> ProjectionError {
        ProjectionError::NotRegistered { name: self.name.to_string() }
    }
}
