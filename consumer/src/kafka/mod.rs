//! The Kafka client. No other module of this crate names rdkafka.
//!
//! A consumer has two clients: one fetches records, always `read_committed`; the other queries
//! partition counts and watermarks. The second one is needed because the broker tells a
//! `read_committed` client the last stable offset instead of the high watermark. A broker answers a
//! producer's commit before the last stable offset moves, so that committed records could lie
//! beyond it.

mod client;
mod fetch_client;
mod group;
mod metadata;

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use futures_util::FutureExt;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset as ClientOffset, TopicPartitionList};

use self::client::{LastConnectionError, blocking, failure, is_connection_lost, is_topic_missing};
use self::fetch_client::{FetchClient, FetchClientMaker};
use self::group::GroupChanges;
use self::metadata::{MetadataClient, numeric};
use crate::envelope::Delivered;
use crate::fetched_record::FetchedRecord;
use crate::outage::Outage;
use crate::position::{Offset, RecordLocation, TopicPartition};
use crate::raw_record::RawRecord;
use crate::settings::ConsumerSettings;

pub use self::client::KafkaClientError;
pub(crate) use self::fetch_client::FetcherUse;
pub(crate) use self::group::GroupChange;
pub(crate) use self::metadata::{CountsAnswer, PartitionCounts, Watermarks};

/// Queries that the client for records does not answer, although another client is answered, until
/// it is replaced.
const UNANSWERED_MAX: u32 = 2;

/// Fetches records, and queries topics.
pub(crate) struct RecordFetcher {
    fetcher: Arc<FetchClient>,
    maker: FetchClientMaker,
    metadata: MetadataClient,
    group: Arc<GroupChanges>,
    /// A change of the group that the caller has taken and not answered.
    unanswered: Option<GroupChange>,
    /// The partitions that the caller has assigned, and where they began.
    assigned: HashMap<TopicPartition, Offset>,
    /// The topics of the group.
    subscribed: Vec<Arc<str>>,
    /// The partitions of a client that was replaced, until the caller knows.
    revoked: Vec<TopicPartition>,
    unanswered_queries: u32,
    /// Fetching fails while the metadata client is answered.
    outage: Outage,
    /// A connection was lost, or a topic is missing: the metadata client should query the topics.
    recheck_requested: bool,
    /// The broker does not have a requested offset.
    reset_requested: bool,
    topic_names: Vec<Arc<str>>,
}

impl RecordFetcher {
    /// Makes the clients; they connect in the background.
    pub(crate) fn open(
        settings: &ConsumerSettings,
        group: &str,
        use_as: FetcherUse,
    ) -> Result<Self, KafkaClientError> {
        let connection_error = LastConnectionError::default();
        let maker = FetchClientMaker::new(settings, group, use_as, connection_error.clone());
        let (fetcher, group) = maker.make()?;
        Ok(Self {
            fetcher,
            maker,
            group,
            unanswered: None,
            metadata: MetadataClient::open(settings, connection_error)?,
            assigned: HashMap::new(),
            subscribed: Vec::new(),
            revoked: Vec::new(),
            unanswered_queries: 0,
            outage: Outage::of(format!("records from Kafka at {}", settings.brokers)),
            recheck_requested: false,
            reset_requested: false,
            topic_names: Vec::new(),
        })
    }

    pub(crate) fn subscribe(&mut self, topics: &[Arc<str>]) -> Result<(), KafkaClientError> {
        self.subscribed = topics.to_vec();
        let topics: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
        self.fetcher.subscribe(&topics).map_err(failure(|| format!("subscribe to {topics:?}")))
    }

    /// Adds partitions to the assignment, from the given offsets. A partition that is assigned
    /// already restarts at the given offset.
    pub(crate) fn assign(&mut self, starts: &[RecordLocation]) -> Result<(), KafkaClientError> {
        let mut old = TopicPartitionList::new();
        let mut new = TopicPartitionList::with_capacity(starts.len());
        for start in starts {
            let RecordLocation { topic, partition, offset } = start;
            if self.assigned.insert(start.topic_partition(), *offset).is_some() {
                old.add_partition(topic, *partition);
            }
            new.add_partition_offset(topic, *partition, ClientOffset::Offset(offset.get()))
                .map_err(failure(|| format!("start {topic}[{partition}] at {offset}")))?;
        }
        let failed = || "assign partitions".to_owned();
        if old.count() > 0 {
            self.fetcher.incremental_unassign(&old).map_err(failure(failed))?;
        }
        self.unanswered = None;
        self.fetcher.incremental_assign(&new).map_err(failure(failed))
    }

