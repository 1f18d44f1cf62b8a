//! The store's side: one task per client, each appending as soon as its last append is answered.

use std::time::{Duration, Instant};

use annals_store::{Append, AppendCondition, ExpectedVersion, Position, Store, Tag};
use annals_testkit::Dice;
use futures_util::future::try_join_all;

use super::{Load, Run};
use crate::event::{self, new_event};

/// Appends of each client before the clock starts: they open its connection and prepare its
/// statement.
const WARM_UP_APPENDS: usize = 3;

/// Different tags of each of the two kinds.
const TAGS: usize = 2_000;

/// What each append has besides its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tagging {
    None,
    /// Two tags by chance, and a condition on each that holds.
    Conditions,
}

/// Runs the clients for the duration of the load.
pub(crate) async fn run(store: &Store, load: Load, tagging: Tagging) -> anyhow::Result<Run> {
    let mut dice = Dice::with_seed(u64::from(load.clients));
    let clients = (0..load.clients).map(|_| Client {
        store: store.clone(),
        load,
        tagging,
        dice: dice.split(),
    });
    let warm = try_join_all(clients.map(|client| tokio::spawn(client.warm_up()))).await?;
    let clients = warm.into_iter().collect::<anyhow::Result<Vec<Client>>>()?;
    let start = Instant::now();
    let tasks =
        clients.into_iter().map(|client| tokio::spawn(client.run_until(start + load.duration)));
    let mut counted = 0;
    let mut last = Duration::ZERO;
    for task in try_join_all(tasks).await? {
        let (appends, end) = task?;
        counted += appends;
        last = last.max(end - start);
    }
    let warm_up = WARM_UP_APPENDS * usize::try_from(load.clients)?;
    Ok(Run {
        appends: i64::from(counted) + i64::try_from(warm_up)?,
        appends_per_second: f64::from(counted) / last.as_secs_f64(),
    })
}

struct Client {
    store: Store,
    load: Load,
    tagging: Tagging,
    dice: Dice,
}

impl Client {
    async fn warm_up(mut self) -> anyhow::Result<Self> {
        for _ in 0..WARM_UP_APPENDS {
            self.append().await?;
        }
        Ok(self)
    }

    /// The number of answered appends, and the time of the last one.
    async fn run_until(mut self, end: Instant) -> anyhow::Result<(u32, Instant)> {
        let mut appends = 0;
        loop {
            self.append().await?;
            appends += 1;
            let now = Instant::now();
            if now >= end {
                return Ok((appends, now));
            }
        }
    }

    /// The whole work of an application: encoding included.
    async fn append(&mut self) -> anyhow::Result<()> {
        let stream = event::stream(self.dice.below(self.load.streams))?;
        let sequence = i64::try_from(self.dice.below(1_000_000))?;
        let events = (0..self.load.events).map(|_| new_event(sequence));
        let events = events.collect::<Result<Vec<_>, _>>()?;
        let append = match self.tagging {
            Tagging::None => Append::to(&stream, ExpectedVersion::Any, events),
            Tagging::Conditions => {
                let tags = self.tags()?;
                let tagged = |event| tags.iter().fold(event, annals_store::NewEvent::with_tag);
                let events = events.into_iter().map(tagged);
                let append = Append::to(&stream, ExpectedVersion::Any, events);
                let holds = |tag: &Tag| {
                    AppendCondition::no_event_with(tag.clone()).after(Position::new(i64::MAX))
                };
                tags.iter().fold(append, |append, tag| append.under(holds(tag)))
            }
        };
        self.store.append(&append).await?;
        Ok(())
    }

    fn tags(&mut self) -> anyhow::Result<[Tag; 2]> {
        let [sender, receiver] = [self.dice.below(TAGS), self.dice.below(TAGS)];
        Ok([Tag::new(format!("sender:{sender}"))?, Tag::new(format!("receiver:{receiver}"))?])
    }
}
