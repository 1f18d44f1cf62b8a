//! Reading: what follows the places of some shards becomes a batch.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_relay_core::{Done, Page, Shard, Work};
use annals_store::Store;
use annals_store::outbox::{Bound, Cluster, LivePage, OutboxEvent, PositionPage, Window};
use futures_util::TryStreamExt;
use sqlx::{Connection, PgConnection};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::error::Elapsed;

use crate::batch::{Batch, Collector, Limits};
use crate::checkpoint::{Checkpoint, groups};
use crate::config::Config;
use crate::encode::Encoder;
use crate::failure::Failure;
use crate::leases::shard;
use crate::shell::{Report, Reports};

/// A shard's checkpoint is written with the next batch when it is older than this, also if the batch
/// has nothing of the shard: otherwise a quiet shard would be read from far back after a restart.
const CHECKPOINT_AGE_MAX: Duration = Duration::from_secs(5);
/// A page takes milliseconds; a connection that was cut without a word takes for ever.
const PAGE_DEADLINE: Duration = Duration::from_secs(30);

/// The way to the reader.
#[derive(Debug, Clone)]
pub(crate) struct Reads {
    jobs: mpsc::UnboundedSender<Job>,
    #[expect(dead_code, reason = "what counts is its end")]
    reader: Arc<Ended>,
}

/// Ends the reader in whatever it does.
#[derive(Debug)]
struct Ended(AbortHandle);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

enum Job {
    Page { reports: Reports, places: Vec<(Shard, Checkpoint)> },
    Cluster(oneshot::Sender<Result<Cluster, Failure>>),
}

impl Reads {
    /// Starts the reader, which has a connection of its own, and ends with the last clone of this.
    pub(crate) fn start(config: &Arc<Config>, store: &Store, encoder: Encoder) -> Self {
        let (jobs, received) = mpsc::unbounded_channel();
        let relay = &config.relay;
        let reader = Reader {
            store: store.clone(),
            encoder,
            limits: Limits { events_max: relay.batch_events_max, bytes_max: relay.batch_bytes_max },
            connection: None,
            written: BTreeMap::new(),
        };
        let reader = tokio::spawn(reader.run(received));
        Self { jobs, reader: Arc::new(Ended(reader.abort_handle())) }
    }

    /// Begins to read a page; it is reported.
    pub(crate) fn begin(&self, reports: Reports, places: Vec<(Shard, Checkpoint)>) {
        self.job(Job::Page { reports, places });
    }

    /// Where a shard without a checkpoint begins: before the first event of this history.
    pub(crate) async fn origin(self) -> Result<Checkpoint, Failure> {
        let (answer, asked) = oneshot::channel();
        self.job(Job::Cluster(answer));
        asked.await.unwrap_or(Err(Failure::Panicked("reader"))).map(Checkpoint::origin)
    }

    fn job(&self, job: Job) {
        if self.jobs.send(job).is_err() {
            tracing::error!("the reader is gone");
        }
    }
}

/// Reads pages, one after the other.
struct Reader {
    store: Store,
    encoder: Encoder,
    limits: Limits,
    connection: Option<PgConnection>,
    /// When each shard's checkpoint was last written.
    written: BTreeMap<i16, Instant>,
}

/// Shards that stand at one place, and the end of the window that they publish.
#[derive(Clone, Copy)]
struct Group<'a> {
    place: &'a Checkpoint,
    until: &'a Bound,
    shards: &'a [i16],
}

/// What has been read so far.
struct Reading {
    collector: Collector,
    more: bool,
}

impl Reader {
    async fn run(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        while let Some(job) = jobs.recv().await {
            match job {
                Job::Page { reports, places } => {
                    let page = tokio::time::timeout(PAGE_DEADLINE, self.page(places)).await;
                    let page = self.on_time("read a page of the outbox", page);
                    reports.send(match page {
                        Ok(page) => Report::Done(Done::Page(page)),
                        Err(failure) => Report::Failed { work: Work::Read, failure },
                    });
                }
                Job::Cluster(answer) => {
                    let bound = tokio::time::timeout(PAGE_DEADLINE, self.bound()).await;
                    let bound = self.on_time("ask in which history the database is", bound);
                    // Whoever asked may have ended.
                    drop(answer.send(bound.map(|(cluster, _)| cluster)));
                }
            }
        }
    }

    /// After a failure, the connection is not used again, and topics and schemas are looked at again.
    fn on_time<T>(
        &mut self,
        action: &'static str,
        done: Result<Result<T, Failure>, Elapsed>,
    ) -> Result<T, Failure> {
        let done = done.unwrap_or_else(|elapsed| Err(Failure::late(action, elapsed)));
        if done.is_err() {
            self.connection = None;
            self.encoder.forget();
        }
        done
    }

