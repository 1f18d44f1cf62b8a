//! The reader: a task with a connection of its own that reads pages of the outbox, one after the
//! other.

use crate::model::checkpoint::EntryId;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use annals_relay_machine::{Completion, FailureClass, Operation, Shard};
use annals_store::Store;
use annals_store::outbox::{Bound, LateEvents, LogEnd, Window};
use sqlx::{Connection, PgConnection};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::error::Elapsed;

use crate::config::{Config, Durability};
use crate::model::batch::Limits;
use crate::model::checkpoint::{Cursor, EntryProgress};
use crate::model::quarantine::ShardCursor;
use crate::publish::encoder::Encoder;
use crate::publish::operator_requests::OperatorRequests;
use crate::publish::rows::{RowsLeft, RowsRead};
use crate::publish::step_limit::StepLimit;
use crate::report::failure::{Component, Failure};
use crate::report::kafka_failure::KafkaFailure;
use crate::report::threads::locked;
use crate::report::{Report, Reporter};
use crate::state::SkippedEvents;
use crate::telemetry::metrics::metrics;

/// A page takes milliseconds; on a connection that was cut without a reset it would take for ever.
const PAGE_DEADLINE: Duration = Duration::from_secs(30);
/// The most bytes of rows left by a full page that are received in vain.
const LEFT_BYTES_MAX: usize = 4 << 20;
/// Readings of checkpoints that ask for the end of the log at once; further ones wait.
const END_REQUESTS_MAX: usize = 8;

/// Requests to the reader. It ends with the last clone.
#[derive(Debug, Clone)]
pub(crate) struct ReaderHandle {
    inbox: Arc<Inbox>,
    ends: mpsc::Sender<EndRequest>,
    #[expect(dead_code, reason = "dropping it ends the reader")]
    reader: Arc<JoinSet<()>>,
}

type EndRequest = oneshot::Sender<Result<LogEnd, Failure>>;

/// The requests to the reader. The driver never waits for the reader: a request replaces an
/// earlier one of its kind.
#[derive(Debug, Default)]
struct Inbox {
    pending: Mutex<PendingRequests>,
    changed: Notify,
}

#[derive(Default)]
struct PendingRequests {
    /// A page of a later generation of producers replaces one that was not begun: its answer would
    /// be ignored.
    page: Option<(Reporter, Vec<(Shard, ShardCursor)>)>,
    forgets_requests: bool,
    forgets_topics: bool,
    forgotten_topics: BTreeSet<String>,
    /// Whether partitions without a leader or replicas are looked for.
    suspects_topics: bool,
    /// Categories whose topics Kafka has refused when their records were sent.
    refused_topics: Vec<(String, KafkaFailure)>,
    /// The present size of transactions.
    limits: Option<Limits>,
    /// The entries that PostgreSQL has recorded, with their cursors; none for an ended one.
    recorded: HashMap<EntryId, Option<Cursor>>,
}

impl std::fmt::Debug for PendingRequests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingRequests")
            .field("has_page", &self.page.is_some())
            .finish_non_exhaustive()
    }
}

impl Inbox {
    fn change(&self, change: impl FnOnce(&mut PendingRequests)) {
        change(&mut locked(&self.pending));
        self.changed.notify_one();
    }
}

impl ReaderHandle {
    /// Starts the reader.
    pub(crate) fn start(config: &Arc<Config>, store: &Store, encoder: Encoder) -> Self {
        let (inbox, (ends, received)) = (Arc::<Inbox>::default(), mpsc::channel(END_REQUESTS_MAX));
        let relay = &config.relay;
        let reader = Reader {
            store: store.clone(),
            encoder,
            limits: Limits { events_max: relay.batch_events_max, bytes_max: relay.batch_bytes_max },
            connection: None,
            written: BTreeMap::new(),
            publication: config.publication(),
            durability: relay.durability,
            standbys: relay.standbys.clone().into(),
            requests: OperatorRequests::default(),
            skipped: SkippedEvents::new(store, &config.publication()),
            late: HashMap::new(),
            seen: None,
            event_bytes: 0,
            steps: StepLimit::default(),
            recorded: HashMap::new(),
            checked: HashMap::new(),
            registry_checked: None,
            ready: HashSet::new(),
            without_id: HashSet::new(),
        };
        let changed = Arc::clone(&inbox);
        let watch = reader.encoder.topics().watch(move || {
            changed.change(|pending| pending.forgets_topics = true);
        });
        let of = Arc::clone(&inbox);
        let mut task = JoinSet::new();
        task.spawn(async move {
            tokio::select! { () = reader.run(&of, received) => {} () = watch => {} }
        });
        Self { inbox, ends, reader: Arc::new(task) }
    }

