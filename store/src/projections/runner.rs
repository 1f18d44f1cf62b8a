//! The runner of a projection: it has the lease or waits for it, and applies batches.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use super::apply::{ApplyError, apply, causes, has_cause};
use super::lease::{self, LeaseLost, ProjectionLease, Renewed};
use super::reader::{CheckpointedBatch, ReadAhead};
use super::versions::ProjectionVersion;
use super::{Projection, ProjectionError};
use crate::backoff::pause_up_to;
use crate::error::Error;
use crate::event::RecordedEvent;
use crate::follow::Follower;
use crate::sqlstate::exceeded_time;
use crate::store::Store;
use crate::stream::Position;
use crate::telemetry;

/// Events in one transaction, unless [`ProjectionRunner::batch_events_max`] sets another number.
const BATCH_EVENTS_MAX: usize = 2_000;
/// Duration of a lease, unless [`ProjectionRunner::lease`] sets another one.
const LEASE: Duration = Duration::from_secs(10);
/// The longest pause after the database did not answer.
const OUTAGE_PAUSE_MAX: Duration = Duration::from_secs(5);
/// The longest pause until a stopped projection finds that its event is skipped.
const STOPPED_PAUSE: Duration = Duration::from_millis(200);

/// Runs a projection. Made by [`Store::project`].
#[derive(Debug)]
pub struct ProjectionRunner<P> {
    store: Store,
    projection: P,
    lease: Duration,
    batch_events_max: usize,
    /// The epoch of the last acquired lease; 0 before.
    epoch: AtomicI64,
    owner: String,
}

impl Store {
    /// A runner of a projection. Each process of a service can run one: they share a lease, and
    /// when one ends, another continues.
    #[must_use]
    pub fn project<P: Projection>(&self, projection: P) -> ProjectionRunner<P> {
        ProjectionRunner {
            store: self.clone(),
            projection,
            lease: LEASE,
            batch_events_max: BATCH_EVENTS_MAX,
            epoch: AtomicI64::new(0),
            owner: format!("process {}, run {}", std::process::id(), Uuid::now_v7()),
        }
    }
}

/// Why a runner does not apply the next batch.
enum Interruption {
    LeaseLost,
    /// The projection stops at this event.
    Stopped {
        position: Position,
        error: String,
    },
    /// The database did not answer, or a transaction was aborted.
    Interrupted(String),
    Failed(ProjectionError),
}

impl<P: Projection> ProjectionRunner<P> {
    /// Duration of the lease; 10 s by default. Another runner takes over so long after this one was
    /// lost. [`apply`](Projection::apply) is interrupted if it sends no statement for so long.
    #[must_use]
    pub const fn lease(mut self, duration: Duration) -> Self {
        self.lease = duration;
        self
    }

    /// Maximum number of events in one transaction, rounded up to pages of 500; 2,000 by default. A
    /// batch has the events that are read already: it does not wait for more.
    #[must_use]
    pub const fn batch_events_max(mut self, events: NonZeroUsize) -> Self {
        self.batch_events_max = events.get();
        self
    }

