//! Executes the machine's actions, each in a task or a thread that reports its result.

use std::ops::ControlFlow;
use std::sync::Arc;

use annals_relay_machine::{Action, Command, Completion, Departure, Input, Lease, Operation};

use crate::config::{Config, Delivery};
use crate::driver::event_loop::{Driver, Event};
use crate::driver::resume::Resume;
use crate::driver::strangers::withdraw;
use crate::kafka::claims_topic::ClaimsTopic;
use crate::kafka::ensure_checkpoint_topic;
use crate::kafka::topic_admin::TopicAdmin;
use crate::model::batch::Batch;
use crate::model::quarantine::ShardCursor;
use crate::publish::{FENCED_AT_ONCE, Senders, fence};
use crate::report::failure::Failure;
use crate::report::threads::in_a_thread;
use crate::report::{Report, Reporter};
use crate::state::{RelayTables, Session, TransactionalIds};

impl Driver {
    /// Executes a command, or begins to; breaks when the process is to end.
    pub(super) fn execute(&mut self, command: Command<ShardCursor, Batch>) -> ControlFlow<()> {
        let Command { generation, action } = command;
        if generation != self.generation {
            self.watchdog.forget_producers();
        }
        self.watchdog.ordered(&action);
        self.generation = generation;
        let reporter = self.reporter.in_generation(generation);
        match action {
            Action::Join => {
                self.session = Session::new(&self.config);
                self.on_leases(reporter, Operation::Join, async |tables, session| {
                    tables.join(&session).await.map(|()| Input::Joined)
                });
            }
            Action::RenewLease(readiness) => {
                self.on_leases(reporter, Operation::RenewLease, async move |tables, session| {
                    let leases = tables.renew_lease(&session, readiness).await?;
                    Ok(leases.map_or(Input::SessionExpired, Input::LeaseRenewed))
                });
            }
            Action::AcquireShards(shards) => {
                self.on_leases(reporter, Operation::AcquireShards, async move |tables, session| {
                    tables.acquire(&session, &shards).await.map(Input::ShardsAcquired)
                });
            }
            Action::ReleaseShards(leases) => {
                self.on_leases(reporter, Operation::ReleaseShards, async move |tables, session| {
                    tables.release(&session, &leases).await.map(|()| Input::ShardsReleased)
                });
            }
            Action::Leave(departure) => self.leave(reporter, departure),
            Action::OpenProducers => self.open_producers(reporter),
            Action::FencePredecessors(leases) => self.fence_predecessors(reporter, leases),
            Action::ReadCheckpoints(leases) => self.read_checkpoints(reporter, leases),
            Action::ReadOutbox(cursors) => self.reader.begin_page(reporter, cursors),
            Action::Send(slot, batch) => {
                let send_in_groups = Arc::clone(&self.send_in_groups);
                let Self { one_topic_at_a_time, find_all_refused, .. } = *self;
                let batch =
                    Batch { send_in_groups, find_all_refused, one_topic_at_a_time, ..batch };
                self.shrinking_batch.sends(batch.size());
                self.sent_topics.insert(slot, batch.topics());
                self.with_senders(|senders| senders.send(slot, batch));
            }
            Action::Commit(slot) => self.with_senders(|senders| senders.commit(slot)),
            Action::Wait { after } => {
                let pause = match after {
                    Some(_) => self.outage.next_delay(),
                    None => self.poll_interval.next_pause(),
                };
                self.wait = Some(Box::pin(tokio::time::sleep(pause)));
            }
            Action::EndProcess { .. } => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    fn on_leases<F>(
        &self,
        reporter: Reporter,
        operation: Operation,
        execute: impl FnOnce(RelayTables, Session) -> F,
    ) where
        F: Future<Output = Result<Event, Failure>> + Send + 'static,
    {
        let done = execute(self.tables.clone(), self.session.clone());
        tokio::spawn(async move {
            let failed = |failure| Report::Failed { operation, failure };
            reporter.send(done.await.map_or_else(failed, Report::LeaseOperation)).await;
        });
    }

    fn leave(&self, reporter: Reporter, departure: Departure) {
        if departure == Departure::Abandoned {
            tracing::warn!(
                event = "shards_abandoned",
                "leaving the shards without finishing: their next owners fence the open transactions"
            );
        }
        let config = Arc::clone(&self.config);
        self.on_leases(reporter, Operation::Leave, async move |tables, session| {
            tables.leave(&session, departure).await?;
            if departure == Departure::Clean && config.relay.delivery == Delivery::ExactlyOnce {
                withdraw(&config, session.transactional_ids.all()).await;
            }
            Ok(Input::SessionEnded)
        });
    }

    /// The machine orders sends and commits only while there are senders.
    fn with_senders(&self, order: impl FnOnce(&Senders)) {
        if let Some(senders) = &self.senders {
            order(senders);
        }
    }

    fn open_producers(&mut self, reporter: Reporter) {
        let (config, shards) = (Arc::clone(&self.config), self.shards);
        let (before, generation) = (self.senders.take(), self.generation);
        let transactional_ids = self.session.transactional_ids.clone();
        let opened = self.opened.clone();
        drop(tokio::task::spawn_blocking(move || {
            before.into_iter().for_each(Senders::close);
            match open(&config, shards, &transactional_ids, &reporter) {
                // The driver may have ended.
                Ok(senders) => drop(opened.blocking_send((generation, senders))),
                Err(failure) => {
                    let operation = Operation::OpenProducers;
                    reporter.send_blocking(Report::Failed { operation, failure });
                }
            }
        }));
    }

    fn fence_predecessors(&self, reporter: Reporter, leases: Vec<Lease>) {
        let (config, tables) = (Arc::clone(&self.config), self.tables.clone());
        let session = self.session.clone();
        tokio::spawn(async move {
            let operation = Operation::FencePredecessors;
            let failed = |failure| Report::Failed { operation, failure };
            let fenced = |leases| Report::Completed(Completion::PredecessorsFenced(leases));
            let done = fence_owners(config, tables, session, leases).await;
            reporter.send(done.map_or_else(failed, fenced)).await;
        });
    }

    fn read_checkpoints(&mut self, reporter: Reporter, leases: Vec<Lease>) {
        let resume = Resume {
            config: Arc::clone(&self.config),
            reader: self.reader.clone(),
            tables: self.tables.clone(),
            evidence: self.evidence.clone(),
            write: self.session.next_write(),
            reporter: reporter.clone(),
        };
        // If they are lost, Kafka or the registry refuses the same events again.
        let new_entries = std::mem::take(&mut self.new_entries);
        tokio::spawn(async move {
            let operation = Operation::ReadCheckpoints;
            let failed = |failure| Report::Failed { operation, failure };
            let read = |cursors| Report::Completed(Completion::CheckpointsRead(cursors));
            let done = resume.cursors(leases, new_entries).await;
            reporter.send(done.map_or_else(failed, read)).await;
        });
    }
}

/// Opens the producers of a session, behind the topic of its checkpoints. Blocks.
fn open(
    config: &Arc<Config>,
    shards: u16,
    transactional_ids: &TransactionalIds,
    reporter: &Reporter,
) -> Result<Senders, Failure> {
    if config.relay.delivery == Delivery::ExactlyOnce {
        ensure_checkpoint_topic(config, shards)?;
        // Before it has producers: its successors on a database without its row fence it.
        ClaimsTopic::new(config).announce(&TopicAdmin::open(config)?, &transactional_ids.all())?;
    }
    Senders::open(config, transactional_ids, reporter)
}

/// Fences the earlier owners of the shards of these leases; returns the leases.
async fn fence_owners(
    config: Arc<Config>,
    tables: RelayTables,
    session: Session,
    leases: Vec<Lease>,
) -> Result<Vec<Lease>, Failure> {
    let ids = tables.ids_to_fence(&session, &leases).await?;
    if ids.is_empty() {
        return Ok(leases);
    }
    tracing::info!(event = "fencing", transactional_ids = ids.len(), "fencing earlier owners");
    let (mut fenced, mut done) = (Vec::new(), Ok(()));
    for some in ids.chunks(FENCED_AT_ONCE) {
        let these = some.to_vec();
        let of = Arc::clone(&config);
        done = in_a_thread("fencing", move || fence(&of, &these)).await;
        if done.is_err() {
            break;
        }
        // What is fenced stays so, if one of the others is busy.
        tables.record_fenced(&session, &leases, some).await?;
        fenced.extend_from_slice(some);
    }
    if !fenced.is_empty() {
        withdraw(&config, fenced).await;
    }
    done.map(|()| leases)
}
