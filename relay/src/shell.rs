//! The shell around the machine that decides: does what it orders, and tells it what came of it. The one file that
//! sees all parts.

use std::collections::{BTreeSet, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use annals_relay_core::{
    Command, Done, Input, Lease, Machine, Order, Page, Producers, Shard, Slot, Trouble, Work,
};
use annals_store::Store;
use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior, Sleep, interval};
use tokio_util::sync::CancellationToken;

use crate::batch::Batch;
use crate::checkpoint::Progress;
use crate::config::{Config, Delivery};
use crate::copy::Committed;
use crate::evidence::Evidence;
use crate::failure::Failure;
use crate::holds::{Refusal, ShardPlace};
use crate::idle::Idle;
use crate::leases::{LeaseTable, Session};
use crate::notes::Notes;
use crate::places::Places;
use crate::reader::Reads;
use crate::relay;
use crate::sender::{self, Senders, Sent};
use crate::waiting::{Good, Waiting};
use crate::wake::{Wake, Woken};
use crate::watchdog::{Verdict, Watchdog};

type Event = Input<ShardPlace, Batch>;

/// So long after a lease has ended, as far as it was known, it is looked whether it has.
const LEASE_OVER: Duration = Duration::from_millis(5);

/// What the parts tell the shell.
pub(crate) enum Report {
    /// Work on the leases is done.
    Leases(Event),
    /// Work of one generation of producers is done.
    Done(Done<ShardPlace, Batch>),
    /// The producers are made.
    Opened(Senders),
    /// A transaction is committed.
    Committed { slot: Slot, sent: Sent },
    /// The same, and its checkpoints stand in PostgreSQL.
    Written { slot: Slot, sent: Sent },
    /// PostgreSQL knows how far a hold got, or that it has ended.
    Noted(Progress),
    /// It did not succeed.
    Failed { work: Work, failure: Failure },
}

/// The way to the shell, for one command.
#[derive(Clone)]
pub(crate) struct Reports {
    generation: u64,
    shell: mpsc::UnboundedSender<(u64, Report)>,
}

impl Reports {
    /// The shell hears it, unless the process is ending.
    pub(crate) fn send(&self, report: Report) {
        if self.shell.send((self.generation, report)).is_err() {
            tracing::debug!("a report comes after the end");
        }
    }
}

/// Everything a relay process has.
pub(crate) struct Shell {
    config: Arc<Config>,
    store: Store,
    shards: u16,
    machine: Machine<ShardPlace, Batch>,
    generation: u64,
    leases: LeaseTable,
    session: Session,
    senders: Option<Senders>,
    reads: Reads,
    evidence: Evidence,
    committed: watch::Sender<Committed>,
    waiting: Waiting,
    watchdog: Watchdog,
    idle: Idle,
    rest: Option<Pin<Box<Sleep>>>,
    /// Until the lease of another session of this instance can be over: the leases are left alone meanwhile.
    taken: Option<Pin<Box<Sleep>>>,
    live: BTreeSet<Shard>,
    /// What it last said that it publishes.
    said: BTreeSet<Shard>,
    /// What is to be held once it is known where the shards stand.
    refused: Vec<Refusal>,
    /// Events that Kafka refused together with others, to be sent each on its own.
    suspects: Arc<HashSet<i64>>,
    notes: Notes,
    reports: mpsc::UnboundedSender<(u64, Report)>,
    /// What halted it, until the machine has wound down.
    fatal: Option<Failure>,
}