    /// Registers the version of the projection, creates its tables if it is new, and applies events
    /// until `shutdown` completes. Uses two connections outside the pool, and some of the pool.
    ///
    /// While another runner has the lease, it waits. While the database does not answer, it tries
    /// again. An event that the projection refuses stops the projection: it is tried again after
    /// growing pauses, up to a minute, until it is applied, or skipped by
    /// [`skip_projection_event`](Store::skip_projection_event).
    ///
    /// After the future is dropped, the lease expires by itself.
    ///
    /// # Errors
    /// [`ProjectionError::Illegal`]; [`ProjectionError::OtherEvents`]; [`ProjectionError::Store`]
    /// with [`Error::OtherStore`] or [`Error::OtherHistory`], after which only a new version helps,
    /// or with [`Error::Database`] if the tables cannot be created.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ProjectionError> {
        let version = ProjectionVersion::of(&self.projection, &self.store)?;
        let ended = tokio::select! {
            biased;
            () = shutdown => Ok(()),
            ended = self.run_until_failure(&version) => ended.map(|never| match never {}),
        };
        let epoch = self.epoch.load(Ordering::Relaxed);
        if let Err(error) = lease::release(&self.store, &version, epoch).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(projection = version.name, error, "the lease was not released");
        }
        ended
    }

    pub(super) const fn store(&self) -> &Store {
        &self.store
    }

    pub(super) const fn projection(&self) -> &P {
        &self.projection
    }

    async fn run_until_failure(
        &self,
        version: &ProjectionVersion,
    ) -> Result<Infallible, ProjectionError> {
        let mut tries = 0;
        loop {
            let before = self.epoch.load(Ordering::Relaxed);
            match self.run_once(version).await {
                Interruption::LeaseLost => {
                    tracing::warn!(projection = version.name, "another runner has the lease");
                }
                Interruption::Stopped { .. } => {}
                Interruption::Failed(error) if !error.is_retryable() => return Err(error),
                Interruption::Failed(error) => self.log_outage(version, &causes(&error)),
                Interruption::Interrupted(error) => self.log_outage(version, &error),
            }
            // A lease was acquired: the database answered.
            tries = if self.epoch.load(Ordering::Relaxed) > before { 1 } else { tries + 1 };
            pause_up_to(OUTAGE_PAUSE_MAX, tries).await;
        }
    }

    fn log_outage(&self, version: &ProjectionVersion, error: &str) {
        tracing::warn!(projection = version.name, error, "the projection was interrupted");
    }

    /// Acquires the lease and applies batches.
    async fn run_once(&self, version: &ProjectionVersion) -> Interruption {
        match self.apply_batches(version).await {
            Ok(never) => match never {},
            Err(interruption) => interruption,
        }
    }

    async fn apply_batches(&self, version: &ProjectionVersion) -> Result<Infallible, Interruption> {
        version.register(&self.store, &self.projection).await?;
        let acquired =
            ProjectionLease::acquire(&self.store, version, &self.owner, self.lease).await;
        let (lease, checkpoint) = acquired?;
        self.epoch.store(lease.epoch(), Ordering::Relaxed);
        self.wait_until_due(&lease).await?;
        let skipped = self.store.within_deadline(version.skipped(&self.store)).await?;
        let mut follow = self.projection.events().skipping(skipped);
        if let Some(checkpoint) = checkpoint {
            follow = follow.after(checkpoint);
        }
        let mut reader = ReadAhead::start(Follower::new(&self.store, follow));
        // Outside the pool: when the future is dropped, the transaction ends with the connection.
        let mut connection = self.store.pool().acquire().await?.detach();
        loop {
            let next = reader.next(self.batch_events_max);
            let batch = keep(&lease, async { next.await.map_err(Interruption::from) }).await;
            let applied = match batch {
                Ok(batch) => {
                    let applying = self.apply_batch(version, &mut connection, &lease, batch);
                    keep(&lease, applying).await
                }
                Err(error) => Err(error),
            };
            if let Err(Interruption::Stopped { position, error }) = &applied {
                self.stop(version, &lease, *position, error).await?;
            }
            applied?;
        }
    }

    /// Waits while the projection is stopped at an event that is to be tried later.
    async fn wait_until_due(&self, lease: &ProjectionLease) -> Result<(), Interruption> {
        while lease.renew().await?? == Renewed::Later {
            tokio::time::sleep(STOPPED_PAUSE.min(lease.renewal_pause())).await;
        }
        Ok(())
    }

    async fn stop(
        &self,
        version: &ProjectionVersion,
        lease: &ProjectionLease,
        position: Position,
        error: &str,
    ) -> Result<(), Interruption> {
        let (projection, position_) = (version.name, position.get());
        tracing::error!(
            projection,
            position = position_,
            error,
            "the projection stops at an event"
        );
        telemetry::projection_stopped(version.name);
        Ok(lease.record_failure(position, error).await?)
    }

    /// Applies a batch; one by one, if the projection refuses it.
    async fn apply_batch(
        &self,
        version: &ProjectionVersion,
        connection: &mut PgConnection,
        lease: &ProjectionLease,
        batch: CheckpointedBatch,
    ) -> Result<(), Interruption> {
        let of = (&self.store, &self.projection, version);
        let CheckpointedBatch { events, checkpoints, reached } = batch;
        match apply(of, connection, lease, &events, &reached).await {
            Ok(()) => {
                telemetry::projected(version.name, events.len());
                return Ok(());
            }
            Err(ApplyError::Refused(_one)) => {}
            Err(ApplyError::Interrupted(error)) if is_limit(&*error) => {
                // The limit may have ended the session.
                *connection = self.store.pool().acquire().await?.detach();
            }
            Err(error) => return Err(interruption(error, Position::ORIGIN)),
        }
        for (event, checkpoint) in events.iter().zip(&checkpoints) {
            let one = std::slice::from_ref(event);
            let applied = apply(of, connection, lease, one, checkpoint).await;
            applied.map_err(|error| interruption(error, event.position))?;
            telemetry::projected(version.name, 1);
        }
        let passed: &[RecordedEvent] = &[];
        let applied = apply(of, connection, lease, passed, &reached).await;
        applied.map_err(|error| interruption(error, Position::ORIGIN))
    }
}

/// Does some work, and renews the lease meanwhile.
async fn keep<T>(
    lease: &ProjectionLease,
    work: impl Future<Output = Result<T, Interruption>>,
) -> Result<T, Interruption> {
    let mut work = pin!(work);
    loop {
        if let Ok(done) = tokio::time::timeout(lease.renewal_pause(), &mut work).await {
            return done;
        }
        lease.renew().await??;
    }
}

/// The interruption by an error of the transaction with the event at this position.
fn interruption(error: ApplyError, position: Position) -> Interruption {
    match error {
        ApplyError::LeaseLost => Interruption::LeaseLost,
        ApplyError::Interrupted(error) if is_limit(&*error) && position > Position::ORIGIN => {
            Interruption::Stopped { position, error: causes(&*error) }
        }
        ApplyError::Refused(error) => Interruption::Stopped { position, error: causes(&*error) },
        ApplyError::Interrupted(error) => Interruption::Interrupted(causes(&*error)),
    }
}

/// Whether a limit of time of the session ended a statement or a transaction.
fn is_limit(error: &(dyn StdError + 'static)) -> bool {
    has_cause(error, exceeded_time)
}

impl From<LeaseLost> for Interruption {
    fn from(LeaseLost: LeaseLost) -> Self {
        Self::LeaseLost
    }
}

impl From<sqlx::Error> for Interruption {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(ProjectionError::database("run a projection")(error))
    }
}

impl From<Error> for Interruption {
    fn from(error: Error) -> Self {
        match error {
            Error::UnreadableEvent { position, .. } => {
                Self::Stopped { position, error: error.to_string() }
            }
            error => Self::Failed(error.into()),
        }
    }
}

impl From<ProjectionError> for Interruption {
    fn from(error: ProjectionError) -> Self {
        Self::Failed(error)
    }
}