    /// Removes partitions from the assignment.
    pub(crate) fn unassign(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<(), KafkaClientError> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            self.assigned.remove(partition);
            list.add_partition(&partition.0, partition.1);
        }
        if self.unanswered.take().is_none() {
            // Those of a client that was replaced.
            return Ok(());
        }
        let failed = || "give partitions back".to_owned();
        self.fetcher.incremental_unassign(&list).map_err(failure(failed))
    }

    /// The next change of the group. The caller answers it with [`assign`](Self::assign) or
    /// [`unassign`](Self::unassign).
    pub(crate) fn take_group_change(&mut self) -> Option<GroupChange> {
        if !self.revoked.is_empty() {
            return Some(GroupChange::Revoked(mem::take(&mut self.revoked)));
        }
        self.unanswered = self.group.take();
        self.unanswered.clone()
    }

    /// The partitions that the group has taken since the last call.
    pub(crate) fn take_revoked(&mut self) -> Vec<TopicPartition> {
        let changes = std::iter::from_fn(|| self.group.take());
        let revoked = changes.filter_map(|change| match change {
            GroupChange::Assigned(_) => None,
            GroupChange::Revoked(partitions) => Some(partitions),
        });
        let of_replaced = mem::take(&mut self.revoked);
        of_replaced.into_iter().chain(revoked.flatten()).collect()
    }

    /// Waits for the next record. Returns `None` if a
    /// [recheck](Self::take_recheck_request) or a [reset](Self::take_reset_request) was requested
    /// instead, or the query of partition counts has ended.
    pub(crate) async fn next(&mut self) -> Result<Option<FetchedRecord>, KafkaClientError> {
        if self.maker.is_shared() && !self.revoked.is_empty() {
            return Ok(None);
        }
        let received = tokio::select! {
            received = self.fetcher.recv() => received,
            () = self.group.changed() => return Ok(None),
            () = self.metadata.answered() => return Ok(None),
        };
        let polled = match received {
            Ok(message) => Ok(read(&mut self.topic_names, &message)),
            Err(error) => Err(error),
        };
        self.classify(polled)
    }

    /// The next record, if it was fetched already.
    pub(crate) fn ready(&mut self) -> Result<Option<FetchedRecord>, KafkaClientError> {
        let polled = match self.fetcher.recv().now_or_never() {
            None => return Ok(None),
            Some(Ok(message)) => Ok(read(&mut self.topic_names, &message)),
            Some(Err(error)) => Err(error),
        };
        self.classify(polled)
    }

    fn classify(
        &mut self,
        polled: Result<FetchedRecord, KafkaError>,
    ) -> Result<Option<FetchedRecord>, KafkaClientError> {
        match polled {
            Ok(record) => {
                self.outage.record_success();
                return Ok(Some(record));
            }
            Err(source @ KafkaError::MessageConsumptionFatal(_)) => {
                return Err(KafkaClientError { action: "fetch records".to_owned(), source });
            }
            Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset)) => {
                self.reset_requested = true;
            }
            Err(KafkaError::MessageConsumption(code))
                if is_topic_missing(code) || is_connection_lost(code) =>
            {
                self.recheck_requested = true;
            }
            // librdkafka retries after every other error by itself.
            Err(error) => drop(self.outage.record_failure(&error)),
        }
        Ok(None)
    }

    /// Whether the topics should be queried again. Returns true once for each request.
    pub(crate) fn take_recheck_request(&mut self) -> bool {
        mem::take(&mut self.recheck_requested)
    }

    /// Whether the broker does not have a requested offset. Returns true once for each refusal: the
    /// partition is not fetched until it is assigned again.
    pub(crate) fn take_reset_request(&mut self) -> bool {
        mem::take(&mut self.reset_requested)
    }

    /// Whether the brokers did not answer the last query of each client.
    pub(crate) fn is_unavailable(&self) -> bool {
        self.metadata.is_unavailable() || self.unanswered_queries > 0
    }

    /// Begins to query the partition counts of these topics, unless a query is under way. Records
    /// are read meanwhile.
    pub(crate) fn ask_partition_counts(&mut self, topics: &[Arc<str>]) {
        self.metadata.ask(topics, Arc::downgrade(&self.fetcher));
    }

    /// Whether a query of partition counts is under way, or its answer was not taken.
    pub(crate) const fn is_asking(&self) -> bool {
        self.metadata.is_asking()
    }

    /// Waits for the answer to the query of partition counts. Safe to cancel.
    pub(crate) async fn answered(&mut self) {
        self.metadata.answered().await;
    }

    /// The answer to the query of partition counts. Replaces the client for records if it is not
    /// answered, although another client is.
    pub(crate) fn take_partition_counts(&mut self) -> Result<CountsAnswer, KafkaClientError> {
        let answer = self.metadata.take_answer();
        if let CountsAnswer::Found(found) = &answer {
            self.unanswered_queries =
                if found.is_fetcher_connected { 0 } else { self.unanswered_queries + 1 };
            if self.unanswered_queries >= UNANSWERED_MAX {
                self.replace_fetcher()?;
            }
        }
        Ok(answer)
    }

    /// Replaces the client for records by another one, at the same offsets. When a broker has just
    /// started, it can answer that the cluster has no brokers. librdkafka 2.12.1 then forgets all
    /// that it knows, the bootstrap servers too, and never connects again (issue 5301 of
    /// confluentinc/librdkafka).
    fn replace_fetcher(&mut self) -> Result<(), KafkaClientError> {
        tracing::warn!("the client for records has lost all brokers: another one continues");
        let next = self.positions()?;
        let (fetcher, group) = self.maker.make()?;
        self.group.close();
        let old = mem::replace(&mut self.fetcher, fetcher);
        // It waits for the client's threads.
        drop(tokio::task::spawn_blocking(move || drop(old)));
        (self.group, self.unanswered, self.unanswered_queries) = (group, None, 0);
        self.assigned.clear();
        if self.subscribed.is_empty() {
            return self.assign(&next);
        }
        self.revoked.extend(next.iter().map(RecordLocation::topic_partition));
        let topics = self.subscribed.clone();
        self.subscribe(&topics)
    }

    /// The present watermarks of these partitions. `None` while Kafka does not answer.
    pub(crate) async fn watermarks(&mut self, counts: &PartitionCounts) -> Option<Vec<Watermarks>> {
        self.metadata.watermarks(counts).await
    }

    /// The offset behind the last record returned, or behind the transaction markers that followed
    /// it; that of the start for partitions without a record yet, if the caller has assigned them.
    pub(crate) fn positions(&self) -> Result<Vec<RecordLocation>, KafkaClientError> {
        let list = self.fetcher.position().map_err(failure(|| "read positions".to_owned()))?;
        let positions = list.elements().into_iter().filter_map(|element| {
            let (topic, partition) = (Arc::from(element.topic()), element.partition());
            let key: TopicPartition = (topic, partition);
            let start = self.assigned.get(&key).copied();
            let offset = numeric(element.offset()).or(start)?;
            Some(RecordLocation { topic: key.0, partition, offset })
        });
        Ok(positions.collect())
    }

    /// Commits the group's next offset of a partition, and waits for the broker's confirmation.
    pub(crate) async fn commit(&self, next: RecordLocation) -> Result<(), KafkaClientError> {
        let RecordLocation { topic, partition, offset } = next;
        let fetcher = Arc::clone(&self.fetcher);
        let committed = blocking(move || {
            let mut list = TopicPartitionList::with_capacity(1);
            list.add_partition_offset(&topic, partition, ClientOffset::Offset(offset.get()))?;
            fetcher.commit(&list, CommitMode::Sync)
        });
        committed.await.map_err(failure(|| "commit the group's offset".to_owned()))
    }

    /// Tells the group the next offsets of partitions, for display: nothing reads them.
    pub(crate) fn show_offsets(&self, next: &[RecordLocation]) -> Result<(), KafkaClientError> {
        let failed = || "show the group's offsets".to_owned();
        let mut list = TopicPartitionList::with_capacity(next.len());
        for RecordLocation { topic, partition, offset } in next {
            list.add_partition_offset(topic, *partition, ClientOffset::Offset(offset.get()))
                .map_err(failure(failed))?;
        }
        self.fetcher.commit(&list, CommitMode::Async).map_err(failure(failed))
    }

    /// Leaves the group and closes the connections.
    pub(crate) async fn close(self) {
        let _closed = tokio::task::spawn_blocking(move || drop(self)).await;
    }
}

