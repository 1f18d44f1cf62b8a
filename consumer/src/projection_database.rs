//! Projections in other databases than PostgreSQL: the contract of such a database.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use crate::batch::DeliveredEvent;
use crate::dead_letter::DeadLetter;
use crate::filter_error::Gap;
use crate::position::RecordLocation;
use crate::progress::{LastApplied, OffsetUpdate, PartitionProgress};

/// A read model in any database, together with the progress of its projection: the application
/// implements it, and [`Projection::runner_on`](crate::Projection::runner_on) runs it.
///
/// # The contract
///
/// The progress is, for each partition, the next offset and the epoch of its owner; and for each
/// stream the last applied version with the ids of its last events. Two ways keep it, by what the
/// database has:
///
/// - **Transactions over several rows.** [`apply`](Self::apply) is one: it compares the offsets and
///   epochs that the database has with the expected ones, writes the read model, the versions and
///   the offsets, and commits.
/// - **Conditional writes of one document** (key-value stores, search engines, object stores). A
///   document has the state that is derived from a stream, *and that stream's progress*.
///   [`apply`](Self::apply) writes each document if its version is lower than the one to write: an
///   idempotent upsert by stream and version. Then it writes the offsets. After a crash in between
///   some events come again, and the versions in the documents drop them.
///   [`last_applied`](Self::last_applied) reads the documents.
///
/// Both give exactly once for each stream. The example `documents` of this crate is the second way.
///
/// A call can be repeated, or its future dropped at any point: its effect must be the same as of
/// one call. So `apply` returns `Ok` if the database already has the offsets of the batch, with
/// this owner.
pub trait ProjectionDatabase<E>: Send {
    /// Records the number of a topic's partitions, unless the topic has as many or more; returns
    /// the number that was recorded before, and this one for a new topic.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] is repeated; [`DatabaseError::Refused`] ends the run.
    fn record_partitions(
        &mut self,
        topic: &str,
        partitions: i32,
    ) -> impl Future<Output = Result<i32, DatabaseError>> + Send;

    /// Makes the caller the owner of partitions: increments the epoch of each, and returns their
    /// progress. Offset 0 and no last event for a partition without progress.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] is repeated; [`DatabaseError::Refused`] ends the run.
    fn own(
        &mut self,
        partitions: &[(Arc<str>, i32)],
    ) -> impl Future<Output = Result<Vec<PartitionProgress>, DatabaseError>> + Send;

    /// The last applied events of these streams; nothing of a stream without any.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] is repeated; [`DatabaseError::Refused`] ends the run.
    fn last_applied(
        &mut self,
        streams: &[&str],
    ) -> impl Future<Output = Result<Vec<(String, LastApplied)>, DatabaseError>> + Send;

    /// The gaps behind which streams continue, as a person accepted them; none unless implemented.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] is repeated; [`DatabaseError::Refused`] ends the run.
    fn accepted_gaps(&mut self) -> impl Future<Output = Result<Vec<Gap>, DatabaseError>> + Send {
        std::future::ready(Ok(Vec::new()))
    }

    /// Applies a batch, and stores its progress. It is safe to be repeated.
    ///
    /// # Errors
    /// [`DatabaseError`]: the same batch again, its events one by one, or the end of the run.
    fn apply(
        &mut self,
        batch: &BatchToApply<'_, E>,
    ) -> impl Future<Output = Result<(), DatabaseError>> + Send;
}

/// What [`ProjectionDatabase::apply`] writes.
#[derive(Debug)]
#[non_exhaustive]
pub struct BatchToApply<'a, E> {
    /// The events, each stream in order.
    pub events: &'a [DeliveredEvent<E>],
    /// Records that cannot be applied, and are passed under the policies of the projection: keep
    /// them where an operator finds them. Empty under
    /// [`FailurePolicy::Stop`](crate::FailurePolicy).
    pub dead_letters: Vec<&'a DeadLetter>,
    /// The progress of each stream after the batch, also of those whose events are skipped.
    pub versions: &'a HashMap<String, LastApplied>,
    /// The progress of each partition after the batch.
    pub offsets: &'a [OffsetUpdate],
}

/// Why a database did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// It is unavailable, or the outcome is unknown: the same call is repeated, with back-off.
    #[error("the database is unavailable")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// It refuses: of a batch, the events are applied one by one, and
    /// [`Projection::rejected_events`](crate::Projection::rejected_events) decides about the one
    /// that it refuses.
    #[error("the database refused")]
    Refused(#[source] Box<dyn Error + Send + Sync>),
    /// Another runner owns a partition, or has applied records of it: the location has the next
    /// offset that the database has. Nothing may have been written that the owner does not expect.
    #[error("another runner owns the partition of {0}")]
    Superseded(RecordLocation),
}
