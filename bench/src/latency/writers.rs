//! Writers that append what the schedule wants, as soon as one of them is free.

use std::sync::Arc;
use std::time::Instant;

use annals_store::{Append, ExpectedVersion, Store};
use annals_testkit::Dice;
use anyhow::Context;
use futures_util::future::try_join_all;
use tokio::sync::Mutex;
use tokio::sync::mpsc::UnboundedReceiver;
use uuid::Uuid;

use super::pace::tickets;
use crate::event::{self, new_event};

/// What a writer noted of one append.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) event_id: Uuid,
    /// When the schedule wanted it.
    pub(crate) intended: Instant,
    pub(crate) called: Instant,
    pub(crate) returned: Instant,
}

/// How many writers, on what.
#[derive(Debug)]
pub(crate) struct Writers {
    pub(crate) store: Store,
    pub(crate) count: u32,
    pub(crate) streams: usize,
}

/// The moments still to come, shared by all writers.
type Tickets = Arc<Mutex<UnboundedReceiver<Instant>>>;

impl Writers {
    /// Appends a single event.
    pub(crate) async fn append_one(&self) -> anyhow::Result<()> {
        append(&self.store, 0, Instant::now()).await.map(drop)
    }

    /// Appends so many events, one each, at this rate a second: also while earlier ones are not answered,
    /// as far as there are writers; what comes too late for that still counts from when it was wanted.
    pub(crate) async fn run(&self, rate: u32, count: u32) -> anyhow::Result<Vec<Sent>> {
        let (receiver, keeper) = tickets(rate, count);
        let tickets: Tickets = Arc::new(Mutex::new(receiver));
        let mut dice = Dice::with_seed(u64::from(count));
        let writers = (0..self.count).map(|_| {
            let (store, streams, dice) = (self.store.clone(), self.streams, dice.split());
            tokio::spawn(write(store, streams, dice, Arc::clone(&tickets)))
        });
        let mut all = Vec::new();
        for sent in try_join_all(writers).await? {
            all.extend(sent?);
        }
        let kept = tokio::task::spawn_blocking(|| keeper.join()).await?;
        kept.map_err(|_panic| anyhow::anyhow!("the schedule's thread panicked"))?;
        anyhow::ensure!(
            all.len() == usize::try_from(count)?,
            "{} of {count} events were appended",
            all.len()
        );
        Ok(all)
    }
}

async fn write(
    store: Store,
    streams: usize,
    mut dice: Dice,
    tickets: Tickets,
) -> anyhow::Result<Vec<Sent>> {
    let mut all = Vec::new();
    loop {
        let ticket = tickets.lock().await.recv().await;
        let Some(intended) = ticket else { return Ok(all) };
        all.push(append(&store, dice.below(streams), intended).await?);
    }
}

async fn append(store: &Store, stream: usize, intended: Instant) -> anyhow::Result<Sent> {
    let called = Instant::now();
    let event = new_event(i64::try_from(stream)?)?;
    let event_id = event.id().get();
    let append = Append::to(&event::stream(stream)?, ExpectedVersion::Any, [event]);
    store.append(&append).await.context("append an event")?;
    Ok(Sent { event_id, intended, called, returned: Instant::now() })
}