impl Shell {
    pub(crate) fn new(
        config: &Arc<Config>,
        store: &Store,
        shards: u16,
        committed: watch::Sender<Committed>,
        reads: Reads,
    ) -> (Self, mpsc::UnboundedReceiver<(u64, Report)>) {
        let (reports, received) = mpsc::unbounded_channel();
        let leases = LeaseTable::new(config, store);
        let notes = Notes::start(&leases, reports.clone());
        let producers = match config.relay.delivery {
            Delivery::ExactlyOnce => Producers::Two,
            Delivery::AtLeastOnce => Producers::One,
        };
        let shell = Self {
            config: Arc::clone(config),
            store: store.clone(),
            shards,
            machine: Machine::new(shards, producers),
            generation: 0,
            leases,
            session: Session::new(config),
            senders: None,
            reads,
            evidence: Evidence::new(config, store),
            committed,
            waiting: Waiting::new(&config.relay),
            watchdog: Watchdog::new(config),
            idle: Idle::new(config.relay.poll_idle_max),
            rest: None,
            taken: None,
            live: BTreeSet::new(),
            said: BTreeSet::new(),
            refused: Vec::new(),
            suspects: Arc::default(),
            notes,
            reports,
            fatal: None,
        };
        (shell, received)
    }

    /// Runs the machine until it ends: `Err` with what halted it.
    pub(crate) async fn run(
        mut self,
        mut received: mpsc::UnboundedReceiver<(u64, Report)>,
        mut wake: Wake,
        shutdown: &CancellationToken,
    ) -> Result<(), Failure> {
        let mut ticks = ticks(self.config.relay.lease);
        let mut is_told = false;
        loop {
            let is_idle = self.rest.is_some() && !self.waiting.is_on();
            let input = tokio::select! {
                biased;
                () = shutdown.cancelled(), if !is_told => {
                    is_told = true;
                    Some(Input::Stop)
                }
                Some((generation, report)) = received.recv() => self.hear(generation, report),
                _ = ticks.tick() => self.tick(),
                () = fires(&mut self.taken) => {
                    self.taken = None;
                    Some(Input::Tick)
                }
                woken = wake.next(is_idle) => match woken {
                    Woken::Told => {
                        self.taken = None;
                        self.reads.look();
                        Some(Input::Tick)
                    }
                    Woken::Appended => {
                        self.idle.hinted();
                        self.resume()
                    }
                },
                () = fires(&mut self.rest) => self.resume(),
            };
            let commands = input.map(|input| self.machine.step(input)).unwrap_or_default();
            // The last one is the end.
            if commands.into_iter().any(|command| self.obey(command)) {
                return self.end().await;
            }
            self.tell_shards();
        }
    }

    fn tick(&mut self) -> Option<Event> {
        let rests = self.rest.is_some() || self.machine.live().next().is_none();
        match self.watchdog.look(rests) {
            Verdict::Moving => {}
            Verdict::BeginAgain => return Some(self.begin_again()),
            Verdict::End => return Some(self.stalled(Failure::Stalled)),
        }
        let is_overdue = self.waiting.lasts(self.config.relay.lease);
        // While another session has the name, there is none whose lease could be prolonged.
        self.taken.is_none().then_some(if is_overdue { Input::Overdue } else { Input::Tick })
    }

    /// With another session, other producers and another reader: of those that hang nothing is waited for.
    fn begin_again(&mut self) -> Event {
        self.senders = None;
        match relay::reads(&self.config, &self.store) {
            Ok(reads) => self.reads = reads,
            Err(failure) => return self.stalled(failure),
        }
        Input::Stalled
    }

    fn stalled(&mut self, failure: Failure) -> Event {
        self.senders = None;
        self.fatal = Some(failure);
        Input::Failed { generation: self.generation, work: Work::Read, trouble: Trouble::Fault }
    }

    fn resume(&mut self) -> Option<Event> {
        self.rest = None;
        Some(Input::Resume)
    }

