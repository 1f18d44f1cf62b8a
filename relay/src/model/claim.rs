//! Claims: which publication owns a topic. All claims on a Kafka cluster are records of one
//! compacted topic, so that relays of different stores find each other there.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config::{Config, DatabaseOid};
use crate::model::offsets::RecordOffset;

/// The version of the claim format.
pub(super) const FORMAT: u8 = 1;

/// The claim of one publication to one topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub(super) format: u8,
    /// The topic.
    pub topic: String,
    /// The store that is published.
    pub store_id: Uuid,
    /// Its publication: the deployment and the prefix of its topics.
    pub publication: String,
    pub(super) deployment: String,
    pub(super) prefix: String,
    pub(super) source: String,
    pub(super) shared: bool,
    pub(super) system_identifier: String,
    pub(super) database_oid: DatabaseOid,
    pub(super) database: String,
    pub(super) history: i32,
    pub(super) instance: String,
    pub(super) claimed_at: Timestamp,
    /// The offset of the claim that this one replaces, if that one is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) seat: Option<RecordOffset>,
}

/// Why a topic is not published to: another publication claims it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicClaimed {
    /// The other claim.
    pub by: Claim,
    pub(super) why: ClaimConflict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClaimConflict {
    /// Of another store, and not both are shared.
    Store,
    /// Shared, with the same source.
    Source,
    /// Of another deployment of the same store.
    Deployment,
}

/// Why a publication must not run at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublicationRefused {
    /// Another deployment of the same store publishes into topics with this prefix.
    #[error(
        "deployment {mine} would publish every event again to the topics of {}: correct relay.deployment, \
         or set another topics.prefix. Deployments in this database: {known}. If {} has ended for good: {}",
        .by, .by.publication, .by.release()
    )]
    Deployment {
        /// The publication that must not run.
        mine: String,
        /// A claim of the one that owns the topics.
        by: Box<Claim>,
        /// The publications in the database.
        known: String,
    },
    /// The database is a copy, and the original still exists.
    #[error(
        "this database is a copy of database {original}, which owns the topics: {by}. A copy for another environment needs \
         another topics.prefix; if this database replaces the original, run `annals-relay adopt`"
    )]
    Copy {
        /// The claim of the original.
        by: Box<Claim>,
        /// The present name of the original.
        original: String,
    },
    /// The store was moved to another cluster.
    #[error(
        "this store was moved by `annals-relay adopt`, and is published from its new cluster: {by}"
    )]
    Moved {
        /// The claim from the new cluster.
        by: Box<Claim>,
    },
}

impl Claim {
    /// The claim of the configured publication to a topic.
    pub(crate) fn new(config: &Config, topic: &str) -> Self {
        let (store, relay, topics) = (&config.store, &config.relay, &config.topics);
        let database = store.databases.get(&store.database_oid).cloned().unwrap_or_default();
        Self {
            format: FORMAT,
            topic: topic.to_owned(),
            store_id: store.id,
            publication: config.publication(),
            deployment: relay.deployment.clone(),
            prefix: topics.prefix.clone(),
            source: relay.source.clone(),
            shared: topics.shared,
            system_identifier: store.system_identifier.clone(),
            database_oid: store.database_oid,
            database,
            history: store.history,
            instance: relay.instance.clone(),
            claimed_at: Timestamp::now(),
            seat: None,
        }
    }

    /// The key of its record. None of its parts has a slash.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}/{}", self.topic, self.store_id, self.publication)
    }

    /// The value of its record.
    pub(crate) fn value(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    pub(super) fn owner(&self) -> (Uuid, &str) {
        (self.store_id, &self.publication)
    }

    /// Whether both say the same, apart from their writer and their time.
    pub(super) fn says_the_same_as(&self, other: &Self) -> bool {
        let place = |claim: &Self| (claim.system_identifier.clone(), claim.database_oid);
        self.is_as_shared_as(other) && place(self) == place(other) && self.history == other.history
    }

    pub(super) fn is_as_shared_as(&self, other: &Self) -> bool {
        (self.shared, &self.source) == (other.shared, &other.source)
    }

    pub(super) fn conflict_with(&self, other: &Self) -> Option<ClaimConflict> {
        if self.owner() == other.owner() {
            None
        } else if self.store_id == other.store_id {
            Some(ClaimConflict::Deployment)
        } else if !(self.shared && other.shared) {
            Some(ClaimConflict::Store)
        } else {
            (self.source == other.source).then_some(ClaimConflict::Source)
        }
    }

    /// The command that releases the topics of its publication.
    fn release(&self) -> String {
        let Self { store_id, publication, .. } = self;
        format!(
            "`annals-relay release-topics --store {store_id} --publication {publication} --reason TEXT`"
        )
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { publication, store_id, source, instance, .. } = self;
        let Self { database, system_identifier, history, claimed_at, .. } = self;
        write!(
            f,
            "deployment {publication} of store {store_id} (source {source}, database {database} of cluster \
             {system_identifier}, history {history}, relay {instance}, since {claimed_at:.0})"
        )
    }
}

impl fmt::Display for TopicClaimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by, why } = self;
        write!(f, "topic {} is claimed by {by}: ", by.topic)?;
        match why {
            ClaimConflict::Store => f.write_str(
                "set another topics.prefix; or, if the two stores have different streams, set topics.shared and \
                 different values of relay.source",
            )?,
            ClaimConflict::Source => {
                f.write_str("it is shared, and relay.source distinguishes its records: set another one")?;
            }
            ClaimConflict::Deployment => f.write_str(
                "two deployments would publish every event twice: set another topics.prefix",
            )?,
        }
        write!(f, ". If that publication has ended for good: {}", by.release())
    }
}
