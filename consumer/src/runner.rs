//! Runs a projection: one transaction a batch, until it is told to stop.

use std::error::Error;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_schemas::EventSet;
use jiff::Timestamp;
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::apply::{Applied, Applier, Halt};
use crate::batch::Event;
use crate::consumer::ConsumeError;
use crate::filter::{Forked, Gap};
use crate::intake::{Intake, News};
use crate::kafka::KafkaFailure;
use crate::position::{Place, Version};
use crate::projection::Projection;
use crate::registry::{DecodeFailure, Schemas};
use crate::settings::Settings;

/// A projection with all it needs to run. Made by [`Projection::runner`].
pub struct Runner {
    pub(crate) projection: Projection,
    pub(crate) pool: PgPool,
    pub(crate) settings: Settings,
    pub(crate) schemas: Schemas,
}

/// What a run has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Events that the handler has applied.
    pub events: u64,
    /// Records dropped because their event had been applied before.
    pub duplicates: u64,
    /// Events passed over because their type is not declared.
    pub skipped: u64,
    /// Transactions committed.
    pub batches: u64,
}

/// What has just happened: a batch was committed, or the end of the topics was reached.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// Events that the handler applied in this batch.
    pub batch_events: usize,
    /// Records of this batch that were dropped: their event had been applied before.
    pub batch_duplicates: usize,
    /// Events of this batch that were passed over: their type is not declared.
    pub batch_skipped: usize,
    /// For each event of the batch the time from its append to the commit of the batch.
    pub lags: &'a [Duration],
    /// How long the batch took, from the last record's receipt to the commit.
    pub took: Duration,
    /// Everything is applied that was committed to the topics at some moment after the last record
    /// came. True also while there is no topic yet.
    pub caught_up: bool,
    /// Since the run began, this batch included.
    pub totals: Totals,
}

/// Why a run ended before it was told to. What was committed stays; the next run goes on behind it.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A record is not an event, a topic was repartitioned, or Kafka refused.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// An event cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeFailure),
    /// Events are missing before this one.
    #[error(
        "{gap} (record {place}): the topic lost events, or is not the one this projection began with; \
         once it is whole, Projection::replay reads it from the beginning and drops what was applied"
    )]
    Gap {
        /// Where the record lies that came too early.
        place: Place,
        /// The stream, and what is missing.
        #[source]
        gap: Gap,
    },
    /// Another event was applied under the version of this one: the store has lost events that were published. Nothing
    /// of the record was applied. `docs/operations.md`, "A consumer says Forked", says what to do.
    #[error(
        "{fork} (record {place}): the store's history has changed, and what was applied of this stream since then did \
         not happen; publish the topic anew, empty the read model and call Projection::forget in one transaction"
    )]
    Forked {
        /// Where the record lies that has the other event.
        place: Place,
        /// The stream, the version and both events.
        #[source]
        fork: Forked,
    },
    /// The handler refused an event; nothing of what it did for it was kept.
    #[error("apply {event_type} of {stream}, version {version} (record {place}, event {event_id})")]
    Handler {
        /// The event's stream.
        stream: String,
        /// The event's version.
        version: Version,
        /// The event's type.
        event_type: String,
        /// The event's id.
        event_id: Uuid,
        /// Where its record lies.
        place: Place,
        /// What the handler returned.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Another runner of the same projection has gone on meanwhile. This one wrote nothing more.
    #[error(
        "projection {projection} is run elsewhere too: {topic}[{partition}] stands at offset {found}, \
         and this runner left it at {expected}; run it once"
    )]
    Superseded {
        /// The projection.
        projection: Arc<str>,
        /// The topic that went on.
        topic: Arc<str>,
        /// The partition that went on.
        partition: i32,
        /// Where this runner left it.
        expected: i64,
        /// Where it stands.
        found: i64,
    },
    /// PostgreSQL refused something that waiting does not mend.
    #[error("{action}")]
    Database {
        /// What was tried.
        action: &'static str,
        /// Why it was refused.
        source: sqlx::Error,
    },
}

