//! Reading: windows of the outbox become batches.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, Instant};

use annals_store::Store;
use annals_store::outbox::{Bound, LivePage, OutboxEvent, PositionPage, Window};
use futures_util::TryStreamExt;
use sqlx::PgConnection;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::batch::{Batch, Collector, Limits};
use crate::checkpoint::{Checkpoint, Cursors};
use crate::encode::Encoder;
use crate::failure::Failure;
use crate::sender::Committed;

/// A shard's checkpoint is written with the next batch when it is older than this, also if the batch
/// has nothing of the shard: otherwise a quiet shard would be read from far back after a restart.
const CHECKPOINT_AGE_MAX: Duration = Duration::from_secs(5);

/// Reads what the shards of a session have to publish, and hands it to the sender.
pub(crate) struct Reader<'a> {
    pub(crate) store: &'a Store,
    pub(crate) connection: &'a mut PgConnection,
    pub(crate) encoder: &'a mut Encoder,
    pub(crate) cursors: Cursors,
    pub(crate) limits: Limits,
    pub(crate) poll_idle_max: Duration,
    pub(crate) outgoing: Outgoing,
}

/// The way to the sender.
pub(crate) struct Outgoing {
    batches: mpsc::Sender<Batch>,
    committed: watch::Receiver<Committed>,
    sent: u64,
    /// When each shard's checkpoint was last written.
    written: BTreeMap<i16, Instant>,
    shutdown: CancellationToken,
}

impl Reader<'_> {
    /// Reads until it is told to stop. What was handed over by then is for the sender to finish.
    pub(crate) async fn run(&mut self) -> Result<(), Failure> {
        let mut pause = Duration::ZERO;
        while !self.outgoing.shutdown.is_cancelled() {
            if self.pass().await? > 0 {
                pause = Duration::ZERO;
                continue;
            }
            // Nothing new: back off to the idle interval, doubling from a millisecond.
            pause = (pause * 2).clamp(Duration::from_millis(1), self.poll_idle_max);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.outgoing.shutdown.cancelled() => {}
                () = self.outgoing.batches.closed() => return Err(Failure::SenderEnded),
            }
        }
        Ok(())
    }

    /// Publishes what became visible since the last pass; returns how many events that were.
    async fn pass(&mut self) -> Result<usize, Failure> {
        // Reading while a transaction is under way would fix the window too early: what commits in
        // the meantime would wait for the transaction after the next.
        self.outgoing.idle().await?;
        let (cluster, now) = self.store.outbox_bound(self.connection).await?;
        let mut events = 0;
        for (place, shards) in self.cursors.groups() {
            if place.cluster != cluster {
                return Err(Failure::Fork { published: place.cluster, found: cluster });
            }
            let until = place.until.clone().unwrap_or_else(|| now.clone());
            if until.snapshot != place.since.snapshot {
                events += self.publish(&place, &until, &shards).await?;
            }
            self.cursors.set(&shards, &place.done(&until));
        }
        Ok(events)
    }

    /// Publishes the rest of a window.
    async fn publish(
        &mut self,
        place: &Checkpoint,
        until: &Bound,
        shards: &[i16],
    ) -> Result<usize, Failure> {
        let window = Window { since: &place.since, until };
        let group = Group { place, until, shards };
        let mut collector = Collector::new(self.limits);
        let mut events = 0;
        if window.is_live() {
            let events_max = self.limits.events_max;
            let mut page = LivePage { after: place.after, events_max };
            let mut found = events_max.get();
            while found == events_max.get() {
                let rows = self.store.outbox_live(self.connection, window, shards, page);
                let of_page =
                    collect(rows, &group, &mut collector, self.encoder, &mut self.outgoing).await?;
                found = of_page.events;
                page.after = of_page.last;
                events += found;
            }
        } else {
            let start = self.store.outbox_window_start(self.connection, &place.since).await?;
            let mut after = start.max(place.after);
            let step = i64::try_from(self.limits.events_max.get()).unwrap_or(i64::MAX);
            while after < until.position {
                let page =
                    PositionPage { after, last: until.position.min(after.saturating_add(step)) };
                let rows = self.store.outbox_page(self.connection, window, shards, page);
                events += collect(rows, &group, &mut collector, self.encoder, &mut self.outgoing)
                    .await?
                    .events;
                after = page.last;
            }
        }
        if !collector.is_empty() {
            self.outgoing.send(&mut collector, shards, &place.done(until)).await?;
        }
        Ok(events)
    }
}

/// Shards at one place, and the end of the window that they publish.
struct Group<'a> {
    place: &'a Checkpoint,
    until: &'a Bound,
    shards: &'a [i16],
}

/// What came of a page.
#[derive(Debug, Default)]
struct Found {
    events: usize,
    /// The position of its last event.
    last: i64,
}

/// Takes rows into batches, and sends each batch that is full.
async fn collect(
    rows: impl futures_util::Stream<Item = Result<OutboxEvent, annals_store::Error>>,
    group: &Group<'_>,
    collector: &mut Collector,
    encoder: &mut Encoder,
    outgoing: &mut Outgoing,
) -> Result<Found, Failure> {
    let mut rows = pin!(rows);
    let mut found = Found::default();
    while let Some(event) = rows.try_next().await? {
        let (shard, position) = (event.shard, event.position);
        collector.push(shard, encoder.message(event).await?);
        found = Found { events: found.events + 1, last: position };
        if collector.is_full() {
            outgoing
                .send(collector, group.shards, &group.place.within(group.until, position))
                .await?;
        }
    }
    Ok(found)
}

impl Outgoing {
    pub(crate) fn new(
        batches: mpsc::Sender<Batch>,
        committed: watch::Receiver<Committed>,
        shutdown: CancellationToken,
    ) -> Self {
        Self { batches, committed, sent: 0, written: BTreeMap::new(), shutdown }
    }

    /// Hands a batch over, with the checkpoints of its shards and of those not written for a while.
    async fn send(
        &mut self,
        collector: &mut Collector,
        shards: &[i16],
        checkpoint: &Checkpoint,
    ) -> Result<(), Failure> {
        let now = Instant::now();
        let is_old = |shard: &i16| {
            self.written.get(shard).is_none_or(|written| now - *written >= CHECKPOINT_AGE_MAX)
        };
        let touched = collector.shards();
        let shards: Vec<i16> = shards
            .iter()
            .copied()
            .filter(|shard| touched.contains(shard) || is_old(shard))
            .collect();
        let batch = collector.take(&shards, checkpoint);
        self.written.extend(shards.iter().map(|shard| (*shard, now)));
        self.sent += 1;
        self.batches.send(batch).await.map_err(|_closed| Failure::SenderEnded)?;
        // The rest of the window is for the next session: the batch carries how far this one got.
        if self.shutdown.is_cancelled() { Err(Failure::Stopped) } else { Ok(()) }
    }

    /// Waits until the sender has committed everything that it was given.
    async fn idle(&mut self) -> Result<(), Failure> {
        let sent = self.sent;
        let done = self.committed.wait_for(|committed| committed.batches >= sent).await;
        done.map(drop).map_err(|_closed| Failure::SenderEnded)
    }
}
