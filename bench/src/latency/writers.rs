//! Writers that append by the schedule, each as soon as it is free.

use std::sync::Arc;
use std::time::Instant;

use annals_store::{Append, EventSet, ExpectedVersion, Store};
use annals_testkit::Dice;
use anyhow::Context;
use futures_util::future::try_join_all;
use sqlx::PgPool;
use tokio::sync::Mutex;
use tokio::sync::mpsc::UnboundedReceiver;
use uuid::Uuid;

use super::pace::tickets;
use crate::event::{self, new_event, parcel_event};

/// A writer's times of one append.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) event_id: Uuid,
    /// Its scheduled time.
    pub(crate) intended: Instant,
    pub(crate) called: Instant,
    pub(crate) returned: Instant,
}

/// The target of the writes.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// The store.
    Store(Store),
    /// Debezium's table: one insert of a row.
    Table(PgPool),
}

impl Target {
    /// Appends an event to a stream, or inserts the same as a row; returns its id.
    async fn append(&self, number: usize) -> anyhow::Result<Uuid> {
        let (stream, sequence) = (event::stream(number)?, i64::try_from(number)?);
        match self {
            Self::Store(store) => {
                let event = new_event(sequence)?;
                let id = event.id().get();
                store.append(&Append::to(&stream, ExpectedVersion::Any, [event])).await?;
                Ok(id)
            }
            Self::Table(pool) => {
                let (id, event) = (Uuid::now_v7(), parcel_event(sequence).encode()?);
                sqlx::query(include_str!("../../sql/debezium_insert.sql"))
                    .bind(id)
                    .bind(stream.as_str())
                    .bind(event.event_type)
                    .bind(event.payload)
                    .execute(pool)
                    .await?;
                Ok(id)
            }
        }
    }
}

/// The number of writers, and their target.
#[derive(Debug)]
pub(crate) struct Writers {
    pub(crate) target: Target,
    pub(crate) count: u32,
    pub(crate) streams: usize,
}

/// The remaining scheduled times, shared by all writers.
type Tickets = Arc<Mutex<UnboundedReceiver<Instant>>>;

impl Writers {
    /// Appends a single event.
    pub(crate) async fn append_one(&self) -> anyhow::Result<()> {
        append(&self.target, 0, Instant::now()).await.map(drop)
    }

    /// Appends so many events, one each, at this rate per second. It does not wait for earlier
    /// answers as long as a writer is free; a late append counts from its scheduled time.
    pub(crate) async fn run(&self, rate: u32, count: u32) -> anyhow::Result<Vec<Sent>> {
        let (receiver, keeper) = tickets(rate, count);
        let tickets: Tickets = Arc::new(Mutex::new(receiver));
        let mut dice = Dice::with_seed(u64::from(count));
        let writers = (0..self.count).map(|_| {
            let (target, streams, dice) = (self.target.clone(), self.streams, dice.split());
            tokio::spawn(write(target, streams, dice, Arc::clone(&tickets)))
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
    target: Target,
    streams: usize,
    mut dice: Dice,
    tickets: Tickets,
) -> anyhow::Result<Vec<Sent>> {
    let mut all = Vec::new();
    loop {
        let ticket = tickets.lock().await.recv().await;
        let Some(intended) = ticket else { return Ok(all) };
        all.push(append(&target, dice.below(streams), intended).await?);
    }
}

async fn append(target: &Target, stream: usize, intended: Instant) -> anyhow::Result<Sent> {
    let called = Instant::now();
    let event_id = target.append(stream).await.context("append an event")?;
    Ok(Sent { event_id, intended, called, returned: Instant::now() })
}