impl Runner {
    /// Applies events until `shutdown` is cancelled, and then ends after the batch it is at.
    ///
    /// `handler` gets each event once, as far as the database is concerned: events, in the order of their
    /// streams, and the connection on which to write. It must write through this connection only, and neither
    /// commit nor roll back. What it does elsewhere may happen again: it is called again
    /// with the same events if the transaction did not commit, and event by event after it refused a
    /// batch, so that the error can name the event.
    ///
    /// While Kafka, PostgreSQL or the registry is away it waits, logs what for, and goes on.
    ///
    /// # Errors
    /// [`RunError`]. Deadlocks and broken connections inside the handler are tried again if the handler's
    /// error is, or was caused by, the [`sqlx::Error`].
    pub async fn run<E, Failure>(
        self,
        shutdown: &CancellationToken,
        handler: impl AsyncFnMut(&mut PgConnection, &[Event<E>]) -> Result<(), Failure>,
    ) -> Result<Totals, RunError>
    where
        E: EventSet,
        Failure: Into<Box<dyn Error + Send + Sync>>,
    {
        self.run_until(shutdown, |_progress| ControlFlow::Continue(()), handler).await
    }

    /// Like [`run`](Self::run), and tells `hook` after each batch, and when the end of the topics is reached,
    /// how it goes on. The run ends when the hook breaks.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_until<E, Failure>(
        self,
        shutdown: &CancellationToken,
        mut hook: impl FnMut(&Progress<'_>) -> ControlFlow<()>,
        mut handler: impl AsyncFnMut(&mut PgConnection, &[Event<E>]) -> Result<(), Failure>,
    ) -> Result<Totals, RunError>
    where
        E: EventSet,
        Failure: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut intake = Intake::open(&self.projection, &self.settings).map_err(kafka)?;
        let mut applier = Applier::new(&self, shutdown);
        let mut totals = Totals::default();
        let ended = loop {
            let news = tokio::select! {
                biased;
                () = shutdown.cancelled() => break Ok(totals),
                news = intake.next() => news,
            };
            let came = Instant::now();
            let applied = match act(news, &mut intake, &mut applier, &mut handler).await {
                Ok(applied) => applied,
                Err(Halt::Shutdown) => break Ok(totals),
                Err(Halt::Error(error)) => break Err(error),
            };
            let Some(applied) = applied else { continue };
            totals.add(&applied);
            let lags = lags(&applied.events);
            let hooked = hook(&applied.progress(&lags, came.elapsed(), totals));
            if let Some(fault) = applied.fault {
                break Err(fault);
            }
            if hooked.is_break() {
                break Ok(totals);
            }
        };
        intake.close().await;
        ended
    }
}

/// Deals with one piece of news; returns what there is to tell the hook.
async fn act<E, Failure>(
    news: Result<News, ConsumeError>,
    intake: &mut Intake,
    applier: &mut Applier,
    handler: &mut impl AsyncFnMut(&mut PgConnection, &[Event<E>]) -> Result<(), Failure>,
) -> Result<Option<Applied<E>>, Halt>
where
    E: EventSet,
    Failure: Into<Box<dyn Error + Send + Sync>>,
{
    match news.map_err(|error| Halt::Error(error.into()))? {
        News::Topics(topics) => {
            let starts = applier.starts(&topics).await?;
            intake.start(&starts).map_err(|error| Halt::Error(kafka(error)))?;
            Ok(None)
        }
        News::Records(records, fault) => {
            let mut applied = applier.apply(records, handler).await?;
            applied.fault = applied.fault.or(fault.map(RunError::from));
            Ok(Some(applied))
        }
        News::CaughtUp => Ok(Some(Applied { caught_up: true, ..Applied::new() })),
    }
}

impl Totals {
    fn add<E>(&mut self, applied: &Applied<E>) {
        // Counts of one batch always fit.
        self.events += applied.events.len() as u64;
        self.duplicates += applied.duplicates as u64;
        self.skipped += applied.skipped as u64;
        self.batches += applied.batches;
    }
}

impl<E> Applied<E> {
    fn progress<'a>(&self, lags: &'a [Duration], took: Duration, totals: Totals) -> Progress<'a> {
        Progress {
            batch_events: self.events.len(),
            batch_duplicates: self.duplicates,
            batch_skipped: self.skipped,
            lags,
            took,
            caught_up: self.caught_up,
            totals,
        }
    }
}

fn lags<E>(events: &[Event<E>]) -> Vec<Duration> {
    let now = Timestamp::now();
    // A database whose clock is ahead of this one gives no negative lags.
    let lag = |event: &Event<E>| {
        Duration::try_from(now.duration_since(event.delivered.recorded_at)).unwrap_or_default()
    };
    events.iter().map(lag).collect()
}

fn kafka(failure: KafkaFailure) -> RunError {
    RunError::Consume(ConsumeError::Kafka(failure))
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("projection", &self.projection.name)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
