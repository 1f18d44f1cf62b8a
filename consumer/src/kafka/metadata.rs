//! Queries of topics: partition counts and watermarks.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as ClientOffset, TopicPartitionList};
use tokio::task::JoinHandle;

use super::client::{
    ClientCallbacks, KafkaClientError, LastConnectionError, REQUEST_TIMEOUT, Unavailable, blocking,
    config, create, is_topic_missing,
};
use super::fetch_client::FetchClient;
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
    settings: ConsumerSettings,
    query: Query,
    outage: Outage,
    connection_error: LastConnectionError,
}

/// The query of partition counts.
enum Query {
    Idle,
    Pending(JoinHandle<Result<FoundTopics, KafkaError>>),
    Answered(Result<FoundTopics, KafkaError>),
}

/// The partition counts of the topics that exist, and whether the client for records knows a
/// broker.
#[derive(Debug)]
pub(crate) struct FoundTopics {
    pub(crate) counts: PartitionCounts,
    pub(crate) is_fetcher_connected: bool,
}

/// The answer to a query of partition counts.
#[derive(Debug)]
pub(crate) enum CountsAnswer {
    /// None was asked for, or it has not come.
    None,
    /// Kafka does not answer.
    Unavailable,
    /// Kafka answers.
    Found(FoundTopics),
}

impl MetadataClient {
    pub(super) fn open(
        settings: &ConsumerSettings,
        connection_error: LastConnectionError,
    ) -> Result<Self, KafkaClientError> {
        let client = open_client(settings, &connection_error)?;
        let outage = Outage::of(format!("Kafka at {}", settings.brokers));
        let (settings, query) = (settings.clone(), Query::Idle);
        Ok(Self { client, settings, query, outage, connection_error })
    }

    pub(super) fn is_unavailable(&self) -> bool {
        self.outage.is_ongoing()
    }

    /// Begins to query the partition counts of these topics, and whether the client for records is
    /// answered, unless a query is under way.
    pub(super) fn ask(&mut self, topics: &[Arc<str>], fetcher: Weak<FetchClient>) {
        if matches!(self.query, Query::Idle) {
            let (client, topics) = (Arc::clone(&self.client), topics.to_vec());
            self.query = Query::Pending(tokio::task::spawn_blocking(move || {
                let counts = query_and_poll(&client, |client| partition_counts(client, &topics))?;
                let topic = topics.first().map(AsRef::as_ref);
                let is_fetcher_connected =
                    fetcher.upgrade().is_none_or(|fetcher| knows_a_broker(&fetcher, topic));
                Ok(FoundTopics { counts, is_fetcher_connected })
            }));
        }
    }

    pub(super) const fn is_asking(&self) -> bool {
        !matches!(self.query, Query::Idle)
    }

    /// Waits for the end of the query under way; without one, for ever. Safe to cancel.
    pub(super) async fn answered(&mut self) {
        match &mut self.query {
            Query::Idle => std::future::pending().await,
            Query::Pending(query) => {
                let answer = query.await.unwrap_or(Err(KafkaError::Canceled));
                self.query = Query::Answered(answer);
            }
            Query::Answered(_) => {}
        }
    }

    /// The answer to the query, once it has come.
    pub(super) fn take_answer(&mut self) -> CountsAnswer {
        // First by reference: this is asked before each record.
        if !matches!(self.query, Query::Answered(_)) {
            return CountsAnswer::None;
        }
        match std::mem::replace(&mut self.query, Query::Idle) {
            Query::Answered(answer) => {
                let found = self.record_answer(answer);
                found.map_or(CountsAnswer::Unavailable, CountsAnswer::Found)
            }
            Query::Idle | Query::Pending(_) => CountsAnswer::None,
        }
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
                self.replace_client();
                None
            }
        }
    }

    /// Makes another client for the next query: this one may have lost all brokers for good, as the
    /// client for records can ([`RecordFetcher`](super::RecordFetcher)).
    fn replace_client(&mut self) {
        match open_client(&self.settings, &self.connection_error) {
            Ok(client) => {
                let old = std::mem::replace(&mut self.client, client);
                // It waits for the client's threads.
                drop(tokio::task::spawn_blocking(move || drop(old)));
            }
            Err(error) => tracing::debug!(%error, "the client for queries stays"),
        }
    }
}

fn open_client(
    settings: &ConsumerSettings,
    connection_error: &LastConnectionError,
) -> Result<Arc<MetadataConsumer>, KafkaClientError> {
    let config = config(settings, "read_uncommitted");
    let group = GroupChanges::new(GroupAnswers::AtOnce);
    create(&config, connection_error, &group).map(Arc::new)
}

/// The time in which librdkafka's callbacks are served after a query.
const CALLBACKS: Duration = Duration::from_millis(1);

/// Queries, then serves librdkafka's callbacks: they say why a query failed.
fn query_and_poll<T>(
    client: &MetadataConsumer,
    query: impl FnOnce(&MetadataConsumer) -> Result<T, KafkaError>,
) -> Result<T, KafkaError> {
    let answer = query(client);
    // Without a time each poll would serve one callback, and the others would become more and more.
    while client.poll(CALLBACKS).is_some() {}
    answer
}

/// Whether a client is answered, and is told of brokers. Without topics all are asked for.
fn knows_a_broker(client: &FetchClient, topic: Option<&str>) -> bool {
    let metadata = client.fetch_metadata(topic, REQUEST_TIMEOUT);
    metadata.is_ok_and(|metadata| !metadata.brokers().is_empty())
}

fn partition_counts(
    client: &MetadataConsumer,
    topics: &[Arc<str>],
) -> Result<PartitionCounts, KafkaError> {
    let mut counts = BTreeMap::new();
    for topic in topics {
        if let Some(count) = partition_count(client, topic)? {
            counts.insert(Arc::clone(topic), count);
        }
    }
    Ok(counts)
}

fn partition_count(client: &MetadataConsumer, topic: &str) -> Result<Option<i32>, KafkaError> {
    // By name: an answer for all topics does not say why one is absent.
    let metadata = client.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
    if metadata.brokers().is_empty() {
        // A broker that is not registered yet knows nothing.
        return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::AllBrokersDown));
    }
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
