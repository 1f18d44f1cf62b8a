//! Reading: what follows the places of some shards becomes a batch.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_relay_core::{Done, Page, Shard, Work};
use annals_store::Store;
use annals_store::outbox::{
    Bound, Late, LivePage, LogEnd, OutboxEvent, OutboxRow, PositionPage, Stretch, Window,
};
use futures_util::TryStreamExt;
use sqlx::{Connection, PgConnection, Row};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::error::Elapsed;

use crate::batch::{Batch, Collector, Limits};
use crate::checkpoint::{LastEvent, Place, Progress};
use crate::config::{Config, Durability};
use crate::encode::{Encoder, Obstacle};
use crate::failure::{Component, Failure};
use crate::holds::{Holds, Kind, Refusal, ShardPlace, groups};
use crate::leases::{number, shard};
use crate::message::Message;
use crate::passed::Passed;
use crate::shell::{Report, Reports};

/// A shard's checkpoint is written with the next batch when it is older than this, also if the batch
/// has nothing of the shard: otherwise a quiet shard would be read from far back after a restart.
const CHECKPOINT_AGE_MAX: Duration = Duration::from_secs(5);
/// A page takes milliseconds; a connection that was cut without a word takes for ever.
const PAGE_DEADLINE: Duration = Duration::from_secs(30);
/// So long a page waits for topics and asks for schemas, at most: then it ends with what it has, and the next one goes on.
const PREPARING_MAX: Duration = Duration::from_secs(10);

/// A page that has found nothing for so long ends, and is gone on with: what it passed stays passed.
const PAGE_TIME_MAX: Duration = Duration::from_secs(2);
/// Most positions that are looked through in one statement, where few of them have events for a page.
const STEP_MAX: i64 = 1 << 20;

/// How long a standby may take to have something before the relay says that it waits for it.
const STANDBY_DEADLINE: Duration = Duration::from_secs(5);
const STANDBY_PAUSE_MIN: Duration = Duration::from_millis(1);
const STANDBY_PAUSE_MAX: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
#[error("the relay's user may not know: grant pg_read_all_stats to it")]
struct StandbyUnknown;

#[derive(Debug, thiserror::Error)]
#[error("no standby has on its disk what is committed: see pg_stat_replication")]
struct StandbyBehind;

/// What people ask for is looked up so often, where it was not heard of.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

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
    Page { reports: Reports, places: Vec<(Shard, ShardPlace)> },
    End(oneshot::Sender<Result<LogEnd, Failure>>),
    Look,
    Forget,
    Noted(Progress),
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
            publication: config.publication(),
            durability: relay.durability,
            asked: Asked::default(),
            passed: Passed::new(store, &config.publication()),
            late: HashMap::new(),
            seen: None,
            noted: HashMap::new(),
            tried: HashMap::new(),
            ready: HashSet::new(),
        };
        let (topics, weak) = (reader.encoder.topics(), jobs.downgrade());
        let watch = topics.watch(move || {
            if let Some(jobs) = weak.upgrade() {
                // The reader may have ended.
                drop(jobs.send(Job::Forget));
            }
        });
        let reader = tokio::spawn(async move {
            tokio::select! { () = reader.run(received) => {} () = watch => {} }
        });
        Self { jobs, reader: Arc::new(Ended(reader.abort_handle())) }
    }

    /// Begins to read a page; it is reported.
    pub(crate) fn begin(&self, reports: Reports, places: Vec<(Shard, ShardPlace)>) {
        self.job(Job::Page { reports, places });
    }

    /// Where the log ends, and in which history.
    pub(crate) async fn end_of_log(self) -> Result<LogEnd, Failure> {
        let (answer, asked) = oneshot::channel();
        self.job(Job::End(answer));
        asked.await.unwrap_or(Err(Failure::Panicked("reader")))
    }

    /// Looks at what people have asked for before the next page is read.
    pub(crate) fn look(&self) {
        self.job(Job::Look);
    }

    /// Topics and schemas are looked at again.
    pub(crate) fn forget(&self) {
        self.job(Job::Forget);
    }

    /// PostgreSQL knows that a hold got so far, or has ended.
    pub(crate) fn noted(&self, progress: Progress) {
        self.job(Job::Noted(progress));
    }

    fn job(&self, job: Job) {
        if self.jobs.send(job).is_err() {
            tracing::error!(event = "reader_ended", "the reader is gone");
        }
    }
}

