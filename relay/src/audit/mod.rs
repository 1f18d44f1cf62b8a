//! The audit: every committed event is published, waiting, quarantined or skipped, and every record
//! is of an event.
//!
//! The order of its readings makes it exact beside relays that run: first the end of the log, then
//! the checkpoints and the quarantine, then the ends of the topics. What a checkpoint covers is in
//! the topics before these ends. Events that no checkpoint covers may be there or not.
//!
//! Memory: one bit for each position that has a record, and a few chunks of records.

mod compare;
mod events;
mod extent;
pub(crate) mod finding;
mod partition;
mod position_set;
mod proof;
mod topics;

use std::sync::Arc;
use std::time::Instant;

use annals_store::{Position, Store};
use serde::Serialize;

use crate::audit::extent::Extent;
use crate::audit::finding::Finding;
use crate::audit::position_set::PositionSet;
use crate::audit::proof::Proof;
use crate::audit::topics::{AuditedTopics, PartitionStates};
use crate::config::Config;
use crate::report::failure::Failure;
use crate::report::progress::Progress;

/// Why an audit ends early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuditError {
    /// A component failed.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// The findings cannot be printed.
    #[error("print a finding")]
    Print(#[from] std::io::Error),
    /// The memory does not suffice.
    #[error(
        "the audit needs more than {mb_max} MB, one bit for each position: raise --memory-mb-max, or audit incrementally"
    )]
    Memory {
        /// The limit in megabytes.
        mb_max: usize,
    },
}

type Result<T = (), E = AuditError> = std::result::Result<T, E>;

/// The printed lines apart from faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum AuditListing {
    /// Faults only.
    Faults,
    /// Also each waiting, quarantined and skipped event.
    Unpublished,
    /// Also each published event, with its record.
    All,
}

/// Where an audit begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuditStart {
    /// At the first event.
    Beginning,
    /// Where the last audit without faults ended.
    LastProof,
}

/// The settings of an audit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AuditSettings {
    pub(crate) start: AuditStart,
    pub(crate) listing: AuditListing,
    pub(crate) memory_mb_max: usize,
}

/// The result of an audit, in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// The publication.
    pub(crate) deployment: String,
    /// The events up to it were proved by an earlier audit.
    pub(crate) after: Position,
    /// The last position that was audited.
    pub(crate) until: Position,
    /// The next incremental audit begins behind it; none if this audit could not be recorded.
    pub(crate) proven: Option<Position>,
    /// Why it began at the first event, although it was to continue from an earlier audit.
    pub(crate) began_anew: Option<String>,
    /// Events in the store.
    pub(crate) events: u64,
    /// Events with a record.
    pub(crate) published: u64,
    /// Events that will be published.
    pub(crate) waiting: u64,
    /// Events of quarantined streams and categories.
    pub(crate) quarantined: u64,
    /// Events that an operator skipped.
    pub(crate) skipped: u64,
    /// Events that count as published and have no record.
    pub(crate) lost: u64,
    /// Records that were read.
    pub(crate) records: u64,
    /// Records of events that an administrator has removed since.
    pub(crate) removed: u64,
    /// Records of a replay that repeat earlier records.
    pub(crate) replayed: u64,
    /// Events that only a replay has published, behind later versions of their streams: a consumer
    /// that reads from the beginning meets a gap there.
    pub(crate) restored: u64,
    /// Repeated records in at-least-once delivery.
    pub(crate) repeated: u64,
    /// Faults of records.
    pub(crate) duplicates: u64,
    /// Faults of records.
    pub(crate) inversions: u64,
    /// Faults of records.
    pub(crate) changed: u64,
    /// Faults of records.
    pub(crate) unknown: u64,
    /// Faults of records.
    pub(crate) misplaced: u64,
    /// The duration in seconds.
    pub(crate) seconds: f64,
}

/// An audit under way.
struct Auditor<'a> {
    config: &'a Arc<Config>,
    store: &'a Store,
    settings: AuditSettings,
    print: &'a mut (dyn FnMut(&Finding) -> std::io::Result<()> + Send),
    topics: AuditedTopics,
    extent: Extent,
    partitions: PartitionStates,
    proven: Position,
    seen: PositionSet,
    /// Those of `seen` whose record is in another partition than that of their stream.
    misplaced: PositionSet,
    /// The first event that is not accounted for by a record, a skip or a removal.
    first_unresolved: Option<Position>,
    summary: Summary,
}

