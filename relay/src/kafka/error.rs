//! Kafka's error codes, by the response of the relay.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::report::kafka_failure::KafkaFailure;

/// The code of an error.
pub(super) fn code(error: &KafkaError) -> Code {
    match error {
        // The one variant that has a code and no accessor for it.
        KafkaError::AdminOp(code) => *code,
        other => other.rdkafka_error_code().unwrap_or(Code::Unknown),
    }
}

/// Whether a broker refuses one partition or one topic of several with this code.
pub(super) const fn is_of_partition(code: Code) -> bool {
    matches!(
        code,
        Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::ReplicaNotAvailable
            | Code::OffsetNotAvailable
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::KafkaStorageError
            | Code::UnknownTopicOrPartition
            | Code::UnknownPartition
            | Code::TopicAuthorizationFailed
    )
}

/// The failure of a code. It names every code that brokers send in answers to the
/// requests of producers, of consumers without a group and of topic administration, and every code
/// that librdkafka makes in their place.
///
/// rdkafka's enum is open, so the compiler asks for the last arm: it has the codes of APIs that the
/// relay does not call (consumer groups, delegation tokens, SCRAM users, elections, quorum), and
/// future ones.
#[expect(clippy::too_many_lines, reason = "it is one table of codes")]
pub(super) fn sort(action: &'static str, code: Code, reason: String) -> KafkaFailure {
    match code {
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => {
            KafkaFailure::Fenced { action, reason }
        }
        // The markers of a transaction are written within milliseconds, unless a partition of it
        // has too few replicas or no leader.
        Code::ConcurrentTransactions => KafkaFailure::Busy { action, reason },
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidRecord
        | Code::InvalidTimestamp => KafkaFailure::Refused { records: Vec::new(), reason },
        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::InvalidTopic => KafkaFailure::TopicMissing { topic: String::new(), reason },
        Code::InvalidConfig
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::PolicyViolation => KafkaFailure::TopicUnfit { topic: String::new(), reason },
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            KafkaFailure::Forbidden { action, topic: String::new(), reason }
        }
        // The broker has a maximum of its own; waiting does not change it.
        Code::InvalidTransactionTimeout => KafkaFailure::Settings { reason },
        // Leaders, coordinators, replicas and storage: they recover.
        Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::BrokerNotAvailable
        | Code::ReplicaNotAvailable
        | Code::NotController
        | Code::StaleControllerEpoch
        | Code::StaleBrokerEpoch
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        | Code::OffsetNotAvailable
        | Code::OffsetOutOfRange
        | Code::KafkaStorageError
        | Code::LogDirNotFound
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::RequestTimedOut
        | Code::NetworkException
        | Code::ThrottlingQuotaExceeded
        | Code::ReassignmentInProgress
        | Code::RebootstrapRequired
        | Code::UnknownTopicId
        | Code::FetchSessionIdNotFound
        | Code::InvalidFetchSessionEpoch
        | Code::ListenerNotFound
        // Transactions: the producer is made again.
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator
        | Code::TransactionCoordinatorFenced
        | Code::InvalidTransactionalState
        | Code::InvalidProducerIdMapping
        | Code::UnknownProducerId
        | Code::OutOfOrderSequenceNumber
        | Code::DuplicateSequenceNumber
        | Code::OperationNotAttempted
        // Credentials, rights and versions: an operator changes them, and the relay goes on.
        | Code::TransactionalIdAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SecurityDisabled
        | Code::UnsupportedVersion
        | Code::UnsupportedForMessageFormat
        | Code::UnsupportedCompressionType
        | Code::PrincipalDeserializationFailure
        | Code::InvalidRequest
        | Code::InvalidRequiredAcks
        | Code::InvalidReplicaAssignment
        | Code::InvalidMessage
        | Code::InvalidMessageSize
        | Code::TopicAlreadyExists
        | Code::ResourceNotFound
        | Code::Unknown
        // Made by librdkafka: connections, time-outs, and messages that it purged.
        | Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::SSL
        | Code::Authentication
        | Code::MessageTimedOut
        | Code::OperationTimedOut
        | Code::TimedOutQueue
        | Code::QueueFull
        | Code::ISRInsufficient
        | Code::WaitingForCoordinator
        | Code::WaitCache
        | Code::InProgress
        | Code::PreviousInProgress
        | Code::UnknownBroker
        | Code::BrokerDestroy
        | Code::DestroyBroker
        | Code::BadMessage
        | Code::BadCompression
        | Code::CriticalSystemResource
        | Code::State
        | Code::Fatal
        | Code::Fail
        | Code::Retry
        | Code::PurgeQueue
        | Code::PurgeInflight
        | Code::Inconsistent
        | Code::GaplessGuarantee
        | Code::InvalidDifferentRecord
        | Code::UnsupportedFeature
        | Code::NotConfigured
        | Code::InvalidArgument => KafkaFailure::Outage { action, reason },
        other => {
            let reason = format!("{reason} ({other:?}, a code that the relay does not expect)");
            KafkaFailure::Outage { action, reason }
        }
    }
}
