//! The transaction of a batch: read model, offsets and versions, all or nothing.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::sync::Arc;

use annals_schemas::EventSet;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::batch::{Batch, Event};
use crate::cache::VersionCache;
use crate::consumer::ConsumeError;
use crate::envelope::Delivered;
use crate::filter::{LastApplied, VersionFilter};
use crate::kafka::Counts;
use crate::ledger::{Advance, Standing};
use crate::position::Place;
use crate::projection::Projection;
use crate::registry::Schemas;
use crate::runner::{RunError, Runner};
use crate::session::{Refused, Session, caused_by_outage};
use crate::transaction::{Outcome, Trouble, attempt, moved_by_another};

/// Applies batches, and knows where each partition and stream stands.
pub(crate) struct Applier {
    projection: Projection,
    schemas: Schemas,
    session: Session,
    shutdown: CancellationToken,
    versions: VersionCache,
    next_offsets: HashMap<(Arc<str>, i32), i64>,
}

/// Why the run ends.
#[derive(Debug)]
pub(crate) enum Halt {
    /// It was told to, while waiting for something.
    Shutdown,
    /// It cannot go on.
    Error(RunError),
}

/// What was applied of the records of one batch, and what stopped it.
#[derive(Debug, Default)]
pub(crate) struct Applied<E> {
    pub(crate) events: Vec<Event<E>>,
    pub(crate) duplicates: usize,
    pub(crate) skipped: usize,
    pub(crate) batches: u64,
    pub(crate) caught_up: bool,
    pub(crate) fault: Option<RunError>,
}

impl Applier {
    pub(crate) fn new(runner: &Runner, shutdown: &CancellationToken) -> Self {
        let limits = runner.projection.limits;
        Self {
            projection: runner.projection.clone(),
            schemas: runner.schemas.clone(),
            session: Session::new(&runner.pool, limits.batch_deadline, shutdown),
            shutdown: shutdown.clone(),
            versions: VersionCache::new(limits.cached_streams_max),
            next_offsets: HashMap::new(),
        }
    }

    /// Where to start reading topics that were found.
    pub(crate) async fn starts(&mut self, topics: &Counts) -> Result<Vec<Standing>, Halt> {
        let mut starts = Vec::new();
        for (topic, &found) in topics {
            let standings = self.start_of(topic, found).await?;
            let known = i32::try_from(standings.len()).unwrap_or(i32::MAX);
            if known != found {
                let topic = Arc::clone(topic);
                return Err(Halt::Error(
                    ConsumeError::Repartitioned { topic, known, found }.into(),
                ));
            }
            starts.extend(standings);
        }
        let offsets =
            starts.iter().map(|s| ((Arc::clone(&s.next.topic), s.next.partition), s.next.offset));
        self.next_offsets.extend(offsets);
        Ok(starts)
    }

    async fn start_of(&mut self, topic: &Arc<str>, partitions: i32) -> Result<Vec<Standing>, Halt> {
        let refused = |refused| halt("look up where the projection stands", refused);
        loop {
            let mut connection = self.session.take().await.map_err(refused)?;
            let question = self.projection.ledger.starts(&mut connection, topic, partitions);
            let answer = self.session.before_deadline(question).await;
            if let Some(starts) = self.session.settle(connection, answer).await.map_err(refused)? {
                return Ok(starts);
            }
        }
    }

