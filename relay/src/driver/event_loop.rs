//! The driver's event loop: everything that happens becomes an input of the machine, and its
//! commands are executed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use annals_relay_machine::{FailureClass, Input, Machine, Operation, Producers, Shard, Slot};
use annals_store::Store;
use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior, Sleep, interval};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Delivery};
use crate::driver::batch_shrinking::ShrinkingBatch;
use crate::driver::evidence::EvidenceCheck;
use crate::driver::housekeeping::Committed;
use crate::driver::listener::{Listener, Notification, Wanted};
use crate::driver::outage::Outage;
use crate::driver::poll_interval::PollInterval;
use crate::driver::quarantine_progress::ProgressRecorder;
use crate::driver::watchdog::{Rests, StallAction, Watchdog};
use crate::model::batch::Batch;
use crate::model::quarantine::{NewEntry, ShardCursor};
use crate::publish::{ReaderHandle, Senders, start_reader};
use crate::report::failure::Failure;
use crate::report::{ReportReceiver, Reporter, report_channel};
use crate::state::{RelayTables, Session};
use crate::telemetry::metrics::metrics;
use crate::telemetry::{Phase, Vitals};

pub(super) type Event = Input<ShardCursor, Batch>;

/// Senders that were opened for one generation. Openings of abandoned generations may end at the
/// same time.
const OPENED_MAX: usize = 4;

/// Everything that a relay process has.
pub(super) struct Driver {
    pub(super) config: Arc<Config>,
    store: Store,
    pub(super) shards: u16,
    pub(super) machine: Machine<ShardCursor, Batch>,
    pub(super) generation: u64,
    pub(super) tables: RelayTables,
    pub(super) session: Session,
    pub(super) senders: Option<Senders>,
    /// Where opened senders arrive, with their generation.
    pub(super) opened: mpsc::Sender<(u64, Senders)>,
    pub(super) reader: ReaderHandle,
    pub(super) evidence: EvidenceCheck,
    pub(super) committed: watch::Sender<Committed>,
    pub(super) vitals: Arc<Vitals>,
    pub(super) outage: Outage,
    pub(super) watchdog: Watchdog,
    pub(super) poll_interval: PollInterval,
    /// The end of the machine's wait.
    pub(super) wait: Option<Pin<Box<Sleep>>>,
    /// The time at which the lease of another session of this instance can have expired: no lease
    /// is renewed before.
    pub(super) instance_taken: Option<Pin<Box<Sleep>>>,
    live: BTreeSet<Shard>,
    /// The shards that were last logged as published.
    pub(super) logged: BTreeSet<Shard>,
    /// The entries to quarantine when the checkpoints of their shards are read.
    pub(super) new_entries: Vec<NewEntry>,
    /// Topics whose records are sent in groups: Kafka refused one of several.
    pub(super) send_in_groups: Arc<HashSet<String>>,
    /// Whether all refused records of a batch are looked for: Kafka refused one.
    pub(super) find_all_refused: bool,
    /// Whether each topic is sent on its own: Kafka refused one of several.
    pub(super) one_topic_at_a_time: bool,
    pub(super) shrinking_batch: ShrinkingBatch,
    /// The topics of the batch of each sender, until it is committed.
    pub(super) sent_topics: BTreeMap<Slot, BTreeSet<Arc<str>>>,
    pub(super) progress: ProgressRecorder,
    pub(super) reporter: Reporter,
    /// The failure that has halted it, until the machine has wound down.
    pub(super) halted_by: Option<Failure>,
}

/// The inputs of the event loop.
pub(super) struct Received {
    reports: ReportReceiver,
    /// Later versions of the configuration.
    configs: watch::Receiver<Config>,
    opened: mpsc::Receiver<(u64, Senders)>,
}

impl Driver {
    pub(super) fn new(
        (config, configs): (&Arc<Config>, watch::Receiver<Config>),
        store: &Store,
        shards: u16,
        committed: watch::Sender<Committed>,
        vitals: &Arc<Vitals>,
    ) -> Result<(Self, Received), Failure> {
        let uncompared = Arc::default();
        let reader = start_reader(config, store, &uncompared)?;
        let (reporter, reports) = report_channel();
        let (opened, received) = mpsc::channel(OPENED_MAX);
        let tables = RelayTables::new(config, store);
        let progress = ProgressRecorder::start(&tables, reporter.clone());
        let producers = match config.relay.delivery {
            Delivery::ExactlyOnce => Producers::Two,
            Delivery::AtLeastOnce => Producers::One,
        };
        let driver = Self {
            config: Arc::clone(config),
            store: store.clone(),
            shards,
            machine: Machine::new(shards, producers),
            generation: 0,
            tables,
            session: Session::new(config),
            senders: None,
            opened,
            reader,
            evidence: EvidenceCheck::new(config, store, uncompared),
            committed,
            vitals: Arc::clone(vitals),
            outage: Outage::new(&config.relay, vitals),
            watchdog: Watchdog::new(config),
            poll_interval: PollInterval::new(config.relay.poll_idle_max),
            wait: None,
            instance_taken: None,
            live: BTreeSet::new(),
            logged: BTreeSet::new(),
            new_entries: Vec::new(),
            send_in_groups: Arc::default(),
            find_all_refused: false,
            one_topic_at_a_time: false,
            shrinking_batch: ShrinkingBatch::new(&config.relay),
            sent_topics: BTreeMap::new(),
            progress,
            reporter,
            halted_by: None,
        };
        Ok((driver, Received { reports, configs, opened: received }))
    }