    /// Does what the machine orders, or has it done; true when it is to end.
    fn obey(&mut self, command: Command<ShardPlace, Batch>) -> bool {
        let Command { generation, order } = command;
        if generation != self.generation {
            self.watchdog.forget();
        }
        self.watchdog.ordered(&order);
        self.generation = generation;
        let reports = Reports { generation, shell: self.reports.clone() };
        match order {
            Order::Join => {
                self.session = Session::new(&self.config);
                self.on_leases(reports, Work::Join, async |leases, session| {
                    leases.join(&session).await.map(|()| Input::Joined)
                });
            }
            Order::Look { ready } => {
                self.on_leases(reports, Work::Look, async move |leases, session| {
                    let looked = leases.look(&session, ready).await?;
                    Ok(looked.map_or(Input::Gone, Input::Looked))
                });
            }
            Order::Take(shards) => {
                self.on_leases(reports, Work::Take, async move |leases, session| {
                    leases.take(&session, &shards).await.map(Input::Taken)
                });
            }
            Order::Release(given) => {
                self.on_leases(reports, Work::Release, async move |leases, session| {
                    leases.release(&session, &given).await.map(|()| Input::Released)
                });
            }
            Order::Leave { clean } => {
                if !clean {
                    tracing::warn!(
                        event = "shards_abandoned",
                        "giving the shards up as they are: whoever takes them fences what is open"
                    );
                }
                self.on_leases(reports, Work::Leave, async move |leases, session| {
                    leases.leave(&session, clean).await.map(|()| Input::Left)
                });
            }
            Order::Open => self.open(reports),
            Order::Fence(leases) => self.fence(reports, leases),
            Order::ReadCheckpoints(leases) => self.read_checkpoints(reports, leases),
            Order::Read(places) => self.reads.begin(reports, places),
            Order::Send(slot, batch) => {
                let batch = Batch { alone: Arc::clone(&self.suspects), ..batch };
                self.on_senders(|senders| senders.send(slot, batch));
            }
            Order::Commit(slot) => self.on_senders(|senders| senders.commit(slot)),
            Order::Rest { after } => {
                let pause = match after {
                    Some(_) => self.waiting.next_delay(),
                    None => self.idle.next_pause(),
                };
                self.rest = Some(Box::pin(tokio::time::sleep(pause)));
            }
            Order::End { .. } => return true,
        }
        false
    }

    fn on_leases<F>(
        &self,
        reports: Reports,
        work: Work,
        task: impl FnOnce(LeaseTable, Session) -> F,
    ) where
        F: Future<Output = Result<Event, Failure>> + Send + 'static,
    {
        let done = task(self.leases.clone(), self.session.clone());
        tokio::spawn(async move {
            reports.send(match done.await {
                Ok(event) => Report::Leases(event),
                Err(failure) => Report::Failed { work, failure },
            });
        });
    }

    /// Orders to send or commit come only when there are senders.
    fn on_senders(&self, order: impl FnOnce(&Senders)) {
        if let Some(senders) = &self.senders {
            order(senders);
        }
    }

    fn open(&mut self, reports: Reports) {
        let (config, session) = (Arc::clone(&self.config), self.session.clone());
        let (before, shards) = (self.senders.take(), self.shards);
        blocking(reports, Work::Open, move |reports| {
            if let Some(before) = before {
                before.close();
            }
            sender::ensure_checkpoint_topic(&config, shards)?;
            Ok(Report::Opened(Senders::open(&config, &session, reports)?))
        });
    }

    fn fence(&self, reports: Reports, of: Vec<Lease>) {
        let (config, leases) = (Arc::clone(&self.config), self.leases.clone());
        let session = self.session.clone();
        tokio::spawn(async move {
            let failed = |failure| Report::Failed { work: Work::Fence, failure };
            let fenced = fence(config, leases, session, of).await;
            reports.send(fenced.map_or_else(failed, |of| Report::Done(Done::Fenced(of))));
        });
    }

    fn read_checkpoints(&mut self, reports: Reports, of: Vec<Lease>) {
        let places = Places {
            config: Arc::clone(&self.config),
            reads: self.reads.clone(),
            leases: self.leases.clone(),
            evidence: self.evidence.clone(),
            step: self.session.step(),
        };
        // Whatever is lost of it will be refused again.
        let refused = std::mem::take(&mut self.refused);
        tokio::spawn(async move {
            let failed = |failure| Report::Failed { work: Work::ReadCheckpoints, failure };
            let read = places.read(of, refused).await;
            reports.send(read.map_or_else(failed, |read| Report::Done(Done::Checkpoints(read))));
        });
    }

