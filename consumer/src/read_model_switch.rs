//! The versions of a projection's read model: which one readers see, and which there are.

use std::time::{Duration, Instant};

use sqlx::{Connection, PgPool};

use crate::projection::Projection;
use crate::projection_error::ProjectionError;
use crate::read_model::{IfBehind, ReadModel, database, execute_all};
use crate::read_model_store::{ReadModelVersion, drop_statements};

/// The pause between two tries to switch.
const SWITCH_PAUSE: Duration = Duration::from_millis(20);

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
            let tables =
                model.store.create_text(&mut connection, &model.tables).await.map_err(failed)?;
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
                let (name, version) = (model.tables.name.to_string(), model.number());
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
        model.store.versions(&mut connection, &model.tables.name).await.map_err(failed)
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
        if !model.store.remove(&mut transaction, &model.tables).await.map_err(failed)? {
            return Err(self.not_registered());
        }
        let statements =
            drop_statements(&mut transaction, &model.tables.schema).await.map_err(failed)?;
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

/// A batch and the switch waited for each other.
fn is_deadlock(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code == "40P01")
}