/// Reads pages, one after the other.
pub(crate) struct Reader {
    store: Store,
    pub(crate) encoder: Encoder,
    limits: Limits,
    connection: Option<PgConnection>,
    /// When each shard's checkpoint was last written.
    written: BTreeMap<i16, Instant>,
    publication: String,
    durability: Durability,
    pub(crate) asked: Asked,
    /// Events not to publish.
    pub(crate) passed: Passed,
    /// The late events of windows, by both ends: of a page that failed, the next one has the same begin and a later end, by which
    /// more of them have become visible.
    late: HashMap<(Bound, Bound), Option<Late>>,
    /// The end of the log when it was last read.
    seen: Option<LogEnd>,
    /// How far PostgreSQL knows that holds got.
    noted: HashMap<i64, Option<Place>>,
    /// When the topic of a held category was last looked at.
    pub(crate) tried: HashMap<String, Instant>,
    /// Holds of categories whose topics can be written to.
    pub(crate) ready: HashSet<i64>,
}

/// What people have asked for, as it was last looked up.
#[derive(Default)]
pub(crate) struct Asked {
    looked: Option<Instant>,
    /// Holds to try again.
    pub(crate) wanted: HashSet<i64>,
}

/// Shards that stand at one place, and the end of the window that they publish.
#[derive(Clone, Copy)]
struct Group<'a> {
    place: &'a Place,
    until: &'a Bound,
    shards: &'a [i16],
    sieve: &'a Sieve,
}

/// What has been read so far.
pub(crate) struct Reading {
    pub(crate) collector: Collector,
    pub(crate) more: bool,
    pub(crate) refused: Refused,
    /// The last event of each shard.
    pub(crate) last: HashMap<i16, LastEvent>,
    /// When the page has to end, with what it has.
    pub(crate) ends_at: Instant,
    /// No topic is waited for and no schema asked for beyond this time.
    pub(crate) prepare_until: Instant,
    /// Whether something has to wait for its topic or its schema.
    pub(crate) waits: bool,
}

impl Reading {
    fn new(limits: Limits) -> Self {
        let (collector, refused) = (Collector::new(limits), Refused::default());
        let began = Instant::now();
        Self {
            collector,
            more: false,
            refused,
            last: HashMap::new(),
            ends_at: began + PAGE_TIME_MAX,
            prepare_until: began + PREPARING_MAX,
            waits: false,
        }
    }

    /// Whether the page takes nothing more.
    fn is_over(&self) -> bool {
        self.collector.is_full() || Instant::now() >= self.ends_at
    }

    fn take(&mut self, event: &OutboxEvent<'_>, message: Message) {
        let last = LastEvent { position: event.position, event_id: event.event_id };
        let known = self.last.entry(event.shard).or_insert(last);
        if known.position < last.position {
            *known = last;
        }
        self.collector.push(event.shard, message);
    }
}

/// Which events of the log are left out: their streams or categories are in quarantine.
pub(crate) struct Sieve {
    holds: BTreeMap<i16, Holds>,
}

impl Sieve {
    fn new(shards: &[ShardPlace]) -> Self {
        let holds = shards.iter().filter(|shard| !shard.holds.is_empty());
        Self { holds: holds.map(|shard| (shard.shard(), shard.holds.clone())).collect() }
    }

    fn leaves_out(&self, event: &OutboxEvent<'_>) -> bool {
        let is_held = |holds: &Holds| holds.holds(event.category, event.stream);
        self.holds.get(&event.shard).is_some_and(is_held)
    }
}

/// What a page could not take, each thing once.
#[derive(Default)]
pub(crate) struct Refused {
    refusals: Vec<Refusal>,
    names: HashSet<(Kind, String)>,
}

impl Refused {
    fn push(&mut self, refusal: Refusal) {
        if self.names.insert((refusal.kind, refusal.name.clone())) {
            self.refusals.push(refusal);
        }
    }

