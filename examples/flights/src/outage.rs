//! The relay is killed while flights are appended, and started again.

use std::time::{Duration, Instant};

use annals_testkit::{Follower, RelayProcess};
use anyhow::{Context, Result};
use jiff::Timestamp;
use tokio::sync::watch;

use crate::projections::until;
use crate::report::{grouped, per_second, say, time};
use crate::writers::Appended;

/// Share of the flights that are appended when the relay is killed, and when it is started again.
const KILL_PERCENT: usize = 40;
const START_PERCENT: usize = 60;
const DOWN_MAX: Duration = Duration::from_secs(3);
/// The relay has caught up when it publishes every appended event within this time.
const CAUGHT_UP_WITHIN: Duration = Duration::from_millis(100);

/// The time of the kill, and of the end of its effects.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outage {
    pub(crate) killed_at: Timestamp,
    pub(crate) recovered_at: Timestamp,
}

/// Kills the relay when a part of the flights is appended, lets the backlog grow, starts it again,
/// and waits until it has caught up with the writers. Reports each step.
pub(crate) async fn play(
    relay: &mut RelayProcess,
    topics: &Follower,
    mut appended: watch::Receiver<Appended>,
    flights: usize,
) -> Result<Outage> {
    until_flights(&mut appended, flights * KILL_PERCENT / 100).await?;
    let (killed_at, killed) = (Timestamp::now(), Instant::now());
    relay.kill().await;
    let Appended { flights: by_now, events } = *appended.borrow();
    say(format!(
        "! kill -9: the relay is dead. {} flights are appended, {} events, of which {} are published",
        grouped(by_now),
        grouped(events),
        grouped(topics.count())
    ))?;
    let grown = until_flights(&mut appended, flights * START_PERCENT / 100);
    if let Ok(reached) = tokio::time::timeout(DOWN_MAX, grown).await {
        reached?;
    }
    let before = topics.count();
    let backlog = appended.borrow().events.saturating_sub(before);
    say(format!(
        "the writers continue: {} later, {} events wait in the outbox; the relay is started again",
        time(killed.elapsed()),
        grouped(backlog)
    ))?;

    relay.restart();
    let started = Instant::now();
    let mut published = topics.counter();
    until(&mut published, before + usize::from(backlog > 0), "published events").await?;
    let first_after = started.elapsed();
    catch_up(&mut published, &appended).await?;
    let (caught_up_after, events) = (started.elapsed(), topics.count() - before);
    say(format!(
        "after its start: {} to the first event, {} until it caught up with the writers: {} events, {} events/s",
        time(first_after),
        time(caught_up_after),
        grouped(events),
        per_second(events, caught_up_after - first_after)
    ))?;
    Ok(Outage { killed_at, recovered_at: Timestamp::now() })
}

async fn until_flights(appended: &mut watch::Receiver<Appended>, flights: usize) -> Result<()> {
    let reached = appended.wait_for(|appended| appended.flights >= flights).await;
    reached.map(drop).context("the writers have ended")
}

/// Waits until all appended events are published, again and again, until that takes no time.
async fn catch_up(
    published: &mut watch::Receiver<usize>,
    appended: &watch::Receiver<Appended>,
) -> Result<()> {
    loop {
        let (turn, events) = (Instant::now(), appended.borrow().events);
        until(published, events, "published events").await?;
        if turn.elapsed() < CAUGHT_UP_WITHIN {
            return Ok(());
        }
    }
}