    /// Applies records in one transaction. If the handler refuses, applies them one by one, to find
    /// out which of them it refuses and to keep those before it.
    pub(crate) async fn apply<E, Failure>(
        &mut self,
        records: Vec<Delivered>,
        handler: &mut impl AsyncFnMut(&mut PgConnection, &[Event<E>]) -> Result<(), Failure>,
    ) -> Result<Applied<E>, Halt>
    where
        E: EventSet,
        Failure: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut applied = Applied::new();
        let mut batch = self.sift(records).await?;
        let fault = batch.fault.take();
        match self.commit(&batch, handler).await? {
            Outcome::Committed => applied.add(batch),
            Outcome::Refused(source) if batch.events.len() == 1 => {
                applied.fault = refusal(&batch, source);
            }
            Outcome::Refused(_of_several) => {
                self.apply_each(batch.into_records(), handler, &mut applied).await?;
            }
        }
        applied.fault = applied.fault.or(fault);
        Ok(applied)
    }

    async fn apply_each<E, Failure>(
        &mut self,
        records: Vec<Delivered>,
        handler: &mut impl AsyncFnMut(&mut PgConnection, &[Event<E>]) -> Result<(), Failure>,
        applied: &mut Applied<E>,
    ) -> Result<(), Halt>
    where
        E: EventSet,
        Failure: Into<Box<dyn Error + Send + Sync>>,
    {
        for record in records {
            let batch = self.sift(vec![record]).await?;
            match self.commit(&batch, handler).await? {
                Outcome::Committed => applied.add(batch),
                Outcome::Refused(source) => {
                    applied.fault = refusal(&batch, source);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Filters and decodes. No transaction is open meanwhile: it may wait for the registry.
    async fn sift<E: EventSet>(&mut self, records: Vec<Delivered>) -> Result<Batch<E>, Halt> {
        let mut filter = VersionFilter::new(self.projection.first_version);
        let mut unseen = HashSet::new();
        for record in &records {
            match self.versions.get(&record.stream) {
                Some(last) => filter.restore(&record.stream, last.clone()),
                None => {
                    unseen.insert(record.stream.as_str());
                }
            }
        }
        if !unseen.is_empty() {
            let unseen: Vec<&str> = unseen.into_iter().collect();
            for (stream, last) in self.look_up(&unseen).await? {
                filter.restore(&stream, last);
            }
        }
        let sift = Batch::sift(records, &mut filter, &self.schemas, self.projection.unknown_events);
        tokio::select! {
            batch = sift => Ok(batch),
            () = self.shutdown.cancelled() => Err(Halt::Shutdown),
        }
    }

    async fn look_up(&mut self, streams: &[&str]) -> Result<Vec<(String, LastApplied)>, Halt> {
        let refused = |refused| halt("look up the versions of streams", refused);
        loop {
            let mut connection = self.session.take().await.map_err(refused)?;
            let question = self.projection.ledger.versions(&mut connection, streams);
            let answer = self.session.before_deadline(question).await;
            if let Some(found) = self.session.settle(connection, answer).await.map_err(refused)? {
                return Ok(found);
            }
        }
    }

    /// Tries until the outcome is known.
    async fn commit<E, Failure>(
        &mut self,
        batch: &Batch<E>,
        handler: &mut impl AsyncFnMut(&mut PgConnection, &[Event<E>]) -> Result<(), Failure>,
    ) -> Result<Outcome, Halt>
    where
        Failure: Into<Box<dyn Error + Send + Sync>>,
    {
        let refused = |refused| halt("apply a batch", refused);
        let advances = self.advances(batch);
        if advances.is_empty() {
            return Ok(Outcome::Committed);
        }
        loop {
            let mut connection = self.session.take().await.map_err(refused)?;
            let ledger = &self.projection.ledger;
            let attempt = attempt(&mut connection, ledger, &advances, batch, handler);
            match self.session.before_deadline(attempt).await {
                Ok(()) => self.session.put_back(connection),
                Err(Trouble::Moved) => {
                    self.session.put_back(connection);
                    self.was_committed_before(&advances).await?;
                }
                Err(Trouble::Handler(failure)) if caused_by_outage(&*failure) => {
                    let delay = self.session.delay_after(&*failure);
                    self.session.wait(delay).await.map_err(refused)?;
                    continue;
                }
                Err(Trouble::Handler(failure)) => {
                    self.session.put_back(connection);
                    return Ok(Outcome::Refused(failure));
                }
                Err(Trouble::Sql(error)) => {
                    self.session.wait_after(error).await.map_err(refused)?;
                    continue;
                }
            }
            self.remember(batch, &advances);
            return Ok(Outcome::Committed);
        }
    }

    /// An attempt whose answer was lost may have been committed all the same. If not, it was another
    /// runner that moved the partitions.
    async fn was_committed_before(&mut self, advances: &[Advance]) -> Result<(), Halt> {
        let refused = |refused| halt("look up where the projection stands", refused);
        let mut topics: Vec<_> = advances.iter().map(|a| Arc::clone(&a.next.topic)).collect();
        topics.dedup();
        let standings = loop {
            let mut connection = self.session.take().await.map_err(refused)?;
            let question = self.projection.ledger.offsets(&mut connection, &topics);
            let answer = self.session.before_deadline(question).await;
            if let Some(found) = self.session.settle(connection, answer).await.map_err(refused)? {
                break found;
            }
        };
        match moved_by_another(&self.projection.name, advances, standings) {
            None => Ok(()),
            Some(superseded) => Err(Halt::Error(superseded)),
        }
    }

    fn advances<E>(&self, batch: &Batch<E>) -> Vec<Advance> {
        let advances = batch.ends.iter().map(|(key, &(offset, last_event))| {
            let (topic, partition) = key.clone();
            let expected = self.next_offsets.get(key).copied().unwrap_or(0);
            Advance { expected, next: Place { topic, partition, offset: offset + 1 }, last_event }
        });
        let mut advances: Vec<Advance> = advances.collect();
        advances.sort_by(|a, b| a.next.cmp(&b.next));
        advances
    }

    fn remember<E>(&mut self, batch: &Batch<E>, advances: &[Advance]) {
        for (stream, last) in &batch.lasts {
            self.versions.insert(stream, last.clone());
        }
        for Advance { next, .. } in advances {
            let key = (Arc::clone(&next.topic), next.partition);
            self.next_offsets.insert(key, next.offset);
        }
    }
}

impl<E> Applied<E> {
    pub(crate) fn new() -> Self {
        Self {
            events: Vec::new(),
            duplicates: 0,
            skipped: 0,
            batches: 0,
            caught_up: false,
            fault: None,
        }
    }

    fn add(&mut self, batch: Batch<E>) {
        self.batches += u64::from(!batch.ends.is_empty());
        self.duplicates += batch.duplicates;
        self.skipped += batch.skipped();
        self.events.extend(batch.events);
    }
}

/// Names the one event of a batch that the handler refused.
fn refusal<E>(batch: &Batch<E>, source: Box<dyn Error + Send + Sync>) -> Option<RunError> {
    let refused = &batch.events.first()?.delivered;
    Some(RunError::Handler {
        stream: refused.stream.clone(),
        version: refused.version,
        event_type: refused.event_type.clone(),
        event_id: refused.event_id,
        place: refused.place(),
        source,
    })
}

fn halt(action: &'static str, refused: Refused) -> Halt {
    match refused {
        Refused::Shutdown => Halt::Shutdown,
        Refused::Error(source) => Halt::Error(RunError::Database { action, source }),
    }
}