    /// Whether something that was refused keeps this event waiting.
    fn has(&self, event: &OutboxEvent<'_>) -> bool {
        !self.names.is_empty()
            && (self.names.contains(&(Kind::Category, event.category.to_owned()))
                || self.names.contains(&(Kind::Stream, event.stream.to_owned())))
    }
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
                Job::End(answer) => {
                    let end = tokio::time::timeout(PAGE_DEADLINE, self.end_of_log()).await;
                    // The one who asked may have ended.
                    drop(answer.send(self.on_time("ask where the log ends", end)));
                }
                Job::Look => self.asked.looked = None,
                Job::Forget => self.encoder.forget(),
                Job::Noted(Progress { hold, place }) => drop(self.noted.insert(hold, place)),
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
        let Err(failure) = &done else { return done };
        self.connection = None;
        match failure {
            // Of the rest it is known that it can be published.
            Failure::Held(_) | Failure::Outage { of: Component::Registry, .. } => {
                self.encoder.forget_refusals();
            }
            _ => self.encoder.forget(),
        }
        self.ready.clear();
        done
    }

    /// What follows these places, up to the limits of a batch.
    async fn page(
        &mut self,
        places: Vec<(Shard, ShardPlace)>,
    ) -> Result<Page<ShardPlace, Batch>, Failure> {
        if let Some(over) = self.encoder.topics().over() {
            return Err(over);
        }
        let mut shards: Vec<ShardPlace> = places.into_iter().map(|(_, place)| place).collect();
        // Every page begins a window or asks again in which history it is.
        let end = self.end_of_log().await?;
        if shards.iter().any(|shard| shard.known.incarnation != end.incarnation) {
            return Err(Failure::Moved);
        }
        let now = end.bound;
        let is_news = |shard: &ShardPlace| !shard.place.since.shows_the_same(&now);
        if self.durability == Durability::Standby && shards.iter().any(is_news) {
            self.on_standby().await?;
        }
        self.look(&mut shards).await?;
        let mut reading = Reading::new(self.limits);
        self.held(&mut shards, &mut reading).await?;
        let sieve = Sieve::new(&shards);
        let groups = groups(&shards);
        let is_inside = |(since, until): &(Bound, Bound)| {
            let is_of =
                |place: &Place| place.since == *since && place.until.as_ref() == Some(until);
            groups.iter().any(|(place, _)| is_of(place))
        };
        self.late.retain(|window, _| is_inside(window));
        for (before, (place, numbers)) in groups.iter().enumerate() {
            // Those that are far behind leave room for the others.
            reading.collector.share(groups.len() - before);
            let until = place.until.as_ref().unwrap_or(&now);
            let group = Group { place, until, shards: numbers, sieve: &sieve };
            let after = self.group(&group, &mut reading).await?;
            for shard in shards.iter_mut().filter(|shard| numbers.contains(&shard.shard())) {
                shard.place = after.clone();
            }
        }
        let Reading { collector, more, refused, last, .. } = reading;
        if !refused.refusals.is_empty() {
            return Err(Failure::Held(refused.refusals));
        }
        for shard in &mut shards {
            shard.last = last.get(&shard.shard()).copied().or(shard.last);
        }
        let batch = (!collector.is_empty()).then(|| self.batch(collector, &shards));
        let places = shards.into_iter().map(|place| (shard(place.shard()), place)).collect();
        Ok(Page { batch, places, more })
    }

    /// Waits until a standby has everything that is written by now.
    async fn on_standby(&mut self) -> Result<(), Failure> {
        let action = "ask what standbys have";
        let began = Instant::now();
        let mut place: Option<String> = None;
        let mut pause = STANDBY_PAUSE_MIN;
        loop {
            let Parts { store, connection, .. } = self.parts().await?;
            let statement = store.schema().statement(include_str!("../sql/on_standby.sql"));
            let row = sqlx::query(statement).bind(place.take()).fetch_one(connection).await;
            let row = row.map_err(Failure::database(action))?;
            if row.try_get("is_there").map_err(Failure::database(action))? {
                return Ok(());
            }
            if !row.try_get("may_know").map_err(Failure::database(action))? {
                return Err(Failure::outage(Component::Standby, action, StandbyUnknown));
            }
            if began.elapsed() >= STANDBY_DEADLINE {
                return Err(Failure::outage(Component::Standby, action, StandbyBehind));
            }
            place = Some(row.try_get("lsn").map_err(Failure::database(action))?);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(STANDBY_PAUSE_MAX);
        }
    }

    /// Learns what people ask for, if that is due, and forgets of holds what PostgreSQL knows.
    async fn look(&mut self, shards: &mut [ShardPlace]) -> Result<(), Failure> {
        for shard in shards.iter_mut() {
            shard.holds.note(&self.noted);
        }
        let has_holds = shards.iter().any(|shard| !shard.holds.is_empty());
        if !has_holds {
            self.noted.clear();
        }
        let is_due = match self.asked.looked {
            None => true,
            Some(looked) => has_holds && looked.elapsed() >= LOOK_INTERVAL,
        };
        if is_due {
            self.asked = self.ask().await?;
        }
        Ok(())
    }

    async fn ask(&mut self) -> Result<Asked, Failure> {
        let publication = self.publication.clone();
        let Parts { store, connection, .. } = self.parts().await?;
        let wanted = store.schema().statement(include_str!("../sql/holds_wanted.sql"));
        let wanted: Vec<i64> = sqlx::query_scalar(wanted)
            .bind(&publication)
            .fetch_all(&mut *connection)
            .await
            .map_err(Failure::database("look what is asked for"))?;
        self.passed.forget();
        Ok(Asked { looked: Some(Instant::now()), wanted: wanted.into_iter().collect() })
    }

    /// Reads a group's window, or as much of it as there is room for; where the group stands then.
    async fn group(&mut self, group: &Group<'_>, reading: &mut Reading) -> Result<Place, Failure> {
        let Group { place, until, .. } = *group;
        if place.until.is_none() && until.shows_the_same(&place.since) {
            return Ok(place.clone());
        }
        let window = Window { since: &place.since, until };
        let late = self.late(window).await?;
        let (mut after, mut step) = (place.after, 0);
        loop {
            let stretch = window.stretch(late, after);
            if stretch == Stretch::Done {
                return Ok(Place::done(until));
            }
            let room = i64::try_from(reading.collector.room().get()).unwrap_or(i64::MAX);
            step = room.max(step);
            let (read, end) = self.stretch(group, stretch, step, reading).await?;
            after = match read.last {
                Some(last) if read.is_cut || end < last => last,
                None if read.is_cut => after,
                Some(_) | None => end,
            };
            if read.is_cut || reading.is_over() {
                break;
            }
            // Where few positions have anything for the page, more of them are looked through at once.
            step = if read.events == 0 { step.saturating_mul(4).min(STEP_MAX) } else { room };
        }
        if window.stretch(late, after) == Stretch::Done {
            return Ok(Place::done(until));
        }
        reading.more = true;
        Ok(place.within(until, after))
    }

    /// Reads a page of a stretch of a group's window, and says up to which position that is, unless it was cut.
    async fn stretch(
        &mut self,
        group: &Group<'_>,
        stretch: Stretch,
        step: i64,
        reading: &mut Reading,
    ) -> Result<(Read, i64), Failure> {
        let Group { place, until, shards, sieve } = *group;
        let window = Window { since: &place.since, until };
        let events_max = reading.collector.room();
        let Parts { store, encoder, connection, passed } = self.parts().await?;
        let is_left_out = |event: &OutboxEvent<'_>| sieve.leaves_out(event);
        match stretch {
            Stretch::Late { after } => {
                let page = LivePage { after, events_max };
                let rows = store.outbox_late_page(connection, window, shards, page);
                let read = collect(rows, encoder, passed, reading, is_left_out).await?;
                // Fewer than there was room for: these were all.
                let is_all = read.events < events_max.get();
                let end = if is_all { place.since.position } else { after };
                Ok((read, end))
            }
            Stretch::Positions(PositionPage { after, last }) => {
                let last = last.min(after.saturating_add(step));
                let page = PositionPage { after, last };
                let rows = store.outbox_page(connection, window, shards, page);
                Ok((collect(rows, encoder, passed, reading, is_left_out).await?, last))
            }
            Stretch::Done => Ok((Read { events: 0, last: None, is_cut: false }, until.position)),
        }
    }

    /// The late events of a window.
    pub(crate) async fn late(&mut self, window: Window<'_>) -> Result<Option<Late>, Failure> {
        let Window { since, until } = window;
        let key = (since.clone(), until.clone());
        if let Some(late) = self.late.get(&key) {
            return Ok(*late);
        }
        let Parts { store, connection, .. } = self.parts().await?;
        let late = store.outbox_late(connection, since).await?;
        self.late.insert(key, late);
        Ok(late)
    }

    /// A batch, with the checkpoints of the shards that it has events of, and of those not written for a while.
    fn batch(&mut self, collector: Collector, shards: &[ShardPlace]) -> Batch {
        let now = Instant::now();
        let is_due = |shard: &i16| {
            collector.shards().contains(shard)
                || self.written.get(shard).is_none_or(|at| now - *at >= CHECKPOINT_AGE_MAX)
        };
        let due = shards.iter().filter(|shard| is_due(&shard.shard()));
        let due: Vec<_> = due.map(|shard| (shard.lease, shard.checkpoint())).collect();
        let incarnation = shards.first().map(|shard| Arc::clone(&shard.known.incarnation));
        self.written.extend(due.iter().map(|(lease, _)| (number(lease.shard), now)));
        collector.into_batch(due, incarnation.unwrap_or_default())
    }

    /// What a page is read with.
    pub(crate) async fn parts(&mut self) -> Result<Parts<'_>, Failure> {
        let Self { store, encoder, connection, passed, .. } = self;
        let connection = connected(connection, store).await?;
        Ok(Parts { store, encoder, connection, passed })
    }

    async fn end_of_log(&mut self) -> Result<LogEnd, Failure> {
        let Parts { store, connection, .. } = self.parts().await?;
        let end = store.outbox_bound(connection).await?;
        let seen = self.seen.replace(end.clone());
        // Also where it says that it is the same: an image of a machine that runs, for instance.
        if seen.is_some_and(|seen| {
            seen.incarnation == end.incarnation && end.bound.is_behind(&seen.bound)
        }) {
            return Err(Failure::Moved);
        }
        Ok(end)
    }
}