    /// Begins to read a page; it is reported.
    pub(crate) fn begin_page(&self, reporter: Reporter, cursors: Vec<(Shard, ShardCursor)>) {
        self.inbox.change(|pending| pending.page = Some((reporter, cursors)));
    }

    /// Reads the end of the log, and its history.
    pub(crate) async fn end_of_log(self) -> Result<LogEnd, Failure> {
        let (answer, answered) = oneshot::channel();
        self.ends.send(answer).await.map_err(|_ended| Failure::Panicked("reader"))?;
        answered.await.unwrap_or(Err(Failure::Panicked("reader")))
    }

    /// Has the requests of operators read before the next page.
    pub(crate) fn forget_requests(&self) {
        self.inbox.change(|pending| pending.forgets_requests = true);
    }

    /// Has topics and schemas looked up again before the next page.
    pub(crate) fn forget_topics(&self) {
        self.inbox.change(|pending| pending.forgets_topics = true);
    }

    /// Has the topics and schemas of some categories looked up again before the next page.
    pub(crate) fn forget_some_topics(&self, categories: impl Iterator<Item = String>) {
        self.inbox.change(|pending| pending.forgotten_topics.extend(categories));
    }

    /// Has the next pages limited to another size.
    pub(crate) fn limit(&self, limits: Limits) {
        self.inbox.change(|pending| pending.limits = Some(limits));
    }

    /// Has categories left out whose topics cannot be written to at the moment.
    pub(crate) fn suspect_topics(&self) {
        self.inbox.change(|pending| pending.suspects_topics = true);
    }

    /// Has a category left out whose topic Kafka has refused.
    pub(crate) fn refuse_topic(&self, category: String, refusal: KafkaFailure) {
        self.inbox.change(|pending| pending.refused_topics.push((category, refusal)));
    }

    /// PostgreSQL has recorded the progress of a quarantine entry.
    pub(crate) fn quarantine_recorded(&self, EntryProgress { entry, cursor }: EntryProgress) {
        self.inbox.change(|pending| drop(pending.recorded.insert(entry, cursor)));
    }
}

/// Reads pages, one after the other.
pub(crate) struct Reader {
    pub(super) store: Store,
    pub(super) encoder: Encoder,
    pub(super) limits: Limits,
    connection: Option<PgConnection>,
    /// When the checkpoint of each shard was last written.
    pub(super) written: BTreeMap<i16, Instant>,
    pub(super) publication: String,
    pub(super) durability: Durability,
    /// The names of the standbys that count for the durability.
    pub(super) standbys: Arc<[String]>,
    pub(super) requests: OperatorRequests,
    pub(super) skipped: SkippedEvents,
    /// The late events of windows, by both ends: the page after a failed one has the same begin and
    /// a later end, by which more events have become visible.
    pub(super) late: HashMap<(Bound, Bound), Option<LateEvents>>,
    /// The end of the log when it was last read.
    seen: Option<LogEnd>,
    /// The size of the events that were last read.
    pub(super) event_bytes: usize,
    pub(super) steps: StepLimit,
    /// The quarantine entries that PostgreSQL has recorded.
    pub(super) recorded: HashMap<EntryId, Option<Cursor>>,
    /// When a quarantined category was last checked.
    pub(super) checked: HashMap<String, Instant>,
    /// When the registry was last asked for the schemas of quarantined categories.
    pub(super) registry_checked: Option<Instant>,
    /// The entries of categories that can be published now.
    pub(super) ready: HashSet<EntryId>,
    /// The entries of categories whose next event has no schema id.
    pub(super) without_id: HashSet<EntryId>,
}

/// The parts of the reader that reading rows needs.
pub(crate) struct ReaderParts<'a> {
    pub(crate) store: &'a Store,
    pub(crate) encoder: &'a mut Encoder,
    pub(crate) connection: &'a mut PgConnection,
    pub(crate) skipped: &'a mut SkippedEvents,
}

impl Reader {
    async fn run(mut self, inbox: &Inbox, mut ends: mpsc::Receiver<EndRequest>) {
        loop {
            tokio::select! {
                biased;
                Some(answer) = ends.recv() => {
                    let end = tokio::time::timeout(PAGE_DEADLINE, self.end_of_log()).await;
                    // The reading of checkpoints may have been abandoned.
                    drop(answer.send(self.on_time("read the end of the log", end)));
                }
                () = inbox.changed.notified() => self.work_off(inbox).await,
            }
        }
    }