    /// What a report means to the machine.
    fn hear(&mut self, generation: u64, report: Report) -> Option<Event> {
        let is_current = generation == self.generation;
        let done = match report {
            Report::Leases(event) => {
                self.waiting.good(Good::Database);
                self.watchdog.leases_answered();
                if matches!(event, Input::Gone) {
                    self.said.clear();
                    tracing::warn!(
                        event = "lease_lost",
                        "the lease was over: joining again, after whoever took the shards"
                    );
                }
                return Some(event);
            }
            Report::Noted(progress) => {
                self.reads.noted(progress);
                return None;
            }
            Report::Failed { work, failure } => return self.failed(generation, work, failure),
            Report::Opened(senders) if is_current => {
                self.senders = Some(senders);
                self.waiting.good(Good::Kafka);
                if self.machine.is_free() {
                    // Others publish what could not be published here.
                    self.waiting.nothing_left();
                }
                Done::Opened
            }
            Report::Opened(senders) => {
                // Their session is lost. Nobody waits for them to end.
                drop(tokio::task::spawn_blocking(move || senders.close()));
                return None;
            }
            Report::Committed { slot, sent }
                if is_current && self.config.relay.delivery == Delivery::AtLeastOnce =>
            {
                self.write_checkpoints(generation, slot, sent);
                return None;
            }
            Report::Committed { slot, sent } | Report::Written { slot, sent } => {
                if is_current {
                    // What was under way when another one failed says nothing of the next.
                    self.waiting.good(Good::Published);
                }
                self.committed_alone(&sent.alone);
                self.notes.committed(&self.session, &sent);
                self.watchdog.published();
                self.committed.send_modify(|committed| committed.add(sent));
                Done::Committed(slot)
            }
            Report::Done(done) => {
                if let Done::Page(page) = &done {
                    self.saw(page, is_current);
                }
                done
            }
        };
        if is_current {
            self.watchdog.answered(work_of(&done));
        }
        Some(Input::Done { generation, done })
    }

    /// Without a Kafka transaction, what is acknowledged is committed by its checkpoints.
    fn write_checkpoints(&self, generation: u64, slot: Slot, sent: Sent) {
        let reports = Reports { generation, shell: self.reports.clone() };
        let (leases, step) = (self.leases.clone(), self.session.step());
        tokio::spawn(async move {
            let written = leases.checkpoint(step, &sent.incarnation, &sent.checkpoints).await;
            reports.send(match written {
                Ok(()) => Report::Written { slot, sent },
                Err(failure) => Report::Failed { work: Work::Commit, failure },
            });
        });
    }

    fn committed_alone(&mut self, alone: &[i64]) {
        if !alone.is_empty() {
            let suspects = Arc::make_mut(&mut self.suspects);
            suspects.retain(|position| !alone.contains(position));
        }
    }

    fn saw(&mut self, page: &Page<ShardPlace, Batch>, is_current: bool) {
        self.waiting.good(Good::Database);
        self.waiting.good(Good::Read);
        self.idle.saw(page.batch.is_some());
        let is_empty = page.batch.is_none() && !page.more;
        if is_empty && is_current && self.machine.is_done() {
            self.waiting.nothing_left();
            self.watchdog.published();
        }
    }

    fn failed(&mut self, generation: u64, work: Work, failure: Failure) -> Option<Event> {
        let trouble = failure.trouble();
        if matches!(failure, Failure::Moved) {
            tracing::info!(event = "database_moved", "{failure}");
            self.evidence.forget();
        }
        if let Failure::InstanceTaken { left, .. } = &failure {
            self.taken = Some(Box::pin(tokio::time::sleep(*left + LEASE_OVER)));
        }
        self.watchdog.failed(work, generation == self.generation);
        if generation == self.generation {
            if work == Work::Send {
                // A topic may be gone.
                self.reads.forget();
            }
            if trouble == Trouble::Held {
                self.hold(failure);
            } else if trouble.halts() {
                self.fatal = Some(failure);
            } else if matches!(work, Work::Send | Work::Commit) {
                self.waiting.say_unpublished(&failure);
            } else if matches!(work, Work::Read | Work::ReadCheckpoints) {
                self.waiting.say_unread(&failure);
            } else if work != Work::Leave || trouble != Trouble::Away {
                self.waiting.say(&failure);
            } else {
                let error = &failure as &dyn std::error::Error;
                tracing::warn!(
                    event = "shards_not_released",
                    error,
                    "the shards were not given back: their lease will expire"
                );
            }
        }
        Some(Input::Failed { generation, work, trouble })
    }