/// Answers the group before the client leaves it: leaving waits for the answer.
impl Drop for RecordFetcher {
    fn drop(&mut self) {
        self.group.close();
        let queued = std::iter::from_fn(|| self.group.take());
        for change in self.unanswered.take().into_iter().chain(queued) {
            let (assigned, partitions) = match change {
                GroupChange::Assigned(partitions) => (true, partitions),
                GroupChange::Revoked(partitions) => (false, partitions),
            };
            let mut list = TopicPartitionList::with_capacity(partitions.len());
            for (topic, partition) in &partitions {
                list.add_partition(topic, *partition);
            }
            let answered = match (self.maker.is_shared(), assigned) {
                (true, true) => self.fetcher.incremental_assign(&list),
                (true, false) => self.fetcher.incremental_unassign(&list),
                (false, _) => Ok(()),
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "could not answer the consumer group");
            }
        }
    }
}

fn read(topic_names: &mut Vec<Arc<str>>, message: &BorrowedMessage<'_>) -> FetchedRecord {
    let headers = message
        .headers()
        .map(|headers| headers.iter().map(|header| (header.key, header.value)).collect());
    Delivered::from_record(&RawRecord {
        topic: shared(topic_names, message.topic()),
        partition: message.partition(),
        // A fetched record has an offset from 0.
        offset: Offset::new(message.offset()).unwrap_or(Offset::ZERO),
        key: message.key(),
        value: message.payload(),
        headers: headers.unwrap_or_default(),
    })
}

/// Shares one copy of each topic's name among all records.
fn shared(topic_names: &mut Vec<Arc<str>>, topic: &str) -> Arc<str> {
    if let Some(name) = topic_names.iter().find(|name| name.as_ref() == topic) {
        return Arc::clone(name);
    }
    let name: Arc<str> = Arc::from(topic);
    topic_names.push(Arc::clone(&name));
    name
}
