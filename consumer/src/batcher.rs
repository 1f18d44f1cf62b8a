//! Reads a projection's topics in batches of records.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::envelope::{Delivered, EnvelopeError};
use crate::error::ConsumeError;
use crate::kafka::{KafkaClientError, PartitionCounts, RecordFetcher, Watermarks};
use crate::position::{Offset, RecordLocation, TopicPartition};
use crate::projection::{Projection, ProjectionLimits};
use crate::projection_store::PartitionProgress;
use crate::settings::ConsumerSettings;
use crate::topic_watch::{TopicChanges, TopicWatch};

/// Interval of the check for the end, until it is reached.
const END_CHECK: Duration = Duration::from_millis(50);

/// Reads all partitions of a projection's topics.
pub(crate) struct Batcher {
    fetcher: RecordFetcher,
    topics: TopicWatch,
    starts: HashMap<TopicPartition, Offset>,
    /// The record that was read last before the start: the same topic still has it there.
    unverified: HashMap<TopicPartition, (Offset, Uuid)>,
    next_offsets: HashMap<TopicPartition, Offset>,
    known_end: Option<Vec<Watermarks>>,
    caught_up: bool,
    end_check_due: Instant,
    limits: ProjectionLimits,
}

/// What reading has brought.
#[derive(Debug)]
pub(crate) enum BatcherEvent {
    /// Records, in the order of each partition, and the error of the record behind them.
    Records(Vec<Delivered>, Option<ConsumeError>),
    /// Topics that appeared, with their partition counts: [`Batcher::start`] starts to read them.
    TopicsFound(PartitionCounts),
    /// All records that were committed at the time of the last query have been returned.
    CaughtUp,
}

impl Batcher {
    pub(crate) fn open(
        projection: &Projection,
        settings: &ConsumerSettings,
    ) -> Result<Self, KafkaClientError> {
        let names: Vec<&str> = projection.topics.iter().map(String::as_str).collect();
        let group = format!("annals-projection-{}", projection.name);
        Ok(Self {
            fetcher: RecordFetcher::open(settings, &group)?,
            topics: TopicWatch::new(&names, settings.topic_check_interval),
            starts: HashMap::new(),
            unverified: HashMap::new(),
            next_offsets: HashMap::new(),
            known_end: None,
            caught_up: false,
            end_check_due: Instant::now(),
            limits: projection.limits,
        })
    }

    /// Starts to read partitions from the projection's progress. Reads the last applied record
    /// again, to verify that the topic is still the same.
    pub(crate) fn start(&mut self, progress: &[PartitionProgress]) -> Result<(), KafkaClientError> {
        let mut starts = Vec::with_capacity(progress.len());
        for PartitionProgress { next, last_event } in progress {
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

    /// Waits for the next event. The caller must have processed everything returned before.
    pub(crate) async fn next(&mut self) -> Result<BatcherEvent, ConsumeError> {
        loop {
            if let Some(event) = self.check_brokers().await? {
                return Ok(event);
            }
            let record = match self.fetcher.ready()? {
                Some(record) => record,
                None => match tokio::time::timeout_at(self.next_check(), self.fetcher.next()).await
                {
                    Ok(Ok(Some(record))) => record,
                    Ok(Err(failure)) => return Err(failure.into()),
                    Ok(Ok(None)) | Err(_) => continue,
                },
            };
            if let Some(event) = self.batch(record)? {
                return Ok(event);
            }
        }
    }

    /// Makes the queries to the brokers that are due.
    async fn check_brokers(&mut self) -> Result<Option<BatcherEvent>, ConsumeError> {
        if self.fetcher.take_recheck_request() {
            self.topics.check_now();
        }
        let now = Instant::now();
        if self.topics.due() <= now {
            let TopicChanges { created, recreated } = self.topics.check(&mut self.fetcher).await?;
            let topics: PartitionCounts = created.into_iter().chain(recreated).collect();
            if !topics.is_empty() {
                return Ok(Some(BatcherEvent::TopicsFound(topics)));
            }
        }
        if !self.caught_up && self.end_check_due <= now {
            self.caught_up = self.is_at_end().await?;
            return Ok(self.caught_up.then_some(BatcherEvent::CaughtUp));
        }
        Ok(None)
    }

    fn next_check(&self) -> Instant {
        let topics_due = self.topics.due();
        if self.caught_up { topics_due } else { topics_due.min(self.end_check_due) }
    }

    pub(crate) async fn close(self) {
        self.fetcher.close().await;
    }

    /// Batches a record with the fetched records behind it. Returns `None` if all of them were read
    /// for verification only.
    fn batch(
        &mut self,
        first: Result<Delivered, EnvelopeError>,
    ) -> Result<Option<BatcherEvent>, ConsumeError> {
        self.caught_up = false;
        let mut records = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(record) = next {
            let delivered = match record {
                Ok(delivered) => delivered,
                Err(error) => return Ok(Some(BatcherEvent::Records(records, Some(error.into())))),
            };
            if self.is_new(&delivered)? {
                bytes += delivered.payload.len();
                records.push(delivered);
            }
            let full = records.len() >= self.limits.batch_events_max
                || bytes >= self.limits.batch_bytes_max;
            next = if full { None } else { self.fetcher.ready()? };
        }
        Ok((!records.is_empty()).then_some(BatcherEvent::Records(records, None)))
    }

    fn is_new(&mut self, delivered: &Delivered) -> Result<bool, KafkaClientError> {
        let location = delivered.location();
        let key = location.topic_partition();
        let check = match self.unverified.remove(&key) {
            None => ResumeCheck::LaterRecord,
            Some(last) => check_resume(last, delivered),
        };
        match check {
            ResumeCheck::SameRecord => return Ok(false),
            ResumeCheck::LaterRecord => {}
            ResumeCheck::OtherTopic => {
                self.fetcher.assign(&[RecordLocation { offset: Offset::ZERO, ..location }])?;
                return Ok(false);
            }
        }
        let next = delivered.offset.next();
        if self.next_offsets.insert(key, next).is_some_and(|expected| next <= expected) {
            tracing::warn!(
                record = %location,
                "a topic was created again and is read from its beginning; applied events are dropped"
            );
        }
        Ok(true)
    }

    /// Queries the watermarks only after the known end was reached.
    async fn is_at_end(&mut self) -> Result<bool, ConsumeError> {
        self.end_check_due = Instant::now() + END_CHECK;
        if self.topics.known().is_empty() {
            return Ok(!self.fetcher.is_unavailable());
        }
        let positions = self.fetcher.positions()?;
        let positions: HashMap<_, _> =
            positions.into_iter().map(|next| (next.topic_partition(), next.offset)).collect();
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
            let position = positions.get(&key).or_else(|| self.starts.get(&key)).copied();
            // The broker will refuse a start beyond the end: the topic was created again.
            let unread = self.starts.get(&key) == position.as_ref();
            low.offset == *high || position.is_some_and(|p| p == *high || (p > *high && !unread))
        })
    }
}

/// Compares the first record after a start with the record that was read last.
enum ResumeCheck {
    /// It is that record.
    SameRecord,
    /// It is a later one: that record was removed, or the topic is shorter and read from its
    /// beginning.
    LaterRecord,
    /// It is another record at the same offset: the topic was created again.
    OtherTopic,
}

fn check_resume((offset, event): (Offset, Uuid), delivered: &Delivered) -> ResumeCheck {
    if delivered.offset != offset {
        ResumeCheck::LaterRecord
    } else if delivered.event_id == event {
        ResumeCheck::SameRecord
    } else {
        ResumeCheck::OtherTopic
    }
}
