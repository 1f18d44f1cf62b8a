//! Publishes the events of a replay page by page, each page in one transaction with its progress.
//! After a transaction that did not succeed in time the next ones are smaller, as a relay's are.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use annals_relay_machine::FailureClass;
use annals_store::Position;

use crate::driver::batch_shrinking::ShrinkingBatch;
use crate::model::batch::{BatchSize, Limits};
use crate::model::message::Message;
use crate::publish::predecessors::name_previous;
use crate::replay::destinations::Destinations;
use crate::replay::pages::{self, Page};
use crate::replay::plan::ReplayProgress;
use crate::replay::producer::ReplayProducer;
use crate::replay::session::{ReplayEnd, ReplaySession};
use crate::replay::{Replay, ReplayError, Replayed, Result};
use crate::report::failure::Failure;
use crate::report::kafka_failure::KafkaFailure;
use crate::report::progress::Progress;

/// The interval at which the lease is renewed, as a part of it.
const RENEWALS_OF_A_LEASE: u32 = 3;

/// A replay under way.
pub(super) struct Transactions<'a> {
    replay: &'a Replay<'a>,
    session: &'a ReplaySession,
    to: Destinations,
    producer: ReplayProducer,
    progress: ReplayProgress,
    size: ShrinkingBatch,
}

impl<'a> Transactions<'a> {
    /// Makes the topics ready, and continues behind the last progress.
    pub(super) async fn open(replay: &'a Replay<'a>, session: &'a ReplaySession) -> Result<Self> {
        let recorded = replay.recorded_partitions().await?;
        let to =
            Destinations::prepare(replay.config, replay.store, &session.plan, recorded).await?;
        let (producer, progress) = ReplayProducer::open(replay.config, session.replay).await?;
        let size = ShrinkingBatch::new(&replay.config.relay);
        Ok(Self { replay, session, to, producer, progress, size })
    }

    /// Publishes all events that are left, of so many in `total`, and ends the replay.
    pub(super) async fn publish_all(mut self, total: u64) -> Result<Replayed> {
        let (began, before) = (Instant::now(), self.progress.events);
        let mut shown = Progress::new("events replayed", total);
        let renewal = self.replay.config.relay.lease / RENEWALS_OF_A_LEASE;
        let mut renewed = Instant::now();
        while self.progress.part < self.session.plan.parts.len() {
            self.publish_page().await?;
            shown.at(self.progress.events);
            if renewed.elapsed() >= renewal {
                renewed = Instant::now();
                self.session.keep(self.progress.events).await?;
            }
            self.slow_down(began, self.progress.events - before).await;
        }
        let events = self.progress.events;
        self.session.end(ReplayEnd::Finished, events).await?;
        Ok(Replayed {
            replay: self.session.replay,
            events,
            events_of_this_run: events - before,
            seconds: began.elapsed().as_secs_f64(),
        })
    }

    /// Publishes the next page in one transaction with its progress; or makes the next pages
    /// smaller.
    async fn publish_page(&mut self) -> Result {
        let (publication, limits) = (self.replay.config.publication(), self.limits());
        let (plan, progress) = (&self.session.plan, &self.progress);
        let page = pages::page(self.replay.store, &publication, plan, progress, limits).await?;
        let is_last = page.is_last;
        let messages = self.messages(page).await?;
        let mut next = self.progress;
        if let Some(last) = messages.last() {
            next.after = last.position;
            next.events += messages.len() as u64;
            if !self.send(messages, next).await? {
                return Ok(());
            }
        }
        if is_last {
            (next.part, next.after) = (next.part + 1, Position::ORIGIN);
        }
        self.progress = next;
        Ok(())
    }

    async fn messages(&mut self, page: Page) -> Result<Vec<Message>> {
        let mut messages = Vec::with_capacity(page.rows.len());
        for row in &page.rows {
            let event = row.event().map_err(Failure::from)?;
            messages.push(self.to.message(&event, self.session.replay).await?);
        }
        let acquired = self.replay.store.pool().acquire().await;
        let mut connection = acquired.map_err(Failure::database("connect"))?;
        let publication = self.replay.config.publication();
        name_previous(&mut connection, self.replay.store, &publication, &mut messages).await?;
        Ok(messages)
    }

    /// Sends messages and the progress behind them in one transaction. Returns whether it was
    /// committed: otherwise the next page begins behind the last committed one, and is smaller.
    async fn send(&mut self, messages: Vec<Message>, after: ReplayProgress) -> Result<bool> {
        let bytes = messages.iter().map(Message::bytes).sum();
        let size = BatchSize { events: messages.len(), bytes };
        let began = Instant::now();
        self.size.sends(size);
        let failure = match self.producer.publish(messages, after).await {
            Ok(()) => {
                self.size.grow(size);
                return Ok(true);
            }
            Err(ReplayError::Failure(failure)) => failure,
            Err(other) => return Err(other),
        };
        let acknowledged = match failure {
            Failure::Kafka(KafkaFailure::Slow { acknowledged, .. }) => Some(acknowledged),
            _ => None,
        };
        let limits = self.size.shrink(acknowledged.filter(|records| *records > 0));
        let fits = size.events <= limits.events_max.get() && size.bytes <= limits.bytes_max;
        if size.events == 1 || fits || !self.is_late(&failure, began) {
            return Err(failure.into());
        }
        tracing::info!(
            event = "replay_shrinks",
            error = failure.in_full(),
            events = size.events,
            events_next = limits.events_max.get(),
            bytes_next = limits.bytes_max,
            "a transaction of the replay did not succeed in time: the next ones are smaller"
        );
        // Another process may have fenced this one.
        self.session.keep(self.progress.events).await?;
        let opened = ReplayProducer::open(self.replay.config, self.session.replay).await?;
        (self.producer, self.progress) = opened;
        Ok(false)
    }

    /// Whether a smaller transaction may succeed. Kafka aborts one that takes too long by fencing
    /// its producer.
    fn is_late(&self, failure: &Failure, began: Instant) -> bool {
        match failure.class() {
            FailureClass::Unavailable | FailureClass::UnknownOutcome => true,
            FailureClass::Fenced => began.elapsed() >= self.replay.config.kafka.transaction_timeout,
            FailureClass::Resync | FailureClass::DivergedHistory | FailureClass::Fatal => false,
        }
    }

    fn limits(&self) -> Limits {
        let limits = self.size.limits();
        let rate = self.replay.rate_max.and_then(|rate| usize::try_from(rate).ok());
        let rate = rate.and_then(NonZeroUsize::new);
        let events_max = rate.map_or(limits.events_max, |rate| limits.events_max.min(rate));
        Limits { events_max, ..limits }
    }

    async fn slow_down(&self, began: Instant, events: u64) {
        let Some(rate) = self.replay.rate_max else { return };
        let due = Duration::from_millis(events.saturating_mul(1_000) / u64::from(rate));
        tokio::time::sleep_until((began + due).into()).await;
    }
}
