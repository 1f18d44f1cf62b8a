//! The effects of each report on the machine, on the log and on the driver's own state.

use std::sync::Arc;
use std::time::Duration;

use annals_relay_machine::{Completion, FailureClass, Input, Operation, Page, Slot};

use crate::config::Delivery;
use crate::driver::event_loop::{Driver, Event};
use crate::driver::poll_interval::PageRead;
use crate::model::batch::{Batch, SentBatch};
use crate::model::quarantine::ShardCursor;
use crate::publish::Senders;
use crate::report::failure::Failure;
use crate::report::kafka_failure::KafkaFailure;
use crate::report::{Recovered, RefusedTopic, Report};
use crate::telemetry::metrics::metrics;

/// The time between the expiry of another session's lease, as far as it is known, and the next
/// renewal.
const LEASE_EXPIRY_MARGIN: Duration = Duration::from_millis(5);

/// Whether a report is of the present generation of producers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    Current,
    Earlier,
}

impl Driver {
    /// Takes a report; returns its meaning for the machine.
    pub(super) fn on_report(&mut self, generation: u64, report: Report) -> Option<Event> {
        let age = self.age(generation);
        let completion = match report {
            Report::LeaseOperation(event) => return Some(self.on_lease_operation(event)),
            Report::QuarantineRecorded(progress) => {
                self.reader.quarantine_recorded(progress);
                return None;
            }
            Report::Advanced(operation) => {
                if age == Age::Current {
                    self.watchdog.advanced(operation);
                }
                return None;
            }
            Report::Failed { operation, failure } => {
                return Some(self.on_failed(generation, operation, failure));
            }
            Report::Committed { slot, sent }
                if age == Age::Current && self.config.relay.delivery == Delivery::AtLeastOnce =>
            {
                self.write_checkpoints(generation, slot, sent);
                return None;
            }
            Report::Committed { slot, sent } | Report::CheckpointsWritten { slot, sent } => {
                if age == Age::Current {
                    self.sent_topics.remove(&slot);
                }
                self.on_committed(age, sent);
                Completion::Committed(slot)
            }
            Report::Completed(completion) => {
                if let Completion::OutboxRead(page) = &completion {
                    self.on_page(page, age);
                }
                completion
            }
        };
        Some(self.completed(generation, completion))
    }

    /// Takes opened senders. Those of an earlier generation belong to a lost session.
    pub(super) fn on_opened(&mut self, generation: u64, senders: Senders) -> Option<Event> {
        if self.age(generation) == Age::Earlier {
            drop(tokio::task::spawn_blocking(move || senders.close()));
            return None;
        }
        self.senders = Some(senders);
        self.outage.recovered(Recovered::Kafka);
        if self.machine.owns_nothing() {
            // Other relays publish what could not be published here.
            self.outage.nothing_left();
        }
        Some(self.completed(generation, Completion::ProducersOpened))
    }

    fn age(&self, generation: u64) -> Age {
        if generation == self.generation { Age::Current } else { Age::Earlier }
    }

    fn completed(&mut self, generation: u64, completion: Completion<ShardCursor, Batch>) -> Event {
        if self.age(generation) == Age::Current {
            self.watchdog.answered(completion.operation());
        }
        Input::Completed { generation, completion }
    }

    fn on_lease_operation(&mut self, event: Event) -> Event {
        self.outage.recovered(Recovered::Database);
        self.watchdog.leases_answered();
        if let Input::LeaseRenewed(leases) = &event {
            metrics().leases(&leases.mine, leases.members);
        }
        if matches!(event, Input::SessionExpired) {
            self.logged.clear();
            tracing::warn!(
                event = "lease_lost",
                "the lease had expired: joining again, behind the new owners of the shards"
            );
        }
        event
    }

    /// In at-least-once delivery, acknowledged records are committed by their checkpoints.
    fn write_checkpoints(&self, generation: u64, slot: Slot, sent: SentBatch) {
        let reporter = self.reporter.in_generation(generation);
        let (tables, write) = (self.tables.clone(), self.session.next_write());
        tokio::spawn(async move {
            let written = tables.write_checkpoints(write, &sent.incarnation, &sent.checkpoints);
            let report = match written.await {
                Ok(()) => Report::CheckpointsWritten { slot, sent },
                Err(failure) => Report::Failed { operation: Operation::Commit, failure },
            };
            reporter.send(report).await;
        });
    }

    fn on_committed(&mut self, age: Age, sent: SentBatch) {
        if age == Age::Current {
            // A commit that was under way when another one failed does not end the outage.
            self.outage.recovered(Recovered::Published);
            self.one_topic_at_a_time = false;
            self.find_all_refused = false;
            if let Some(limits) = self.shrinking_batch.grow(sent.size) {
                self.reader.limit(limits);
            }
        }
        if !sent.sent_in_groups.is_empty() {
            let topics = Arc::make_mut(&mut self.send_in_groups);
            topics.retain(|topic| !sent.sent_in_groups.contains(&**topic));
        }
        self.progress.committed(&self.session, &sent);
        self.watchdog.published();
        self.committed.send_modify(|committed| committed.add(sent));
    }

