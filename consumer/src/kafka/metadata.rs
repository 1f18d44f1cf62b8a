//! Queries of topics: partition counts and watermarks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as ClientOffset, TopicPartitionList};
use tokio::task::JoinHandle;

use super::client::{
    ClientCallbacks, KafkaClientError, LastConnectionError, REQUEST_TIMEOUT, Unavailable, blocking,
    config, create, is_topic_missing,
};
use super::group::{GroupAnswers, GroupChanges};
use crate::outage::Outage;
use crate::position::{Offset, RecordLocation};
use crate::settings::ConsumerSettings;

/// Topics and their partition counts.
pub(crate) type PartitionCounts = BTreeMap<Arc<str>, i32>;

/// The ends of one partition at some moment.
#[derive(Debug, Clone)]
pub(crate) struct Watermarks {
    /// The first record that the partition still has.
    pub(crate) low: RecordLocation,
    /// The offset that the next record will get.
    pub(crate) high: Offset,
}

type MetadataConsumer = BaseConsumer<ClientCallbacks>;

/// A `read_uncommitted` client that only queries topics, and tracks whether the brokers answer.
pub(super) struct MetadataClient {
    client: Arc<MetadataConsumer>,
    /// A query whose caller was cancelled: the next call waits for its answer.
    pending_query: Option<JoinHandle<Result<PartitionCounts, KafkaError>>>,
    outage: Outage,
    connection_error: LastConnectionError,
}

impl MetadataClient {
    pub(super) fn open(
        settings: &ConsumerSettings,
        connection_error: LastConnectionError,
    ) -> Result<Self, KafkaClientError> {
        let client = create(
            &config(settings, "read_uncommitted"),
            &connection_error,
            &GroupChanges::new(GroupAnswers::AtOnce),
        )?;
        let outage = Outage::of(format!("Kafka at {}", settings.brokers));
        Ok(Self { client: Arc::new(client), pending_query: None, outage, connection_error })
    }

    pub(super) fn is_unavailable(&self) -> bool {
        self.outage.is_ongoing()
    }

    pub(super) async fn partition_counts(
        &mut self,
        topics: &[Arc<str>],
    ) -> Option<PartitionCounts> {
        let pending = self.pending_query.get_or_insert_with(|| {
            let (client, topics) = (Arc::clone(&self.client), topics.to_vec());
            tokio::task::spawn_blocking(move || {
                query_and_poll(&client, |client| partition_counts(client, topics))
            })
        });
        let answer = pending.await.unwrap_or(Err(KafkaError::Canceled));
        self.pending_query = None;
        self.record_answer(answer)
    }

    pub(super) async fn watermarks(&mut self, counts: &PartitionCounts) -> Option<Vec<Watermarks>> {
        let (client, counts) = (Arc::clone(&self.client), counts.clone());
        let query = move || query_and_poll(&client, |client| watermarks(client, &counts));
        let answer = blocking(query).await;
        self.record_answer(answer)
    }

    fn record_answer<T>(&mut self, answer: Result<T, KafkaError>) -> Option<T> {
        match answer {
            Ok(answer) => {
                self.outage.record_success();
                Some(answer)
            }
            Err(error) if error.rdkafka_error_code().is_some_and(is_topic_missing) => None,
            Err(error) => {
                let connection_error = self.connection_error.text();
                self.outage.record_failure(&Unavailable { error, connection_error });
                None
            }
        }
    }
}

/// Queries, then serves librdkafka's callbacks: they say why a query failed.
fn query_and_poll<T>(
    client: &MetadataConsumer,
    query: impl FnOnce(&MetadataConsumer) -> Result<T, KafkaError>,
) -> Result<T, KafkaError> {
    let answer = query(client);
    while client.poll(Duration::ZERO).is_some() {}
    answer
}

fn partition_counts(
    client: &MetadataConsumer,
    topics: Vec<Arc<str>>,
) -> Result<PartitionCounts, KafkaError> {
    let mut counts = BTreeMap::new();
    for topic in topics {
        if let Some(count) = partition_count(client, &topic)? {
            counts.insert(topic, count);
        }
    }
    Ok(counts)
}

fn partition_count(client: &MetadataConsumer, topic: &str) -> Result<Option<i32>, KafkaError> {
    // By name: an answer for all topics does not say why one is absent.
    let metadata = client.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
    let Some(found) = metadata.topics().first() else { return Ok(None) };
    let code = found.error().map(RDKafkaErrorCode::from);
    match code {
        None => Ok(i32::try_from(found.partitions().len()).ok().filter(|count| *count > 0)),
        Some(code) if is_topic_missing(code) => Ok(None),
        Some(other) => Err(KafkaError::MetadataFetch(other)),
    }
}

fn watermarks(
    client: &MetadataConsumer,
    counts: &PartitionCounts,
) -> Result<Vec<Watermarks>, KafkaError> {
    let lows = offsets_at(client, counts, ClientOffset::Beginning)?;
    let highs = offsets_at(client, counts, ClientOffset::End)?;
    let all = counts.iter().flat_map(|(topic, count)| (0..*count).map(move |p| (topic, p)));
    let watermarks =
        all.zip(lows.into_iter().zip(highs)).map(|((topic, partition), (offset, high))| {
            Watermarks { low: RecordLocation { topic: Arc::clone(topic), partition, offset }, high }
        });
    Ok(watermarks.collect())
}

/// One end of each partition, by topic and partition. Sends one request to each broker.
fn offsets_at(
    client: &MetadataConsumer,
    counts: &PartitionCounts,
    end: ClientOffset,
) -> Result<Vec<Offset>, KafkaError> {
    let mut list = TopicPartitionList::new();
    for (topic, count) in counts {
        for partition in 0..*count {
            list.add_partition_offset(topic, partition, end)?;
        }
    }
    if list.count() == 0 {
        return Ok(Vec::new());
    }
    let answered = client.offsets_for_times(list, REQUEST_TIMEOUT)?;
    let offsets = answered.elements().into_iter().map(|element| {
        element.error()?;
        let invalid = KafkaError::OffsetFetch(RDKafkaErrorCode::InvalidArgument);
        numeric(element.offset()).ok_or(invalid)
    });
    offsets.collect()
}

/// The number of an offset that is one.
pub(super) fn numeric(offset: ClientOffset) -> Option<Offset> {
    match offset {
        ClientOffset::Offset(number) => Offset::new(number),
        ClientOffset::Beginning
        | ClientOffset::End
        | ClientOffset::Stored
        | ClientOffset::Invalid
        | ClientOffset::OffsetTail(_) => None,
    }
}
