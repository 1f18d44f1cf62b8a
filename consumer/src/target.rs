//! What a projection writes to: a read model together with its progress.

use std::collections::HashSet;
use std::sync::Arc;

use annals_schemas::EventSet;

use crate::applied_batch::RunEnd;
use crate::batch::EventBatch;
use crate::filter_error::Gap;
use crate::position::TopicPartition;
use crate::progress::{LastApplied, OffsetUpdate, PartitionProgress};
use crate::transaction::BatchOutcome;

/// A read model and the progress in it. Each method waits while the database is unavailable.
pub(crate) trait Target {
    /// The events that it is built from.
    type Event: EventSet;

    /// Starts the partitions of a topic that are not recorded at offset 0; returns how many were
    /// recorded, and this number for a new topic.
    async fn claim_topic(&mut self, topic: &Arc<str>, partitions: i32) -> Result<i32, RunEnd>;

    /// Becomes the owner of partitions, and loads the progress in them.
    async fn own(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<PartitionProgress>, RunEnd>;

    /// The gaps behind which streams continue.
    async fn accepted_gaps(&mut self) -> Result<HashSet<Gap>, RunEnd>;

    /// The last applied events of streams; nothing of a stream without any.
    async fn last_applied(
        &mut self,
        streams: &[&str],
    ) -> Result<Vec<(String, LastApplied)>, RunEnd>;

    /// Commits a batch with its progress, and retries until the outcome is known.
    async fn commit(
        &mut self,
        batch: &EventBatch<Self::Event>,
        updates: &[OffsetUpdate],
    ) -> Result<BatchOutcome, RunEnd>;
}
