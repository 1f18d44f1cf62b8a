//! What comes out of Kafka for a projection: batches of records, new topics, the end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::consumer::ConsumeError;
use crate::envelope::{Delivered, EnvelopeError};
use crate::kafka::{Counts, Extent, KafkaFailure, Reader};
use crate::ledger::Standing;
use crate::position::Place;
use crate::projection::{Limits, Projection};
use crate::settings::Settings;
use crate::topics::{Appeared, Topics};

/// How often to look whether the end is reached, as long as it is not.
const END_CHECK: Duration = Duration::from_millis(50);

/// Reads all partitions of a projection's topics.
pub(crate) struct Intake {
    reader: Reader,
    topics: Topics,
    starts: HashMap<(Arc<str>, i32), i64>,
    /// What the first record of a partition must be, if it is the topic that was read before.
    unverified: HashMap<(Arc<str>, i32), (i64, Uuid)>,
    next_offsets: HashMap<(Arc<str>, i32), i64>,
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
    Topics(Counts),
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
            unverified: HashMap::new(),
            next_offsets: HashMap::new(),
            goal: None,
            caught_up: false,
            end_check_due: Instant::now(),
            limits: projection.limits,
        })
    }

    /// Starts to read partitions where the projection stands: at the last record that it has read, to
    /// see that it is still the same.
    pub(crate) fn start(&mut self, standings: &[Standing]) -> Result<(), KafkaFailure> {
        let mut starts = Vec::with_capacity(standings.len());
        for Standing { next, last_event } in standings {
            let mut start = next.clone();
            let key = (Arc::clone(&next.topic), next.partition);
            self.unverified.remove(&key);
            if let Some(event) = last_event {
                start.offset -= 1;
                self.unverified.insert(key.clone(), (start.offset, *event));
            }
            self.next_offsets.insert(key.clone(), next.offset);
            self.starts.insert(key, start.offset);
            starts.push(start);
        }
        self.goal = None;
        self.caught_up = false;
        self.reader.assign(&starts)
    }

    /// Waits for news. Everything handed out before must have been dealt with: it counts as seen.
    pub(crate) async fn next(&mut self) -> Result<News, ConsumeError> {
        loop {
            if let Some(news) = self.look().await? {
                return Ok(news);
            }
            let record = match self.reader.ready()? {
                Some(record) => record,
                None => match tokio::time::timeout_at(self.look_due(), self.reader.next()).await {
                    Ok(Ok(Some(record))) => record,
                    Ok(Err(failure)) => return Err(failure.into()),
                    Ok(Ok(None)) | Err(_) => continue,
                },
            };
            if let Some(news) = self.batch(record)? {
                return Ok(news);
            }
        }
    }

    /// Asks the brokers what is due to be asked.
    async fn look(&mut self) -> Result<Option<News>, ConsumeError> {
        if self.reader.take_doubt() {
            self.topics.hurry();
        }
        let now = Instant::now();
        if self.topics.due() <= now {
            let Appeared { first, again } = self.topics.check(&mut self.reader).await?;
            let topics: Counts = first.into_iter().chain(again).collect();
            if !topics.is_empty() {
                return Ok(Some(News::Topics(topics)));
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

    /// The record and what is ready behind it; nothing if they were only to be verified.
    fn batch(
        &mut self,
        first: Result<Delivered, EnvelopeError>,
    ) -> Result<Option<News>, ConsumeError> {
        self.caught_up = false;
        let mut records = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(record) = next {
            let delivered = match record {
                Ok(delivered) => delivered,
                Err(fault) => return Ok(Some(News::Records(records, Some(fault.into())))),
            };
            if self.is_news(&delivered)? {
                bytes += delivered.payload.len();
                records.push(delivered);
            }
            let full = records.len() >= self.limits.batch_events_max
                || bytes >= self.limits.batch_bytes_max;
            next = if full { None } else { self.reader.ready()? };
        }
        Ok((!records.is_empty()).then_some(News::Records(records, None)))
    }

    fn is_news(&mut self, delivered: &Delivered) -> Result<bool, KafkaFailure> {
        let key = (Arc::clone(&delivered.topic), delivered.partition);
        let verdict = match self.unverified.remove(&key) {
            None => Resumed::Behind,
            Some(last) => resumed(last, delivered),
        };
        match verdict {
            Resumed::At => return Ok(false),
            Resumed::Behind => {}
            Resumed::InAnother => {
                let (topic, partition) = key;
                self.reader.assign(&[Place { topic, partition, offset: 0 }])?;
                return Ok(false);
            }
        }
        let next = delivered.offset + 1;
        if self.next_offsets.insert(key, next).is_some_and(|expected| next <= expected) {
            tracing::warn!(
                place = %delivered.place(),
                "a topic starts over: it was made anew; events applied before are dropped"
            );
        }
        Ok(true)
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

/// What the first record is after a start at the last record that had been read.
enum Resumed {
    /// That record.
    At,
    /// A later one, since that one was removed; or one of a topic that has become shorter and is read
    /// from its beginning.
    Behind,
    /// Another record at the same offset: the topic was made anew.
    InAnother,
}

fn resumed((offset, event): (i64, Uuid), delivered: &Delivered) -> Resumed {
    if delivered.offset != offset {
        Resumed::Behind
    } else if delivered.event_id == event {
        Resumed::At
    } else {
        Resumed::InAnother
    }
}
