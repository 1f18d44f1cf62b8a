//! What comes out of Kafka for a projection: batches of records, new topics, the end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::consumer::ConsumeError;
use crate::envelope::{Delivered, EnvelopeError};
use crate::kafka::{Extent, KafkaFailure, Reader};
use crate::position::Place;
use crate::projection::{Limits, Projection};
use crate::settings::Settings;
use crate::topics::Topics;

/// How often to look whether the end is reached, as long as it is not.
const END_CHECK: Duration = Duration::from_millis(50);

/// Reads all partitions of a projection's topics.
pub(crate) struct Intake {
    reader: Reader,
    topics: Topics,
    starts: HashMap<(Arc<str>, i32), i64>,
    goal: Option<Vec<Extent>>,
    caught_up: bool,
    end_check_due: Instant,
    limits: Limits,
}

/// What the intake has to tell.
#[derive(Debug)]
pub(crate) enum News {
    /// Records, in the order of each partition, and what is wrong with the one behind them.
    Records(Vec<Delivered>, Option<ConsumeError>),
    /// Topics that exist now, with their partition counts; they are read once started.
    Topics(BTreeMap<Arc<str>, i32>),
    /// Everything that was committed when this was looked up has been handed out.
    CaughtUp,
}

impl Intake {
    pub(crate) fn open(projection: &Projection, settings: &Settings) -> Result<Self, KafkaFailure> {
        let names: Vec<&str> = projection.topics.iter().map(String::as_str).collect();
        let group = format!("annals-projection-{}", projection.name);
        Ok(Self {
            reader: Reader::open(settings, &group)?,
            topics: Topics::new(&names, settings.topic_check_interval),
            starts: HashMap::new(),
            goal: None,
            caught_up: false,
            end_check_due: Instant::now(),
            limits: projection.limits,
        })
    }

    /// Starts to read partitions at these offsets.
    pub(crate) fn start(&mut self, starts: &[Place]) -> Result<(), KafkaFailure> {
        self.reader.assign(starts)?;
        let starts = starts.iter().map(|p| ((Arc::clone(&p.topic), p.partition), p.offset));
        self.starts.extend(starts);
        self.goal = None;
        self.caught_up = false;
        Ok(())
    }

    /// Waits for news. Everything handed out before must have been dealt with: it counts as seen.
    pub(crate) async fn next(&mut self) -> Result<News, ConsumeError> {
        loop {
            if let Some(news) = self.look().await? {
                return Ok(news);
            }
            if let Some(record) = self.reader.ready()? {
                return self.batch(record);
            }
            match tokio::time::timeout_at(self.look_due(), self.reader.next()).await {
                Ok(record) => return self.batch(record?),
                Err(_time_to_look) => {}
            }
        }
    }

    /// Asks the brokers what is due to be asked.
    async fn look(&mut self) -> Result<Option<News>, ConsumeError> {
        let now = Instant::now();
        if self.topics.due() <= now {
            let appeared = self.topics.check(&mut self.reader).await?;
            if !appeared.is_empty() {
                return Ok(Some(News::Topics(appeared)));
            }
        }
        if !self.caught_up && self.end_check_due <= now {
            self.caught_up = self.at_end().await?;
            return Ok(self.caught_up.then_some(News::CaughtUp));
        }
        Ok(None)
    }

    fn look_due(&self) -> Instant {
        let topics_due = self.topics.due();
        if self.caught_up { topics_due } else { topics_due.min(self.end_check_due) }
    }

    pub(crate) async fn close(self) {
        self.reader.close().await;
    }

    /// The record and what is ready behind it.
    fn batch(&mut self, first: Result<Delivered, EnvelopeError>) -> Result<News, ConsumeError> {
        self.caught_up = false;
        let mut records = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(record) = next {
            let delivered = match record {
                Ok(delivered) => delivered,
                Err(fault) => return Ok(News::Records(records, Some(fault.into()))),
            };
            bytes += delivered.payload.len();
            records.push(delivered);
            let full = records.len() >= self.limits.batch_events_max
                || bytes >= self.limits.batch_bytes_max;
            next = if full { None } else { self.reader.ready()? };
        }
        Ok(News::Records(records, None))
    }

    /// Asks the brokers for the ends only when those known are reached.
    async fn at_end(&mut self) -> Result<bool, ConsumeError> {
        self.end_check_due = Instant::now() + END_CHECK;
        if self.topics.known().is_empty() {
            return Ok(!self.reader.is_away());
        }
        let positions = self.reader.positions()?;
        let positions: HashMap<_, _> =
            positions.into_iter().map(|p| ((p.topic, p.partition), p.offset)).collect();
        if self.goal.as_ref().is_some_and(|goal| !self.passed(goal, &positions)) {
            return Ok(false);
        }
        let Some(extents) = self.reader.extents(self.topics.known()).await else {
            return Ok(false);
        };
        let at_end = self.passed(&extents, &positions);
        self.goal = Some(extents);
        Ok(at_end)
    }

    fn passed(&self, goal: &[Extent], positions: &HashMap<(Arc<str>, i32), i64>) -> bool {
        goal.iter().all(|extent| {
            let key = (Arc::clone(&extent.topic), extent.partition);
            let position = positions.get(&key).or_else(|| self.starts.get(&key)).copied();
            // A start behind the end is one that the broker will refuse: the topic was made anew.
            let unread = self.starts.get(&key) == position.as_ref();
            extent.low == extent.high
                || position.is_some_and(|p| p == extent.high || (p > extent.high && !unread))
        })
    }
}