    /// Runs the machine until it ends: `Err` with the failure that halted it.
    pub(super) async fn run(
        mut self,
        received: Received,
        mut listener: Listener,
        shutdown: &CancellationToken,
    ) -> Result<(), Failure> {
        let Received { mut reports, mut configs, mut opened } = received;
        let mut renewals = renewals(self.config.relay.lease);
        let mut is_stopping = false;
        loop {
            self.vitals.beat();
            let is_idle = self.wait.is_some() && !self.outage.is_ongoing();
            let wanted = if is_idle { Wanted::All } else { Wanted::Deployment };
            let input = tokio::select! {
                biased;
                () = shutdown.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    self.vitals.enter(Phase::Stopping);
                    Some(Input::Stop)
                }
                Some((generation, report)) = reports.recv() => self.on_report(generation, report),
                Some((generation, senders)) = opened.recv() => self.on_opened(generation, senders),
                _ = renewals.tick() => self.on_renewal_due(),
                () = elapsed(&mut self.instance_taken) => {
                    self.instance_taken = None;
                    Some(Input::RenewalDue)
                }
                Ok(()) = configs.changed() => {
                    let limits = self.shrinking_batch.configure(&configs.borrow_and_update().relay);
                    self.reader.limit(limits);
                    None
                }
                notification = listener.next(wanted) => self.on_notification(notification),
                () = elapsed(&mut self.wait) => self.wait_over(),
            };
            let commands = input.map(|input| self.machine.step(input)).unwrap_or_default();
            let mut is_over = false;
            for command in commands {
                is_over |= self.execute(command).is_break();
            }
            if is_over {
                // Senders that are still to report must not wait for this loop.
                drop((reports, opened));
                self.vitals.enter(Phase::Stopping);
                return self.end().await;
            }
            if !is_stopping {
                self.show_phase();
            }
            self.log_shards();
        }
    }

    fn on_notification(&mut self, notification: Notification) -> Option<Event> {
        match notification {
            Notification::Deployment => {
                self.instance_taken = None;
                self.reader.forget_requests();
                Some(Input::RenewalDue)
            }
            Notification::Append => {
                self.poll_interval.notified();
                self.wait_over()
            }
        }
    }

    fn on_renewal_due(&mut self) -> Option<Event> {
        let rests = if self.wait.is_some() || self.machine.live().next().is_none() {
            Rests::Yes
        } else {
            Rests::No
        };
        match self.watchdog.check(rests) {
            StallAction::None => {}
            StallAction::RestartSession => return Some(self.restart_session()),
            StallAction::EndProcess => return Some(self.halt(Failure::Stalled)),
        }
        let outlasts_lease = self.outage.lasts(self.config.relay.lease);
        // While another session of this instance lives, this process has no lease to renew.
        self.instance_taken.is_none().then_some(if outlasts_lease {
            Input::OutageOutlastsLease
        } else {
            Input::RenewalDue
        })
    }

    /// Begins another session, with other producers and another reader: hung ones are abandoned,
    /// not awaited.
    fn restart_session(&mut self) -> Event {
        self.senders = None;
        match start_reader(&self.config, &self.store, self.evidence.uncompared()) {
            Ok(reader) => {
                reader.limit(self.shrinking_batch.limits());
                self.reader = reader;
            }
            Err(failure) => return self.halt(failure),
        }
        Input::Stalled
    }

    fn halt(&mut self, failure: Failure) -> Event {
        self.senders = None;
        self.halted_by = Some(failure);
        let (generation, operation) = (self.generation, Operation::ReadOutbox);
        Input::Failed { generation, operation, class: FailureClass::Fatal }
    }

    fn wait_over(&mut self) -> Option<Event> {
        self.wait = None;
        Some(Input::WaitOver)
    }

    /// Shows whether this relay publishes.
    fn show_phase(&self) {
        let live: Vec<u16> = self.machine.live().map(|Shard(shard)| shard).collect();
        metrics().publishes(live.len());
        self.vitals.enter(if !live.is_empty() {
            Phase::Publishing(live)
        } else if self.machine.is_standby() {
            Phase::Standby
        } else {
            Phase::Resuming
        });
    }

    /// Logs which shards this relay publishes, when that has changed.
    fn log_shards(&mut self) {
        let live: BTreeSet<Shard> = self.machine.live().collect();
        // The shards that were acquired during an outage are logged when it has ended.
        let is_logged = self.outage.is_ongoing() || live.is_empty() || live == self.logged;
        if live == self.live && is_logged {
            return;
        }
        let shards =
            live.iter().map(|Shard(shard)| shard.to_string()).collect::<Vec<_>>().join(",");
        if live.is_empty() {
            tracing::debug!("publishing no shard at the moment");
        } else if self.outage.is_ongoing() || live == self.logged {
            tracing::debug!(shards, "trying to publish again");
        } else {
            tracing::info!(event = "publishing", shards, of = self.shards, "publishing");
            self.logged.clone_from(&live);
        }
        self.live = live;
    }

    async fn end(mut self) -> Result<(), Failure> {
        if let Some(senders) = self.senders.take() {
            let closed = tokio::task::spawn_blocking(move || senders.close()).await;
            closed.map_err(|_panicked| Failure::Panicked("senders"))?;
        }
        self.halted_by.map_or(Ok(()), Err)
    }
}

/// Several times in the duration of a lease, so that a slow answer does not lose it; often enough
/// for a released shard to be acquired soon.
fn renewals(lease: Duration) -> Interval {
    let mut renewals =
        interval((lease / 8).clamp(Duration::from_millis(50), Duration::from_millis(250)));
    renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
    renewals
}

async fn elapsed(sleep: &mut Option<Pin<Box<Sleep>>>) {
    match sleep {
        Some(sleep) => sleep.as_mut().await,
        None => std::future::pending().await,
    }
}
