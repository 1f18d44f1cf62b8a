//! Writers that act like real ones: they race, retry, give up, roll back, leave transactions open.

use std::sync::Arc;
use std::time::Duration;

use annals_store::{Store, StreamName};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::account::account;
use crate::dice::Dice;
use crate::follow::DEADLINE;
use crate::history::Attempt;
use crate::must::Must;
use crate::until::until_counted;
use crate::writer::Writer;

/// The steps of a writer between two pauses: enough for the writers to race.
const BURST_STEPS: usize = 16;

/// How densely writers write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As fast as the machine can, for failures that must meet work in progress. The other tests
    /// wait for the processor meanwhile.
    Full,
    /// In bursts, with a pause of 200 ms after each.
    Bursts,
}

/// The number of writers, and their streams.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Concurrent writers.
    pub writers: usize,
    /// Streams that they share.
    pub streams: usize,
    /// Acknowledged events that may wait to be consumed before the writers wait, too.
    pub ahead_events_max: usize,
    /// How densely they write.
    pub pace: Pace,
}

/// Concurrent writers, until they are stopped.
#[derive(Debug)]
pub struct Load {
    stop: watch::Sender<bool>,
    acknowledged: watch::Sender<usize>,
    writers: Vec<JoinHandle<Vec<Attempt>>>,
}

impl Load {
    /// Starts writers on a store. `consumed` is the number of events consumed so far; it stops the
    /// writers while they are too far ahead.
    #[must_use]
    pub fn start(
        store: &Store,
        options: &LoadOptions,
        dice: &mut Dice,
        consumed: &watch::Receiver<usize>,
    ) -> Self {
        let (stop, acknowledged) = (watch::Sender::new(false), watch::Sender::new(0));
        let streams: Arc<[StreamName]> = (0..options.streams).map(account).collect();
        let writers = (0..options.writers)
            .map(|number| {
                let writer = Writer::new(store, &streams, number, dice.split());
                let brake = Brake {
                    stop: stop.subscribe(),
                    acknowledged: acknowledged.clone(),
                    consumed: consumed.clone(),
                    ahead_events_max: options.ahead_events_max,
                    pause: match options.pace {
                        Pace::Full => Duration::ZERO,
                        Pace::Bursts => Duration::from_millis(200),
                    },
                };
                tokio::spawn(write(writer, brake))
            })
            .collect();
        Self { stop, acknowledged, writers }
    }

    /// Waits until so many events have been acknowledged since the start.
    ///
    /// # Panics
    /// If none is acknowledged within [`DEADLINE`] while some are missing.
    pub async fn until_acknowledged(&self, events: usize) {
        let acknowledged = self.acknowledged.subscribe();
        let reached = until_counted(acknowledged, |count| count >= events).await;
        assert_eq!(reached, Some(true), "the writers got no event acknowledged in {DEADLINE:?}");
    }

    /// The number of events acknowledged since the start.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        *self.acknowledged.borrow()
    }

    /// Stops the writers, lets each finish its step, and returns their attempts.
    ///
    /// # Panics
    /// If a writer had panicked.
    pub async fn stop(self) -> Vec<Attempt> {
        self.stop.send_replace(true);
        let mut attempts = Vec::new();
        for writer in self.writers {
            attempts.extend(writer.await.must("stop a writer"));
        }
        attempts
    }
}

async fn write(mut writer: Writer, mut brake: Brake) -> Vec<Attempt> {
    for step in 1_usize.. {
        if !brake.goes_on().await {
            break;
        }
        let events = writer.step().await;
        brake.acknowledged.send_modify(|count| *count += events);
        if step.is_multiple_of(BURST_STEPS) {
            brake.pause().await;
        }
    }
    writer.finish().await
}

/// The signals that make a writer wait or end.
struct Brake {
    stop: watch::Receiver<bool>,
    acknowledged: watch::Sender<usize>,
    consumed: watch::Receiver<usize>,
    ahead_events_max: usize,
    pause: Duration,
}

impl Brake {
    /// Waits while the writers are too far ahead; false when it is time to end.
    async fn goes_on(&mut self) -> bool {
        let consumed_min = self.acknowledged.borrow().saturating_sub(self.ahead_events_max);
        if *self.stop.borrow() {
            return false;
        }
        tokio::select! {
            _ = self.consumed.wait_for(|consumed| *consumed >= consumed_min) => true,
            _ = self.stop.wait_for(|stop| *stop) => false,
        }
    }

    /// Waits between two bursts, or until it is time to end.
    async fn pause(&mut self) {
        let stopped = self.stop.wait_for(|stop| *stop);
        // When the time is over, and when there is nobody left to stop it, the next step decides.
        drop(tokio::time::timeout(self.pause, stopped).await);
    }
}
