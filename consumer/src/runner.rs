//! Runs a projection in PostgreSQL or in another database, until shutdown.

use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::ops::ControlFlow;

use annals_schemas::EventSet;
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::batch::DeliveredEvent;
use crate::database_target::DatabaseTarget;
use crate::drive::{Run, drive};
use crate::error::RunError;
use crate::postgres_target::PostgresTarget;
use crate::projection::Projection;
use crate::projection_database::ProjectionDatabase;
use crate::registry::SchemaRegistry;
use crate::run_progress::{RunProgress, RunTotals};
use crate::settings::ConsumerSettings;

/// Runs a projection. Made by [`Projection::runner`].
pub struct Runner {
    projection: Projection,
    pool: PgPool,
    settings: ConsumerSettings,
    schemas: SchemaRegistry,
}

/// Runs a projection in a database that the application implements. Made by
/// [`Projection::runner_on`].
pub struct DatabaseRunner<E, D> {
    projection: Projection,
    database: D,
    settings: ConsumerSettings,
    schemas: SchemaRegistry,
    events: PhantomData<fn() -> E>,
}

impl Projection {
    /// Makes a runner of this projection. It detaches one connection from the pool.
    #[must_use]
    pub fn runner(
        &self,
        pool: &PgPool,
        settings: ConsumerSettings,
        schemas: SchemaRegistry,
    ) -> Runner {
        Runner { projection: self.clone(), pool: pool.clone(), settings, schemas }
    }

    /// Makes a runner of this projection in another database than PostgreSQL. Of the projection,
    /// what concerns PostgreSQL has no effect: [`prepare`](Self::prepare) and the schema of the
    /// progress.
    #[must_use]
    pub fn runner_on<E: EventSet, D: ProjectionDatabase<E>>(
        &self,
        database: D,
        settings: ConsumerSettings,
        schemas: SchemaRegistry,
    ) -> DatabaseRunner<E, D> {
        let (projection, events) = (self.clone(), PhantomData);
        DatabaseRunner { projection, database, settings, schemas, events }
    }
}

impl Runner {
    /// Applies events until `shutdown` is cancelled, and ends after the current batch.
    ///
    /// `handler` gets events, in the order of their streams, and the connection to write with.
    /// Its writes are committed once for each event. It must write through this connection only,
    /// and neither commit nor roll back. Other side effects may be repeated: the handler is called
    /// again with the same events if the transaction did not commit, and with each event alone
    /// after it returned an error for a batch, so that the error can name the event.
    ///
    /// While Kafka, PostgreSQL or the registry is unavailable it waits, and logs the cause.
    ///
    /// # Errors
    /// [`RunError`]. Deadlocks and broken connections within the handler are retried if the
    /// [`sqlx::Error`] is the handler's error or one of its causes.
    pub async fn run<E, Failure>(
        self,
        shutdown: &CancellationToken,
        handler: impl AsyncFnMut(&mut PgConnection, &[DeliveredEvent<E>]) -> Result<(), Failure>,
    ) -> Result<RunTotals, RunError>
    where
        E: EventSet,
        Failure: Into<Box<dyn Error + Send + Sync>>,
    {
        self.run_until(shutdown, |_progress| ControlFlow::Continue(()), handler).await
    }

    /// Like [`run`](Self::run), and calls `hook` with the progress after each batch, and at the end
    /// of the topics. The run ends when the hook breaks.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_until<E, Failure>(
        self,
        shutdown: &CancellationToken,
        hook: impl FnMut(&RunProgress<'_>) -> ControlFlow<()>,
        handler: impl AsyncFnMut(&mut PgConnection, &[DeliveredEvent<E>]) -> Result<(), Failure>,
    ) -> Result<RunTotals, RunError>
    where
        E: EventSet,
        Failure: Into<Box<dyn Error + Send + Sync>>,
    {
        let target =
            PostgresTarget::<E, _, Failure>::new(&self.projection, &self.pool, shutdown, handler);
        let Self { projection, settings, schemas, .. } = &self;
        drive(&Run { projection, settings, schemas, shutdown }, target, hook).await
    }
}

impl<E: EventSet, D: ProjectionDatabase<E>> DatabaseRunner<E, D> {
    /// Applies events until `shutdown` is cancelled, and ends after the current batch.
    ///
    /// # Errors
    /// [`RunError`].
    pub async fn run(self, shutdown: &CancellationToken) -> Result<RunTotals, RunError> {
        self.run_until(shutdown, |_progress| ControlFlow::Continue(())).await
    }

    /// Like [`run`](Self::run), and calls `hook` with the progress after each batch, and at the end
    /// of the topics. The run ends when the hook breaks.
    ///
    /// # Errors
    /// [`RunError`].
    pub async fn run_until(
        self,
        shutdown: &CancellationToken,
        hook: impl FnMut(&RunProgress<'_>) -> ControlFlow<()>,
    ) -> Result<RunTotals, RunError> {
        let Self { projection, database, settings, schemas, .. } = self;
        let target = DatabaseTarget::new(&projection, database, shutdown);
        let run = Run { projection: &projection, settings: &settings, schemas: &schemas, shutdown };
        drive(&run, target, hook).await
    }
}

impl<E, D> fmt::Debug for DatabaseRunner<E, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseRunner")
            .field("projection", &self.projection.name)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("projection", &self.projection.name)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