    /// What follows these places, up to the limits of a batch.
    async fn page(
        &mut self,
        places: Vec<(Shard, Checkpoint)>,
    ) -> Result<Page<Checkpoint, Batch>, Failure> {
        // Every page begins a window or asks again in which history it is.
        let (cluster, now) = self.bound().await?;
        let mut reading = Reading { collector: Collector::new(self.limits), more: false };
        let mut checkpoints = Vec::new();
        let groups = groups(places);
        for (before, (place, shards)) in groups.iter().enumerate() {
            // Those that are far behind leave room for the others.
            reading.collector.share(groups.len() - before);
            if place.cluster != cluster {
                return Err(Failure::Fork { published: place.cluster.clone(), found: cluster });
            }
            let until = place.until.as_ref().unwrap_or(&now);
            let after = self.group(&Group { place, until, shards }, &mut reading).await?;
            checkpoints.extend(shards.iter().map(|shard| (*shard, after.clone())));
        }
        let Reading { collector, more } = reading;
        let places = checkpoints.iter().map(|(n, place)| (shard(*n), place.clone())).collect();
        let batch = (!collector.is_empty()).then(|| self.batch(collector, checkpoints));
        Ok(Page { batch, places, more })
    }

    /// Reads a group's window, or as much of it as there is room for; where the group stands then.
    async fn group(
        &mut self,
        group: &Group<'_>,
        reading: &mut Reading,
    ) -> Result<Checkpoint, Failure> {
        let Group { place, until, .. } = *group;
        if until.snapshot == place.since.snapshot {
            return Ok(place.clone());
        }
        let window = Window { since: &place.since, until };
        if window.is_live() {
            self.live(group, window, reading).await
        } else {
            self.large(group, window, reading).await
        }
    }

    async fn live(
        &mut self,
        group: &Group<'_>,
        window: Window<'_>,
        reading: &mut Reading,
    ) -> Result<Checkpoint, Failure> {
        let Group { place, until, shards } = *group;
        let room = reading.collector.room();
        let Self { store, encoder, connection, .. } = self;
        let connection = connected(connection, store).await?;
        let page = LivePage { after: place.after, events_max: room };
        let rows = store.outbox_live(connection, window, shards, page);
        let read = collect(rows, encoder, &mut reading.collector).await?;
        // Fewer than there was room for: that was the window.
        if read.events < room.get() && !read.is_cut {
            return Ok(place.done(until));
        }
        reading.more = true;
        Ok(place.within(until, read.last.unwrap_or(place.after)))
    }

    async fn large(
        &mut self,
        group: &Group<'_>,
        window: Window<'_>,
        reading: &mut Reading,
    ) -> Result<Checkpoint, Failure> {
        let Group { place, until, shards } = *group;
        let Self { store, encoder, connection, .. } = self;
        let connection = connected(connection, store).await?;
        let mut after = place.after;
        if after == 0 {
            after = store.outbox_window_start(connection, &place.since).await?;
        }
        while after < until.position {
            let step = i64::try_from(reading.collector.room().get()).unwrap_or(i64::MAX);
            let last = until.position.min(after.saturating_add(step));
            let rows = store.outbox_page(connection, window, shards, PositionPage { after, last });
            let read = collect(rows, encoder, &mut reading.collector).await?;
            if reading.collector.is_full() {
                reading.more = true;
                let cut = read.last.filter(|_| read.is_cut);
                return Ok(place.within(until, cut.unwrap_or(last)));
            }
            after = last;
        }
        Ok(place.done(until))
    }

    /// A batch, with the checkpoints of the shards that it has events of, and of those not written for a while.
    fn batch(&mut self, collector: Collector, checkpoints: Vec<(i16, Checkpoint)>) -> Batch {
        let now = Instant::now();
        let is_due = |shard: &i16| {
            collector.shards().contains(shard)
                || self.written.get(shard).is_none_or(|at| now - *at >= CHECKPOINT_AGE_MAX)
        };
        let due: Vec<(i16, Checkpoint)> =
            checkpoints.into_iter().filter(|(shard, _)| is_due(shard)).collect();
        self.written.extend(due.iter().map(|(shard, _)| (*shard, now)));
        collector.into_batch(due)
    }

    async fn bound(&mut self) -> Result<(Cluster, Bound), Failure> {
        let Self { store, connection, .. } = self;
        let connection = connected(connection, store).await?;
        Ok(store.outbox_bound(connection).await?)
    }
}

/// The reader's connection: beside the pool, since rows may be on their way when it is given up.
async fn connected<'a>(
    connection: &'a mut Option<PgConnection>,
    store: &Store,
) -> Result<&'a mut PgConnection, Failure> {
    if connection.is_none() {
        let options = store.pool().connect_options();
        let connected = PgConnection::connect_with(&options).await;
        *connection = Some(connected.map_err(Failure::database("connect"))?);
    }
    connection.as_mut().ok_or(Failure::Panicked("reader"))
}

/// What came of reading rows.
struct Read {
    events: usize,
    /// The position of the last one.
    last: Option<i64>,
    /// Whether rows were left when the batch was full.
    is_cut: bool,
}

/// Takes rows until the batch is full.
async fn collect(
    rows: impl futures_util::Stream<Item = Result<OutboxEvent, annals_store::Error>>,
    encoder: &mut Encoder,
    collector: &mut Collector,
) -> Result<Read, Failure> {
    let mut rows = pin!(rows);
    let mut read = Read { events: 0, last: None, is_cut: false };
    while let Some(event) = rows.try_next().await? {
        if collector.is_full() {
            read.is_cut = true;
            break;
        }
        let (shard, position) = (event.shard, event.position);
        collector.push(shard, encoder.message(event).await?);
        read.events += 1;
        read.last = Some(position);
    }
    Ok(read)
}
