//! Snapshots: states that are saved, so that a load reads only the events behind them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use annals_schemas::{DecodeError, EncodeError, Fingerprint, Schema, SchemaError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;

use crate::event_store::sealed::{Backend, Snapshot};
use crate::telemetry::{self, SnapshotOutcome};

/// How an aggregate's state is saved: its Avro schema, and when, by events or by the time of a
/// load. Returned by [`Aggregate::snapshots`](crate::Aggregate::snapshots).
///
/// A snapshot belongs to a stream and to the exact text of the schema: after any change of the
/// schema earlier snapshots are ignored. **Change the schema whenever `apply` changes its result**,
/// for instance its `doc`: the store cannot see a change of code.
///
/// A test should check that the state matches the schema, with [`Snapshots::verify`].
pub struct Snapshots<A> {
    policy: SnapshotPolicy,
    definition: &'static str,
    encode: fn(&A, &Schema) -> Result<Vec<u8>, EncodeError>,
    decode: fn(&[u8], &Schema) -> Result<A, DecodeError>,
    verify: fn(&Schema) -> Result<(), Vec<annals_schemas::Misfit>>,
}

/// When a state is saved.
#[derive(Debug, Clone, Copy)]
enum SnapshotPolicy {
    /// After so many events.
    Events(u64),
    /// After a load that took so long.
    LoadTime(Duration),
}

impl<A: Serialize + DeserializeOwned> Snapshots<A> {
    /// Saves the state after a decision if the last snapshot is at least so many events behind.
    /// `definition` is the text of an `.avsc` file: an Avro record that the state fits.
    #[must_use]
    pub const fn every(events: u32, definition: &'static str) -> Self {
        Self::by(SnapshotPolicy::Events(events as u64), definition)
    }

    /// Saves the state after a decision if the events behind the last snapshot took so long to read
    /// and apply: by cost, for any cause of a slow load. Some milliseconds are a good limit.
    #[must_use]
    pub const fn when_load_takes(time: Duration, definition: &'static str) -> Self {
        Self::by(SnapshotPolicy::LoadTime(time), definition)
    }

    const fn by(policy: SnapshotPolicy, definition: &'static str) -> Self {
        Self {
            policy,
            definition,
            encode: |state, schema| schema.encode(state),
            decode: |payload, schema| schema.decode(payload, schema),
            verify: annals_schemas::check_fit::<A>,
        }
    }
}

impl<A> Snapshots<A> {
    /// Checks that the definition is an Avro record, and that the state fits it.
    ///
    /// # Errors
    /// The problems, one line each.
    pub fn verify(&self) -> Result<(), Vec<String>> {
        let schema = self.schema().map_err(|error| vec![error.to_string()])?;
        (self.verify)(&schema).map_err(|misfits| misfits.iter().map(ToString::to_string).collect())
    }

    fn schema(&self) -> Result<Schema, SchemaError> {
        Schema::parse(self.definition)
    }

    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        self.schema().ok().map(|schema| schema.fingerprint())
    }

    pub(crate) fn decode(&self, payload: &[u8]) -> Option<A> {
        (self.decode)(payload, &self.schema().ok()?).ok()
    }

    /// The state in Avro, with its schema; the reason if there is none.
    pub(crate) fn encode(&self, state: &A) -> Result<(Schema, Vec<u8>), EncodeError> {
        let schema = self.schema()?;
        Ok((schema, (self.encode)(state, &schema)?))
    }

    /// Whether a snapshot is due that many events after the last one, whose load took so long.
    pub(crate) fn is_due(&self, events: u64, load_time: Duration) -> bool {
        let is_reached = match self.policy {
            SnapshotPolicy::Events(every) => events >= every,
            SnapshotPolicy::LoadTime(time) => load_time >= time,
        };
        is_reached && events > 0
    }
}

impl<A> fmt::Debug for Snapshots<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// Writes snapshots in a task of its own, unless another one is being written: the next decision
/// saves a later state.
pub(crate) fn write_later<B: Backend>(store: &B, snapshots: Vec<Snapshot>) {
    if snapshots.is_empty() {
        return;
    }
    let permit = Arc::clone(store.snapshot_writes()).try_acquire_owned();
    let (Ok(permit), Ok(runtime)) = (permit, Handle::try_current()) else {
        return telemetry::snapshot(SnapshotOutcome::Skipped);
    };
    let store = store.clone();
    drop(runtime.spawn(async move {
        for snapshot in snapshots {
            let written = store.write_snapshot(&snapshot).await;
            telemetry::snapshot(match &written {
                Ok(()) => SnapshotOutcome::Written,
                Err(_) => SnapshotOutcome::Failed,
            });
            if let Err(error) = written {
                let (stream, error) = (&snapshot.stream, &error as &dyn std::error::Error);
                tracing::warn!(%stream, error, "could not save a snapshot");
            }
        }
        drop(permit);
    }));
}
