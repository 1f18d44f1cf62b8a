//! Folding: events of a stream, applied to a state from a version up to a moment.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use annals_schemas::{EncodeError, EventSet, Fingerprint, Schema};

use crate::aggregate::Aggregate;
use crate::aggregate::as_of::AsOf;
use crate::error::Error;
use crate::event::RecordedEvent;
use crate::event_store::sealed::{Backend, Snapshot};
use crate::read::rows::decode;
use crate::stream::{StreamName, Version};
use crate::telemetry::{self, SnapshotOutcome};

/// A state whose type of events is hidden, so that aggregates of several types are handled alike.
pub trait Fold: Send {
    /// The category of its events.
    fn category(&self) -> &'static str;
    /// Decodes and applies a recorded event.
    fn apply_recorded(&mut self, event: &RecordedEvent) -> Result<(), Error>;
    /// The schema of the state's snapshots, if it has any.
    fn snapshot_schema(&self) -> Option<Fingerprint>;
    /// Replaces the state by that of a snapshot; no effect and false if it cannot be decoded.
    fn restore(&mut self, payload: &[u8]) -> bool;
    /// Whether a snapshot is due that many events after the last one, whose load took so long.
    fn is_snapshot_due(&self, events: u64, load_time: Duration) -> bool;
    /// The state for a snapshot; none if it has no snapshots.
    fn save(&self) -> Option<Result<(Schema, Vec<u8>), EncodeError>>;
}

impl<A: Aggregate> Fold for A {
    fn category(&self) -> &'static str {
        A::Event::CATEGORY
    }

    fn apply_recorded(&mut self, event: &RecordedEvent) -> Result<(), Error> {
        for event in decode(event, A::unknown_events())? {
            self.apply(event);
        }
        Ok(())
    }

    fn snapshot_schema(&self) -> Option<Fingerprint> {
        A::snapshots()?.fingerprint()
    }

    fn restore(&mut self, payload: &[u8]) -> bool {
        let restored = A::snapshots().and_then(|snapshots| snapshots.decode(payload));
        let is_restored = restored.is_some();
        if let Some(state) = restored {
            *self = state;
        }
        is_restored
    }

    fn is_snapshot_due(&self, events: u64, load_time: Duration) -> bool {
        A::snapshots().is_some_and(|snapshots| snapshots.is_due(events, load_time))
    }

    fn save(&self) -> Option<Result<(Schema, Vec<u8>), EncodeError>> {
        A::snapshots().map(|snapshots| snapshots.encode(self))
    }
}

/// The part of a stream that a state has.
#[derive(Debug, Clone)]
pub(crate) struct Folded {
    pub(crate) stream: StreamName,
    /// The last event, removed or not.
    pub(crate) version: Option<Version>,
    /// Events that an administrator removed.
    pub(crate) removed: u64,
    /// The last event of the snapshot that the state began with.
    pub(crate) snapshot: Option<Version>,
    /// The time in which the events behind the snapshot were read and applied.
    pub(crate) load_time: Duration,
}

impl Folded {
    /// The initial state has no event.
    pub(crate) fn nothing(stream: &StreamName) -> Self {
        Self {
            stream: stream.clone(),
            version: None,
            removed: 0,
            snapshot: None,
            load_time: Duration::ZERO,
        }
    }

    /// Begins with the snapshot of the stream, if there is one that is not behind `until`.
    pub(crate) async fn restore(
        &mut self,
        store: &impl Backend,
        state: &mut dyn Fold,
        until: Option<AsOf>,
    ) -> Result<(), Error> {
        let Some(schema) = state.snapshot_schema() else { return Ok(()) };
        let is_earlier = |version| match until {
            None => true,
            Some(AsOf::Version(until)) => version <= until,
            // A snapshot does not tell them.
            Some(AsOf::Time(_) | AsOf::Position(_)) => false,
        };
        let Some(found) = store.find_snapshot(&self.stream, schema).await? else { return Ok(()) };
        if is_earlier(found.version) {
            if state.restore(&found.state) {
                self.version = Some(found.version);
                self.removed = found.removed;
                self.snapshot = self.version;
            } else {
                telemetry::snapshot(SnapshotOutcome::Unreadable);
            }
        }
        Ok(())
    }

    /// The snapshot of a state, if one is due.
    pub(crate) fn snapshot_if_due(&self, state: &dyn Fold) -> Option<Snapshot> {
        let since = count(self.version) - count(self.snapshot);
        if !state.is_snapshot_due(since, self.load_time) {
            return None;
        }
        match self.to_snapshot(state)? {
            Ok(snapshot) => Some(snapshot),
            Err(error) => {
                let (stream, error) = (&self.stream, &error as &dyn std::error::Error);
                tracing::warn!(%stream, error, "could not save a snapshot");
                telemetry::snapshot(SnapshotOutcome::Failed);
                None
            }
        }
    }

    /// The snapshot of a state; none if it has no snapshots, or no event.
    pub(crate) fn to_snapshot(&self, state: &dyn Fold) -> Option<Result<Snapshot, EncodeError>> {
        let (version, removed) = (self.version?, self.removed);
        let saved = state.save()?;
        let stream = self.stream.clone();
        Some(saved.map(|(schema, state)| Snapshot { stream, schema, version, removed, state }))
    }

    /// Applies the events behind `version`, to the end of the stream or to a moment.
    pub(crate) async fn advance<B: Backend>(
        &mut self,
        store: &B,
        state: &mut dyn Fold,
        until: Option<AsOf>,
    ) -> Result<(), Error> {
        let (start, started_at) = (self.version, Instant::now());
        let mut applied = 0;
        let mut excluded = None;
        let each = |event: RecordedEvent| {
            if until.is_some_and(|until| until.excludes(&event)) {
                excluded = Some(event.version);
                return Ok(ControlFlow::Break(()));
            }
            applied += 1;
            state.apply_recorded(&event)?;
            Ok(ControlFlow::Continue(()))
        };
        let last = store.fold_stream(&self.stream, start, each).await?;
        self.load_time += started_at.elapsed();
        let end = match (excluded, until) {
            (Some(excluded), _) => excluded.previous(),
            // Removed events at the end of the stream.
            (None, Some(AsOf::Version(version))) => last.min(Some(version)),
            (None, _) => last,
        };
        // Versions have no gaps: a missing event was removed.
        self.version = end.max(start);
        self.removed += count(self.version).saturating_sub(count(start) + applied);
        Ok(())
    }

    /// Applies events that came with a conflict. False if some are missing.
    pub(crate) fn catch_up(
        &mut self,
        state: &mut dyn Fold,
        events: &[RecordedEvent],
        actual: Option<Version>,
    ) -> Result<bool, Error> {
        for event in events {
            if event.version == Version::after(self.version) {
                state.apply_recorded(event)?;
                self.version = Some(event.version);
            }
        }
        Ok(self.version == actual)
    }
}

/// The number of versions up to this one.
fn count(version: Option<Version>) -> u64 {
    version.map_or(0, |version| version.next().get().unsigned_abs())
}
