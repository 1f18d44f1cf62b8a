//! The messages of a consumer group to its members: the partitions that they get and lose.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::Notify;

use crate::position::TopicPartition;

/// A change of the partitions of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GroupChange {
    /// The member gets these partitions.
    Assigned(Vec<TopicPartition>),
    /// The member loses these partitions.
    Revoked(Vec<TopicPartition>),
}

/// Who answers the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GroupAnswers {
    /// The client, at once: reading starts at the group's offsets.
    AtOnce,
    /// The caller, later: reading starts at the caller's offsets.
    ByCaller,
}

/// The changes that a member has not taken yet.
#[derive(Debug)]
pub(super) struct GroupChanges {
    answers: GroupAnswers,
    /// The client answers at once from now on.
    closing: AtomicBool,
    queue: Mutex<VecDeque<GroupChange>>,
    changed: Notify,
}

impl GroupChanges {
    pub(super) fn new(answers: GroupAnswers) -> Arc<Self> {
        Arc::new(Self {
            answers,
            closing: AtomicBool::new(false),
            queue: Mutex::default(),
            changed: Notify::new(),
        })
    }

    pub(super) fn take(&self) -> Option<GroupChange> {
        self.queue().pop_front()
    }

    /// Returns when there may be a change to answer. Safe to cancel.
    pub(super) async fn changed(&self) {
        if self.answers == GroupAnswers::AtOnce {
            return std::future::pending().await;
        }
        if self.queue().is_empty() {
            self.changed.notified().await;
        }
    }

    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Handles a message of the group to a member.
    pub(super) fn rebalance<C: ConsumerContext>(
        &self,
        consumer: &BaseConsumer<C>,
        code: RDKafkaRespErr,
        list: &TopicPartitionList,
    ) {
        let partitions = partitions_of(list);
        let change = if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            GroupChange::Assigned(partitions)
        } else {
            GroupChange::Revoked(partitions)
        };
        let at_once = self.answers == GroupAnswers::AtOnce || self.closing.load(Ordering::Relaxed);
        if at_once && let Err(error) = answer(consumer, &change, list) {
            tracing::warn!(%error, "could not answer the consumer group");
        }
        tracing::debug!(?change, "the consumer group changed");
        self.queue().push_back(change);
        self.changed.notify_one();
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<GroupChange>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer<C: ClientContext + ConsumerContext>(
    consumer: &BaseConsumer<C>,
    change: &GroupChange,
    list: &TopicPartitionList,
) -> KafkaResult<()> {
    match (consumer.rebalance_protocol(), change) {
        (RebalanceProtocol::Cooperative, GroupChange::Assigned(_)) => {
            consumer.incremental_assign(list)
        }
        (RebalanceProtocol::Cooperative, GroupChange::Revoked(_)) => {
            consumer.incremental_unassign(list)
        }
        (_, GroupChange::Assigned(_)) => consumer.assign(list),
        (_, GroupChange::Revoked(_)) => consumer.unassign(),
    }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let elements = list.elements();
    elements.iter().map(|element| (Arc::from(element.topic()), element.partition())).collect()
}