/// Audits a deployment: compares its topics with the store in both directions, and passes each
/// finding to `print`.
pub(crate) async fn audit(
    config: &Arc<Config>,
    store: &Store,
    settings: AuditSettings,
    print: &mut (dyn FnMut(&Finding) -> std::io::Result<()> + Send),
) -> Result<Summary> {
    let began = Instant::now();
    let acquired = store.pool().acquire().await;
    let mut connection = acquired.map_err(Failure::database("connect"))?;
    let end = store.log_end(&mut connection).await.map_err(Failure::from)?.bound;
    drop(connection);
    let publication = config.publication();
    let mut proof = match settings.start {
        AuditStart::Beginning => Proof::none(),
        AuditStart::LastProof => Proof::read(store, &publication).await?,
    };
    let extent = Extent::read(store, &publication).await?;
    let topics = AuditedTopics::find(config, store).await?;
    let began_anew = topics.changed_since(config, &proof.partitions).await?;
    if began_anew.is_some() {
        proof = Proof::none();
    }
    let partitions = topics.partition_states(&proof.partitions);
    let summary = Summary::new(publication, (proof.proven, end.position), began_anew);
    let mut auditor = Auditor {
        config,
        store,
        settings,
        print,
        topics,
        extent,
        partitions,
        proven: proof.proven,
        seen: PositionSet::default(),
        misplaced: PositionSet::default(),
        first_unresolved: None,
        summary,
    };
    auditor.read_topics().await?;
    auditor.account_for_events(end.position).await?;
    if auditor.summary.faults() == 0 {
        let proven = auditor.proof(end.position);
        auditor.summary.proven = proven.record(store, &config.publication(), end.next_xid).await?;
    }
    auditor.summary.seconds = began.elapsed().as_secs_f64();
    Ok(auditor.summary)
}

impl Auditor<'_> {
    async fn read_topics(&mut self) -> Result {
        let mut chunks = topics::read(self.config, &self.partitions, &self.topics);
        let total = self.partitions.iter().filter_map(|((topic, partition), state)| {
            Some(self.topics.range(topic, *partition)?.end.since(state.start()))
        });
        let mut progress = Progress::new("records of the topics", total.sum());
        while let Some(chunk) = chunks.recv().await {
            let chunk = chunk?;
            progress.advance(chunk.len() as u64);
            self.compare(chunk).await?;
        }
        Ok(())
    }

    fn found(&mut self, finding: &Finding) -> Result {
        let counter = match finding {
            Finding::Lost { .. } => Some(&mut self.summary.lost),
            Finding::Duplicate(_) => Some(&mut self.summary.duplicates),
            Finding::Inversion { .. } => Some(&mut self.summary.inversions),
            Finding::Changed(_) => Some(&mut self.summary.changed),
            Finding::Unknown(_) => Some(&mut self.summary.unknown),
            Finding::Misplaced { .. } => Some(&mut self.summary.misplaced),
            Finding::Published(_)
            | Finding::Waiting(_)
            | Finding::Quarantined { .. }
            | Finding::Skipped { .. } => None,
        };
        if let Some(counter) = counter {
            *counter += 1;
        }
        Ok((self.print)(finding)?)
    }

    fn lists_unpublished(&self) -> bool {
        self.settings.listing >= AuditListing::Unpublished
    }

    fn lists_everything(&self) -> bool {
        self.settings.listing >= AuditListing::All
    }

    fn unresolved(&mut self, position: Option<Position>) {
        self.first_unresolved = match (self.first_unresolved, position) {
            (Some(first), Some(position)) => Some(first.min(position)),
            (first, position) => first.or(position),
        };
    }

    fn memory_is_bounded(&self) -> Result {
        let mb_max = self.settings.memory_mb_max;
        if self.seen.bytes() + self.misplaced.bytes() > mb_max * 1_048_576 {
            Err(AuditError::Memory { mb_max })
        } else {
            Ok(())
        }
    }

    /// The proof of this audit.
    fn proof(&self, end: Position) -> Proof {
        let before = |position: Position| Position::new(position.get() - 1);
        let proven = self.first_unresolved.map_or(Some(end), before).unwrap_or(Position::ORIGIN);
        let proven = proven.max(self.proven);
        let partitions = self.partitions.iter();
        let partitions =
            partitions.map(|((topic, number), of)| of.proven(topic, *number, proven)).collect();
        Proof { proven, partitions }
    }
}

impl Summary {
    fn new(
        deployment: String,
        (after, until): (Position, Position),
        began_anew: Option<String>,
    ) -> Self {
        Self {
            deployment,
            after,
            until,
            proven: None,
            began_anew,
            events: 0,
            published: 0,
            waiting: 0,
            quarantined: 0,
            skipped: 0,
            lost: 0,
            records: 0,
            removed: 0,
            replayed: 0,
            restored: 0,
            repeated: 0,
            duplicates: 0,
            inversions: 0,
            changed: 0,
            unknown: 0,
            misplaced: 0,
            seconds: 0.0,
        }
    }

    /// The number of faults.
    pub(crate) const fn faults(&self) -> u64 {
        self.lost + self.duplicates + self.inversions + self.changed + self.unknown + self.misplaced
    }
}