/// What a page is read with.
pub(crate) struct Parts<'a> {
    pub(crate) store: &'a Store,
    pub(crate) encoder: &'a mut Encoder,
    pub(crate) connection: &'a mut PgConnection,
    pub(crate) passed: &'a mut Passed,
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
pub(crate) struct Read {
    /// Those that were left out are counted, too.
    pub(crate) events: usize,
    /// The position of the last one.
    pub(crate) last: Option<i64>,
    /// Whether rows were left: the batch was full, or something has to wait.
    pub(crate) is_cut: bool,
}

/// Takes rows until the batch is full, or one has to wait for its topic or its schema. Of what comes behind that one it
/// learns what to wait for as well, so that all of it is made ready together.
pub(crate) async fn collect(
    rows: impl futures_util::Stream<Item = Result<OutboxRow, annals_store::Error>>,
    encoder: &mut Encoder,
    passed: &mut Passed,
    reading: &mut Reading,
    is_left_out: impl Fn(&OutboxEvent<'_>) -> bool,
) -> Result<Read, Failure> {
    let mut read = Read { events: 0, last: None, is_cut: false };
    {
        let mut rows = pin!(rows);
        while let Some(row) = rows.try_next().await? {
            let event = row.event()?;
            if read.is_cut && is_left_out(&event) {
                continue;
            }
            if read.is_cut {
                encoder.want(event.category);
                continue;
            }
            if reading.collector.is_full() {
                read.is_cut = true;
                break;
            }
            let is_passed = is_left_out(&event)
                || reading.refused.has(&event)
                || passed.contains(event.position).await?;
            let taken = if is_passed { Taken::Yes } else { take(&event, encoder, reading).await? };
            match taken {
                Taken::Yes => {
                    read.events += 1;
                    read.last = Some(event.position);
                }
                Taken::Later => {
                    read.is_cut = true;
                    reading.waits = true;
                }
            }
        }
    }
    // What is there already is published first.
    let is_empty = reading.collector.is_empty();
    encoder.prepare(if is_empty { reading.prepare_until } else { Instant::now() }).await?;
    Ok(read)
}

/// Whether an event is done with.
enum Taken {
    Yes,
    Later,
}

async fn take(
    event: &OutboxEvent<'_>,
    encoder: &mut Encoder,
    reading: &mut Reading,
) -> Result<Taken, Failure> {
    match encoder.message(event, reading.prepare_until).await {
        Ok(message) => reading.take(event, message),
        Err(Obstacle::Refused(refusal)) => reading.refused.push(refusal),
        Err(Obstacle::Later) => return Ok(Taken::Later),
        Err(Obstacle::Failed(failure)) => return Err(failure),
    }
    Ok(Taken::Yes)
}
