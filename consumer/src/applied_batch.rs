//! The result of applying a batch of records.

use std::error::Error;

use crate::batch::{DeliveredEvent, EventBatch};
use crate::connection::ConnectionFailure;
use crate::error::{ConsumeError, RunError};
use crate::kafka::KafkaClientError;
use crate::transaction::Exceeded;

/// Why the run ends.
#[derive(Debug)]
pub(crate) enum RunEnd {
    /// Shutdown was requested during a wait.
    Shutdown,
    /// The run cannot continue.
    Error(RunError),
}

impl From<ConsumeError> for RunEnd {
    fn from(error: ConsumeError) -> Self {
        Self::Error(error.into())
    }
}

impl From<KafkaClientError> for RunEnd {
    fn from(error: KafkaClientError) -> Self {
        Self::Error(error.into())
    }
}

/// The applied records of one batch, and the error behind them.
#[derive(Debug, Default)]
pub(crate) struct AppliedBatch<E> {
    pub(crate) events: Vec<DeliveredEvent<E>>,
    pub(crate) duplicates: usize,
    pub(crate) skipped: usize,
    pub(crate) dead_letters: usize,
    pub(crate) batches: u64,
    pub(crate) caught_up: bool,
    pub(crate) error: Option<RunError>,
}

impl<E> AppliedBatch<E> {
    pub(crate) fn new() -> Self {
        Self {
            events: Vec::new(),
            duplicates: 0,
            skipped: 0,
            dead_letters: 0,
            batches: 0,
            caught_up: false,
            error: None,
        }
    }

    /// Adds a batch that was committed.
    pub(crate) fn add(&mut self, batch: EventBatch<E>) {
        self.batches += u64::from(!batch.ends.is_empty());
        self.duplicates += batch.duplicates;
        self.skipped += batch.skipped();
        for letter in batch.dead_letters() {
            self.dead_letters += 1;
            tracing::warn!(
                record = %letter.location(),
                error = letter.error(),
                "passed a record that cannot be applied"
            );
        }
        self.events.extend(batch.events);
    }
}

/// Names the single event or dead letter of a batch whose handler failed.
pub(crate) fn rejection<E>(
    batch: &EventBatch<E>,
    source: Box<dyn Error + Send + Sync>,
) -> Option<RunError> {
    match (batch.events.first(), batch.dead_letters().next()) {
        (Some(event), _) => Some(RunError::handler(&event.delivered, source)),
        (None, Some(letter)) => Some(RunError::DeadLetter { location: letter.location(), source }),
        (None, None) => None,
    }
}

/// Names the single event or dead letter of a batch that exceeded a limit.
pub(crate) fn limit_exceeded<E>(batch: &EventBatch<E>, exceeded: Exceeded) -> Option<RunError> {
    let Exceeded { limit, tries, source } = exceeded;
    let Some(event) = batch.events.first() else { return rejection(batch, source) };
    let event = &event.delivered;
    Some(RunError::LimitExceeded {
        stream: event.stream.clone(),
        version: event.version,
        event_type: event.event_type.clone(),
        location: event.location(),
        limit,
        tries,
        source,
    })
}

pub(crate) fn run_end(action: &'static str, failure: ConnectionFailure) -> RunEnd {
    match failure {
        ConnectionFailure::Shutdown => RunEnd::Shutdown,
        ConnectionFailure::Permanent(source) => {
            RunEnd::Error(RunError::Database { action, source })
        }
    }
}