    fn on_page(&mut self, page: &Page<ShardCursor, Batch>, age: Age) {
        self.outage.recovered(Recovered::Database);
        self.outage.recovered(Recovered::OutboxRead);
        let found = if page.batch.is_some() { PageRead::Events } else { PageRead::Nothing };
        self.poll_interval.page_read(found);
        let is_empty = page.batch.is_none() && !page.has_more;
        if is_empty && age == Age::Current && self.machine.is_drained() {
            self.outage.nothing_left();
            self.watchdog.published();
        }
    }

    fn on_failed(&mut self, generation: u64, operation: Operation, failure: Failure) -> Event {
        let class = self.class_of(generation, operation, &failure);
        metrics().failed(class);
        if matches!(failure, Failure::DatabaseChanged) {
            tracing::info!(event = "database_moved", "{failure}");
            self.evidence.forget();
        }
        if matches!(failure, Failure::Kafka(KafkaFailure::Fenced { .. })) {
            // Possibly by a relay on another history of the store.
            self.evidence.forget();
        }
        if let Failure::InstanceTaken { left, .. } = &failure {
            let expiry = tokio::time::sleep(*left + LEASE_EXPIRY_MARGIN);
            self.instance_taken = Some(Box::pin(expiry));
        }
        if operation.is_on_leases() {
            self.watchdog.leases_answered();
        } else if self.age(generation) == Age::Current {
            self.watchdog.answered(operation);
        }
        if self.age(generation) == Age::Current {
            let is_late = matches!(class, FailureClass::Unavailable | FailureClass::UnknownOutcome);
            let is_late = is_late && matches!(operation, Operation::Send | Operation::Commit);
            if is_late || operation == Operation::Send {
                // One of its topics may have been deleted. Those of other categories are used as
                // before.
                self.forget_sent_topics();
            }
            if is_late {
                // Also if all of Kafka was unavailable: it grows within a few transactions.
                let acknowledged = match failure {
                    Failure::Kafka(KafkaFailure::Slow { acknowledged, .. }) => Some(acknowledged),
                    _ => None,
                };
                let acknowledged = acknowledged.filter(|records| *records > 0);
                self.reader.limit(self.shrinking_batch.shrink(acknowledged));
                self.reader.suspect_topics();
            }
            self.handle(operation, class, failure);
        }
        Input::Failed { generation, operation, class }
    }

    /// Has the topics of the batches under way looked up again.
    fn forget_sent_topics(&self) {
        let topics = self.sent_topics.values().flatten();
        let categories = topics.filter_map(|topic| self.config.category(topic));
        self.reader.forget_some_topics(categories.map(str::to_owned));
    }

    /// The consequence of a failure. A topic that is refused when its records are sent is left out:
    /// the next page finds it refused, and quarantines its category.
    fn class_of(
        &mut self,
        generation: u64,
        operation: Operation,
        failure: &Failure,
    ) -> FailureClass {
        if operation != Operation::Send || self.age(generation) == Age::Earlier {
            return failure.class();
        }
        match failure.refused_topic() {
            RefusedTopic::None => failure.class(),
            RefusedTopic::Unknown => {
                self.one_topic_at_a_time = true;
                FailureClass::Resync
            }
            RefusedTopic::Named(topic, refusal) => match self.config.category(topic) {
                Some(category) => {
                    self.reader.refuse_topic(category.to_owned(), refusal.clone());
                    FailureClass::Resync
                }
                // Checkpoints cannot be left out.
                None => failure.class(),
            },
        }
    }

    /// Logs a failure of the present generation, or keeps its facts for the next step.
    fn handle(&mut self, operation: Operation, class: FailureClass, failure: Failure) {
        if class == FailureClass::Resync {
            self.take_new_entries(failure);
        } else if class.halts() {
            self.halted_by = Some(failure);
        } else if matches!(operation, Operation::Send | Operation::Commit) {
            self.outage.publishing_failed(&failure);
        } else if matches!(operation, Operation::ReadOutbox | Operation::ReadCheckpoints) {
            self.outage.reading_failed(&failure);
        } else if operation != Operation::Leave || class != FailureClass::Unavailable {
            self.outage.failed(&failure);
        } else {
            let error = failure.in_full();
            tracing::warn!(
                event = "shards_not_released",
                error,
                "the shards were not released: their lease will expire"
            );
        }
    }

    /// Keeps the refused events until the checkpoints of the shards are read, or finds out
    /// first which event Kafka refuses.
    fn take_new_entries(&mut self, failure: Failure) {
        if matches!(failure, Failure::Kafka(KafkaFailure::Refused { .. })) {
            self.find_all_refused = true;
        }
        match failure.new_entries() {
            Ok(entries) => self.new_entries.extend(entries),
            Err(topics) => {
                tracing::info!(
                    event = "finding_refused",
                    ?topics,
                    "kafka refuses one of several events: sending them in groups, to find it"
                );
                Arc::make_mut(&mut self.send_in_groups).extend(topics);
            }
        }
    }
}
