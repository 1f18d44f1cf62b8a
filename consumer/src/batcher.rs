//! Reads a projection's topics in batches of records.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::error::ConsumeError;
use crate::fetched_record::{FetchedRecord, location};
use crate::kafka::{
    FetcherUse, GroupChange, KafkaClientError, PartitionCounts, RecordFetcher, Watermarks,
};
use crate::partial_batch::PartialBatch;
use crate::position::{Offset, RecordLocation, TopicPartition};
use crate::progress::PartitionProgress;
use crate::projection::{Projection, Sharing};
use crate::resume::{RefusedOffset, ResumeCheck, check_resume, refused};
use crate::settings::ConsumerSettings;
use crate::topic_watch::TopicWatch;
use crate::version_filter::FirstVersion;

/// Interval of the check for the end, until it is reached.
const END_CHECK: Duration = Duration::from_millis(50);
/// Records that are read at once. Behind them the task yields: the database may have answered.
const READ_AT_ONCE: usize = 128;

/// Reads all partitions of a projection's topics.
pub(crate) struct Batcher {
    fetcher: RecordFetcher,
    topics: TopicWatch,
    starts: HashMap<TopicPartition, Offset>,
    /// The record that was read last before the start: the same topic still has it there.
    unverified: HashMap<TopicPartition, (Offset, Uuid)>,
    next_offsets: HashMap<TopicPartition, Offset>,
    /// Records of the next batch: a call of [`Batcher::next`] that is cancelled leaves them here.
    partial: PartialBatch,
    known_end: Option<Vec<Watermarks>>,
    caught_up: bool,
    end_check_due: Instant,
    /// The consumer group assigns the partitions.
    is_shared: bool,
    /// The broker does not have some requested offset.
    reset_pending: bool,
    first_version: FirstVersion,
}

/// The result of reading.
#[derive(Debug)]
pub(crate) enum BatcherEvent {
    /// Records, in the order of each partition.
    Records(Vec<FetchedRecord>),
    /// Topics that appeared or grew, with their partition counts: [`Batcher::start`] reads them.
    TopicsFound(PartitionCounts),
    /// Partitions that the group gives this member: [`Batcher::start`] starts to read them.
    Assigned(Vec<TopicPartition>),
    /// Partitions that the group takes: [`Batcher::stop`] stops to read them.
    Revoked(Vec<TopicPartition>),
    /// All records that were committed at the time of the last query have been returned.
    CaughtUp,
}

impl Batcher {
    pub(crate) fn open(
        projection: &Projection,
        settings: &ConsumerSettings,
    ) -> Result<Self, KafkaClientError> {
        let names: Vec<&str> = projection.topics.iter().map(String::as_str).collect();
        let use_as = match projection.sharing {
            Sharing::Exclusive => FetcherUse::Projection,
            Sharing::Group => FetcherUse::SharedProjection,
        };
        let group = format!("annals-projection-{}", projection.name);
        Ok(Self {
            fetcher: RecordFetcher::open(settings, &group, use_as)?,
            topics: TopicWatch::new(&names, settings.topic_check_interval),
            starts: HashMap::new(),
            unverified: HashMap::new(),
            next_offsets: HashMap::new(),
            partial: PartialBatch::new(projection.limits),
            known_end: None,
            caught_up: false,
            end_check_due: Instant::now(),
            is_shared: projection.sharing == Sharing::Group,
            reset_pending: false,
            first_version: projection.first_version,
        })
    }

    /// Starts to read partitions from the projection's progress. Reads the last applied record
    /// again, to verify that the topic is still the same.
    pub(crate) fn start(&mut self, progress: &[PartitionProgress]) -> Result<(), KafkaClientError> {
        let mut starts = Vec::with_capacity(progress.len());
        for PartitionProgress { next, last_event, .. } in progress {
            let mut start = next.clone();
            let key = next.topic_partition();
            self.unverified.remove(&key);
            if let Some(event) = last_event {
                start.offset = start.offset.previous();
                self.unverified.insert(key.clone(), (start.offset, *event));
            }
            self.next_offsets.insert(key.clone(), next.offset);
            self.starts.insert(key, start.offset);
            starts.push(start);
        }
        self.known_end = None;
        self.caught_up = false;
        self.fetcher.assign(&starts)
    }

    /// Asks the group for a share of the partitions of all topics that exist.
    pub(crate) fn join(&mut self) -> Result<(), KafkaClientError> {
        let topics: Vec<_> = self.topics.known().keys().cloned().collect();
        self.fetcher.subscribe(&topics)
    }

    /// Stops to read partitions.
    pub(crate) fn stop(&mut self, partitions: &[TopicPartition]) -> Result<(), KafkaClientError> {
        for partition in partitions {
            self.unverified.remove(partition);
            self.next_offsets.remove(partition);
            self.starts.remove(partition);
        }
        self.fetcher.unassign(partitions)
    }

