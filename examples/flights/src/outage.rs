//! The point of it all: the relay is killed in the middle, and started again.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::counts::Counts;
use crate::figures::{grouped, time};
use crate::lags::Lags;
use crate::relay::Relay;
use crate::screen::Screen;

/// Share of the flights that are appended when the relay is killed, and when it is started again.
const KILL_PERCENT: u64 = 40;
const START_PERCENT: u64 = 60;
const DOWN_MIN: Duration = Duration::from_millis(500);
const DOWN_MAX: Duration = Duration::from_secs(3);
/// The relay has caught up when all that was appended comes out within this time.
const CAUGHT_UP_WITHIN: Duration = Duration::from_millis(100);

/// What the kill cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outage {
    /// Between the kill and the second start.
    pub(crate) down: Duration,
    /// Events that waited at the second start.
    pub(crate) backlog: u64,
    /// From the second start to the first event that came out.
    pub(crate) first_after: Duration,
    /// From that event until the relay had caught up.
    pub(crate) drain: Drain,
    /// From the second start until the relay had caught up with the writers.
    pub(crate) caught_up_after: Duration,
}

/// All that takes part.
pub(crate) struct Scene<'a> {
    pub(crate) relay: &'a mut Relay,
    pub(crate) counts: Counts,
    /// Flights of the file.
    pub(crate) flights: u64,
    pub(crate) lags: &'a Lags,
    pub(crate) screen: &'a Screen,
}

impl Scene<'_> {
    /// Kills the relay in the middle of the appending, lets the backlog grow, starts it again and
    /// measures.
    pub(crate) async fn play(mut self) -> Result<Outage> {
        let reached = self.counts.flights_appended(percent(self.flights, KILL_PERCENT));
        self.relay.while_it_runs(reached).await?;
        self.kill().await?;
        let killed_at = Instant::now();
        self.stay_down().await?;
        let (down, before) = (killed_at.elapsed(), self.counts.seen());
        let backlog = self.counts.appended().events.saturating_sub(before);
        self.screen.say(&format!(
            "the writers go on: {} later, {} events wait in the outbox",
            time(down),
            grouped(backlog)
        ))?;

        self.relay.start_again()?;
        let started_at = Instant::now();
        self.screen.shout(&format!("the relay is started again (pid {})", self.relay.pid()?))?;
        let first_after = self.first_event(before).await?;
        let drain = self.relay.while_it_runs(drain(&mut self.counts, before)).await?;
        let caught_up_after = started_at.elapsed();
        self.lags.recovered();
        self.screen.say(&format!(
            "{} after its start it has caught up with the writers: {} events in {}",
            time(caught_up_after),
            grouped(drain.events),
            time(drain.time)
        ))?;
        Ok(Outage { down, backlog, first_after, drain, caught_up_after })
    }

    async fn kill(&mut self) -> Result<()> {
        let pid = self.relay.pid()?;
        self.lags.killed();
        self.relay.kill().await?;
        let appended = self.counts.appended();
        self.screen
            .shout(&format!("kill -9: the relay (pid {pid}) is dead, in the middle of its work"))?;
        self.screen.say(&format!(
            "by now {} flights are appended, {} events, of which {} have come out of Kafka",
            grouped(appended.flights),
            grouped(appended.events),
            grouped(self.counts.seen())
        ))?;
        Ok(())
    }

    async fn stay_down(&mut self) -> Result<()> {
        let start = percent(self.flights, START_PERCENT);
        let grown = tokio::time::timeout(DOWN_MAX, self.counts.flights_appended(start));
        let (grown, ()) = tokio::join!(grown, tokio::time::sleep(DOWN_MIN));
        match grown {
            Ok(reached) => reached,
            // Long enough: a longer file makes no longer outage.
            Err(_elapsed) => Ok(()),
        }
    }

    async fn first_event(&mut self, before: u64) -> Result<Duration> {
        if self.counts.appended().events == before {
            // A short file was out before the kill.
            self.screen.say("nothing waits for it")?;
            return Ok(Duration::ZERO);
        }
        let started_at = Instant::now();
        self.relay.while_it_runs(self.counts.events_seen(before + 1)).await?;
        let first_after = started_at.elapsed();
        self.screen
            .say(&format!("{} later the first new event comes out of Kafka", time(first_after)))?;
        Ok(first_after)
    }
}

/// What came out in which time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drain {
    pub(crate) time: Duration,
    pub(crate) events: u64,
}

/// Waits until everything appended is published, repeatedly, until that takes almost no time.
async fn drain(counts: &mut Counts, before: u64) -> Result<Drain> {
    let begun = Instant::now();
    loop {
        let turn = Instant::now();
        let appended = counts.appended().events;
        counts.events_seen(appended).await?;
        if turn.elapsed() < CAUGHT_UP_WITHIN {
            return Ok(Drain { time: begun.elapsed(), events: counts.seen() - before });
        }
    }
}

fn percent(of: u64, percent: u64) -> u64 {
    (of * percent / 100).max(1)
}