    async fn work_off(&mut self, inbox: &Inbox) {
        let pending = std::mem::take(&mut *locked(&inbox.pending));
        let PendingRequests { page, forgets_requests, forgets_topics, recorded, .. } = pending;
        self.recorded.extend(recorded);
        self.limits = pending.limits.unwrap_or(self.limits);
        if pending.suspects_topics {
            self.encoder.topics().suspect();
            self.ready.clear();
        }
        for (category, refusal) in pending.refused_topics {
            self.encoder.topics().refuse(category, refusal);
            self.ready.clear();
        }
        if forgets_requests {
            self.requests.forget();
        }
        self.encoder.forget_some(&pending.forgotten_topics);
        if forgets_topics {
            self.encoder.forget();
        }
        if let Some((reporter, cursors)) = page {
            let began = Instant::now();
            let page = tokio::time::timeout(PAGE_DEADLINE, self.page(cursors)).await;
            metrics().publishing.page_read(began.elapsed());
            let page = self.on_time("read a page of the outbox", page);
            let failed = |failure| Report::Failed { operation: Operation::ReadOutbox, failure };
            let read = |page| Report::Completed(Completion::OutboxRead(page));
            reporter.send(page.map_or_else(failed, read)).await;
        }
    }

    /// After a failure the connection is not used again; what is known of topics and schemas stays,
    /// unless the failure can concern it.
    fn on_time<T>(
        &mut self,
        action: &'static str,
        done: Result<Result<T, Failure>, Elapsed>,
    ) -> Result<T, Failure> {
        let done = done.unwrap_or_else(|elapsed| Err(Failure::late(action, elapsed)));
        let Err(failure) = &done else { return done };
        self.connection = None;
        if matches!(failure, Failure::Outage { of: Component::Database, .. }) {
            self.steps.failed();
        }
        let is_outage = failure.class() == FailureClass::Unavailable;
        if is_outage || matches!(failure, Failure::Quarantine(_)) {
            self.encoder.forget_refusals();
        } else {
            self.encoder.forget();
        }
        self.ready.clear();
        self.without_id.clear();
        self.registry_checked = None;
        done
    }

    pub(super) async fn parts(&mut self) -> Result<ReaderParts<'_>, Failure> {
        let Self { store, encoder, connection, skipped, .. } = self;
        let connection = connected(connection, store).await?;
        Ok(ReaderParts { store, encoder, connection, skipped })
    }

    /// Learns the size of events from the rows of a statement. If many bytes of its rows are left,
    /// or they come slowly, gives the connection up: it would receive all of them before the next
    /// statement.
    pub(super) fn rows_read(&mut self, read: &RowsRead, rows_max: usize) {
        let RowsRead { rows, bytes, .. } = *read;
        if let Some(seen) = bytes.checked_div(rows) {
            self.event_bytes = seen.max(self.event_bytes - self.event_bytes / 4);
        }
        let left = rows_max.saturating_sub(rows).saturating_mul(self.event_bytes);
        let is_given_up = match read.left {
            RowsLeft::No => false,
            RowsLeft::Yes => left > LEFT_BYTES_MAX,
            RowsLeft::Slow => true,
        };
        if is_given_up {
            self.connection = None;
        }
    }

    pub(super) async fn end_of_log(&mut self) -> Result<LogEnd, Failure> {
        let ReaderParts { store, connection, .. } = self.parts().await?;
        let end = store.log_end(connection).await?;
        let seen = self.seen.replace(end.clone());
        // An image of a running machine has the same incarnation, and an earlier end.
        if seen.is_some_and(|seen| {
            seen.incarnation == end.incarnation && end.bound.is_behind(&seen.bound)
        }) {
            return Err(Failure::DatabaseChanged);
        }
        Ok(end)
    }

    /// The late events of a window.
    pub(super) async fn late(&mut self, window: Window<'_>) -> Result<Option<LateEvents>, Failure> {
        let Window { since, until } = window;
        let key = (since.clone(), until.clone());
        if let Some(late) = self.late.get(&key) {
            return Ok(late.clone());
        }
        let ReaderParts { store, connection, .. } = self.parts().await?;
        let late = store.late_events(connection, since).await?;
        self.late.insert(key, late.clone());
        Ok(late)
    }
}

/// The reader's connection: outside the pool, since rows may be under way when it is given up.
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
