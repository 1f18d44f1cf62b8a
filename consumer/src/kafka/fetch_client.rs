//! The client that fetches records: its options, and how it is made.

use std::sync::Arc;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::StreamConsumer;

use super::client::{ClientCallbacks, KafkaClientError, LastConnectionError, config, create};
use super::group::{GroupAnswers, GroupChanges};
use crate::settings::ConsumerSettings;

/// How often librdkafka asks for the partitions of its topics, in milliseconds.
const TOPIC_REFRESH: &str = "topic.metadata.refresh.interval.ms";

pub(super) type FetchClient = StreamConsumer<ClientCallbacks>;

/// The use of a fetcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FetcherUse {
    /// Reads records without keeping offsets, or those of the group.
    Consumer,
    /// Reads all partitions of a projection.
    Projection,
    /// Reads the partitions of a projection that the group assigns.
    SharedProjection,
}

impl FetcherUse {
    /// The response to a requested offset that the broker does not have: continue with the first
    /// record that is left, or [tell](super::RecordFetcher::take_reset_request) the caller.
    fn offset_reset(self) -> &'static str {
        match self {
            Self::Consumer => "earliest",
            Self::Projection | Self::SharedProjection => "error",
        }
    }

    fn group_answers(self) -> GroupAnswers {
        match self {
            Self::Consumer | Self::Projection => GroupAnswers::AtOnce,
            Self::SharedProjection => GroupAnswers::ByCaller,
        }
    }
}

/// Makes clients with the same options.
pub(super) struct FetchClientMaker {
    options: ClientConfig,
    use_as: FetcherUse,
    connection_error: LastConnectionError,
}

impl FetchClientMaker {
    pub(super) fn new(
        settings: &ConsumerSettings,
        group: &str,
        use_as: FetcherUse,
        connection_error: LastConnectionError,
    ) -> Self {
        let mut options = config(settings, "read_committed");
        if options.get(TOPIC_REFRESH).is_none() {
            // By this a member of a group notices that partitions were added to a topic.
            let interval_ms = settings.topic_check_interval.as_millis();
            options.set(TOPIC_REFRESH, interval_ms.clamp(10, 3_600_000).to_string());
        }
        options
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", use_as.offset_reset());
        if use_as == FetcherUse::SharedProjection {
            // Members keep the partitions that they have.
            options.set("partition.assignment.strategy", "cooperative-sticky");
        }
        Self { options, use_as, connection_error }
    }

    pub(super) fn is_shared(&self) -> bool {
        self.use_as == FetcherUse::SharedProjection
    }

    /// Makes a client, which connects in the background.
    pub(super) fn make(&self) -> Result<(Arc<FetchClient>, Arc<GroupChanges>), KafkaClientError> {
        let group = GroupChanges::new(self.use_as.group_answers());
        let client = create(&self.options, &self.connection_error, &group)?;
        Ok((Arc::new(client), group))
    }
}