    /// The assigned partitions of these topics.
    pub(crate) fn assigned_of(&self, topics: &PartitionCounts) -> Vec<TopicPartition> {
        self.starts.keys().filter(|(topic, _)| topics.contains_key(topic)).cloned().collect()
    }

    /// The topics found so far, with their partition counts.
    pub(crate) fn found(&self) -> &PartitionCounts {
        self.topics.known()
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// The records behind those returned, up to the last known end; markers of transactions count.
    pub(crate) fn records_left(&self) -> Option<u64> {
        let left = self.known_end.as_ref()?.iter().filter_map(|Watermarks { low, high }| {
            let next = self.next_offsets.get(&low.topic_partition())?;
            u64::try_from(high.get() - next.get().max(low.offset.get())).ok()
        });
        let left: u64 = left.sum();
        Some(left + self.partial.len() as u64)
    }

    /// Shows offsets to the tools that display a group's lag.
    pub(crate) fn show_offsets(&self, next: &[RecordLocation]) {
        if next.is_empty() {
            return;
        }
        if let Err(error) = self.fetcher.show_offsets(next) {
            tracing::debug!(%error, "the consumer group did not take offsets");
        }
    }

    /// Waits for the next event. The caller must have processed everything returned before. Safe to
    /// cancel: records that were read are returned by the next call, before any other event.
    pub(crate) async fn next(&mut self) -> Result<BatcherEvent, ConsumeError> {
        loop {
            if self.partial.is_empty()
                && let Some(event) = self.first_records().await?
            {
                return Ok(event);
            }
            while self.read_fetched()? {
                tokio::task::yield_now().await;
            }
            if let Some(records) = self.partial.take() {
                return Ok(BatcherEvent::Records(records));
            }
        }
    }

    /// Waits for records, or returns another event. Adds none if all that came were read for
    /// verification only.
    async fn first_records(&mut self) -> Result<Option<BatcherEvent>, ConsumeError> {
        if let Some(event) = self.check_brokers().await? {
            return Ok(Some(event));
        }
        let received = tokio::time::timeout_at(self.next_check(), self.fetcher.next()).await;
        if let Some(record) = received.unwrap_or(Ok(None))? {
            let mut run = None;
            self.add(record, &mut run)?;
            self.end_run(run);
        }
        Ok(None)
    }

    /// Makes the queries to the brokers that are due.
    async fn check_brokers(&mut self) -> Result<Option<BatcherEvent>, ConsumeError> {
        if self.is_shared
            && let Some(change) = self.fetcher.take_group_change()
        {
            return Ok(Some(match change {
                GroupChange::Assigned(partitions) => BatcherEvent::Assigned(partitions),
                GroupChange::Revoked(partitions) => BatcherEvent::Revoked(partitions),
            }));
        }
        if self.fetcher.take_recheck_request() {
            self.topics.check_now();
        }
        self.reset_pending |= self.fetcher.take_reset_request();
        if self.reset_pending {
            self.reset_offsets().await?;
        }
        let topics = self.topics.check(&mut self.fetcher)?.into_counts();
        if !topics.is_empty() {
            return Ok(Some(BatcherEvent::TopicsFound(topics)));
        }
        if !self.caught_up && self.end_check_due <= Instant::now() {
            self.caught_up = self.is_at_end().await?;
            return Ok(self.caught_up.then_some(BatcherEvent::CaughtUp));
        }
        Ok(None)
    }

    fn next_check(&self) -> Instant {
        let topics_due = self.topics.due(&self.fetcher);
        if self.caught_up && !self.reset_pending {
            topics_due
        } else {
            topics_due.min(self.end_check_due)
        }
    }

    pub(crate) async fn close(self) {
        self.fetcher.close().await;
    }

    /// Adds some of the records that were fetched. Returns false if there are no more, or the batch
    /// is full.
    fn read_fetched(&mut self) -> Result<bool, ConsumeError> {
        let mut run = None;
        let mut is_more = true;
        for _ in 0..READ_AT_ONCE {
            let record = if self.partial.is_full() { None } else { self.fetcher.ready()? };
            let Some(record) = record else {
                is_more = false;
                break;
            };
            self.add(record, &mut run)?;
        }
        self.end_run(run);
        Ok(is_more)
    }

    /// Adds a record to the batch, unless it was read for verification only.
    fn add(
        &mut self,
        record: FetchedRecord,
        run: &mut Option<RecordLocation>,
    ) -> Result<(), KafkaClientError> {
        self.caught_up = false;
        if self.is_new(&record, run)? {
            self.partial.push(record);
        }
        Ok(())
    }

    /// `run` is the next offset of the partition of the records before: they come in runs of one
    /// partition, whose next offset is recorded behind the run.
    fn is_new(
        &mut self,
        record: &FetchedRecord,
        run: &mut Option<RecordLocation>,
    ) -> Result<bool, KafkaClientError> {
        let location = location(record);
        let expected = match run.take_if(|run| !location.is_in_partition_of(run)) {
            None if run.is_some() => run.as_ref().map(|run| run.offset),
            ended => {
                self.end_run(ended);
                if !self.verify(record, &location)? {
                    return Ok(false);
                }
                self.next_offsets.get(&location.topic_partition()).copied()
            }
        };
        let next = location.next();
        if expected.is_some_and(|expected| next.offset <= expected) {
            tracing::warn!(
                record = %location,
                "a topic was created again and is read from its beginning; applied events are dropped"
            );
        }
        *run = Some(next);
        Ok(true)
    }

    fn end_run(&mut self, run: Option<RecordLocation>) {
        if let Some(next) = run {
            self.next_offsets.insert(next.topic_partition(), next.offset);
        }
    }

    /// Compares the first record of a partition with the one that was read last. Returns false for
    /// a record that is not to be applied.
    fn verify(
        &mut self,
        record: &FetchedRecord,
        location: &RecordLocation,
    ) -> Result<bool, KafkaClientError> {
        let check = match self.unverified.remove(&location.topic_partition()) {
            None => ResumeCheck::LaterRecord,
            Some(last) => check_resume(last, record),
        };
        match check {
            ResumeCheck::SameRecord => Ok(false),
            ResumeCheck::LaterRecord => Ok(true),
            ResumeCheck::OtherTopic => {
                let start = RecordLocation { offset: Offset::ZERO, ..location.clone() };
                self.fetcher.assign(&[start])?;
                Ok(false)
            }
        }
    }

    /// Restarts the partitions whose requested offset the broker does not have.
    async fn reset_offsets(&mut self) -> Result<(), ConsumeError> {
        let Some(watermarks) = self.fetcher.watermarks(self.topics.known()).await else {
            return Ok(());
        };
        let positions = self.positions()?;
        let mut starts = Vec::new();
        for Watermarks { low, high } in watermarks {
            let key = low.topic_partition();
            let (Some(&next), Some(&start)) = (self.next_offsets.get(&key), self.starts.get(&key))
            else {
                continue;
            };
            let position = positions.get(&key).copied().unwrap_or(start);
            let offset = match refused(position, next, (low.offset, high)) {
                RefusedOffset::Exists => position,
                RefusedOffset::VerificationRemoved => next,
                RefusedOffset::TopicCreatedAgain => low.offset,
                RefusedOffset::Removed if self.may_begin_later(next) => low.offset,
                RefusedOffset::Removed => {
                    let next = RecordLocation { offset: next, ..low.clone() };
                    return Err(ConsumeError::RecordsRemoved { next, low: low.offset });
                }
            };
            if offset != position {
                self.unverified.remove(&key);
            }
            self.starts.insert(key, offset);
            starts.push(RecordLocation { offset, ..low });
        }
        self.reset_pending = false;
        Ok(self.fetcher.assign(&starts)?)
    }

    /// Whether a projection that has read nothing may begin within a topic.
    fn may_begin_later(&self, next: Offset) -> bool {
        next == Offset::ZERO && self.first_version == FirstVersion::Any
    }

    fn positions(&self) -> Result<HashMap<TopicPartition, Offset>, KafkaClientError> {
        let positions = self.fetcher.positions()?;
        Ok(positions.into_iter().map(|next| (next.topic_partition(), next.offset)).collect())
    }

    /// Queries the watermarks only after the known end was reached.
    async fn is_at_end(&mut self) -> Result<bool, ConsumeError> {
        self.end_check_due = Instant::now() + END_CHECK;
        if self.topics.known().is_empty() {
            return Ok(self.topics.was_answered() && !self.fetcher.is_unavailable());
        }
        if self.starts.is_empty() {
            // The group has assigned nothing.
            return Ok(false);
        }
        let positions = self.positions()?;
        if self.known_end.as_ref().is_some_and(|end| !self.has_reached(end, &positions)) {
            return Ok(false);
        }
        let Some(end) = self.fetcher.watermarks(self.topics.known()).await else {
            return Ok(false);
        };
        let at_end = self.has_reached(&end, &positions);
        self.known_end = Some(end);
        Ok(at_end)
    }

    fn has_reached(&self, end: &[Watermarks], positions: &HashMap<TopicPartition, Offset>) -> bool {
        end.iter().all(|Watermarks { low, high }| {
            let key = low.topic_partition();
            if !self.starts.contains_key(&key) {
                return true;
            }
            let position = positions.get(&key).or_else(|| self.starts.get(&key)).copied();
            // The broker will refuse a start beyond the end: the topic was created again.
            let unread = self.starts.get(&key) == position.as_ref();
            low.offset == *high || position.is_some_and(|p| p == *high || (p > *high && !unread))
        })
    }
}