    /// Keeps what is to be held until it is known where the shards stand, or finds out first what it is.
    fn hold(&mut self, failure: Failure) {
        match failure.refusals() {
            Ok(refusals) => self.refused.extend(refusals),
            Err(suspects) => {
                tracing::info!(
                    event = "sending_individually",
                    events = suspects.len(),
                    "kafka refuses some events together: sending each on its own"
                );
                Arc::make_mut(&mut self.suspects).extend(suspects);
            }
        }
    }

    /// Says which shards are published by this relay, when that has changed.
    fn tell_shards(&mut self) {
        let live: BTreeSet<Shard> = self.machine.live().collect();
        // During an outage they are not told; they are when it has ended.
        let is_told = self.waiting.is_on() || live.is_empty() || live == self.said;
        if live == self.live && is_told {
            return;
        }
        let shards =
            live.iter().map(|Shard(shard)| shard.to_string()).collect::<Vec<_>>().join(",");
        if live.is_empty() {
            tracing::debug!("publishing nothing for the moment");
        } else if self.waiting.is_on() || live == self.said {
            tracing::debug!(shards, "trying again to publish");
        } else {
            tracing::info!(event = "publishing", shards, of = self.shards, "publishing");
            self.said.clone_from(&live);
        }
        self.live = live;
    }

    async fn end(mut self) -> Result<(), Failure> {
        if let Some(senders) = self.senders.take() {
            let closed = tokio::task::spawn_blocking(move || senders.close()).await;
            closed.map_err(|_panicked| Failure::Panicked("senders"))?;
        }
        self.fatal.map_or(Ok(()), Err)
    }
}

/// What is answered by this.
fn work_of(done: &Done<ShardPlace, Batch>) -> Work {
    match done {
        Done::Opened => Work::Open,
        Done::Fenced(_) => Work::Fence,
        Done::Checkpoints(_) => Work::ReadCheckpoints,
        Done::Page(_) => Work::Read,
        Done::Acked(_) => Work::Send,
        Done::Committed(_) => Work::Commit,
    }
}

/// Fences what earlier owners of the leases' shards left; returns the leases.
async fn fence(
    config: Arc<Config>,
    leases: LeaseTable,
    session: Session,
    of: Vec<Lease>,
) -> Result<Vec<Lease>, Failure> {
    let ids = leases.to_fence(&session, &of).await?;
    if ids.is_empty() {
        return Ok(of);
    }
    tracing::info!(event = "fencing", transactional_ids = ids.len(), "fencing earlier owners");
    let these = ids.clone();
    in_a_thread("fencing", move || sender::fence(&config, &these)).await?;
    leases.fenced(&session, &of, &ids).await?;
    Ok(of)
}

/// Several times in the length of a lease, so that one slow answer costs nothing; often enough for a shard that is
/// given back to be seen.
fn ticks(lease: Duration) -> Interval {
    let mut ticks =
        interval((lease / 8).clamp(Duration::from_millis(50), Duration::from_millis(250)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn fires(rest: &mut Option<Pin<Box<Sleep>>>) {
    match rest {
        Some(sleep) => sleep.as_mut().await,
        None => std::future::pending().await,
    }
}

fn blocking(
    reports: Reports,
    work: Work,
    task: impl FnOnce(&Reports) -> Result<Report, Failure> + Send + 'static,
) {
    drop(tokio::task::spawn_blocking(move || {
        let report = task(&reports);
        reports.send(report.unwrap_or_else(|failure| Report::Failed { work, failure }));
    }));
}

pub(crate) async fn in_a_thread<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Failure::Panicked(what)))
}
