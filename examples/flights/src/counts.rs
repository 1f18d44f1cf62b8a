//! The two counts behind every measurement: appended events, and events received from Kafka.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::watch;

use crate::figures::grouped;
use crate::seen::Seen;
use crate::writers::Appended;

/// Longest time without anything new while events are missing.
pub(crate) const STANDSTILL_MAX: Duration = Duration::from_secs(60);

/// Both counts, to look at and to wait for.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) appended: watch::Receiver<Appended>,
    pub(crate) seen: watch::Receiver<Seen>,
}

impl Counts {
    pub(crate) fn appended(&self) -> Appended {
        *self.appended.borrow()
    }

    /// Events that have come out of Kafka.
    pub(crate) fn seen(&self) -> u64 {
        self.seen.borrow().events
    }

    /// Waits until so many flights are appended.
    pub(crate) async fn flights_appended(&mut self, flights: u64) -> Result<()> {
        let reached = self.appended.wait_for(|appended| appended.flights >= flights).await;
        reached.map(drop).context("the writers have ended")
    }

    /// Waits until so many events have come out of Kafka. Gives up when none comes any more.
    pub(crate) async fn events_seen(&mut self, events: u64) -> Result<()> {
        loop {
            let seen = self.seen.borrow_and_update().events;
            if seen >= events {
                return Ok(());
            }
            match tokio::time::timeout(STANDSTILL_MAX, self.seen.changed()).await {
                Ok(changed) => changed.context("the watch over the topics has ended")?,
                Err(_elapsed) => bail!(
                    "nothing has come out of Kafka for {} s, and {} events are missing: {} of {} have come",
                    STANDSTILL_MAX.as_secs(),
                    grouped(events - seen),
                    grouped(seen),
                    grouped(events)
                ),
            }
        }
    }
}
