//! Errors of the store: those of appends and of migrations in files of their own, all others here.

mod append;
mod migration;
mod refusal;

pub use self::append::AppendError;
pub use self::migration::MigrationError;
use self::refusal::other_cluster;
pub use self::refusal::{Conflict, Refusal, TagConflict};

use crate::connections::url::DatabaseUrlError;
use crate::history::History;
use crate::sqlstate::{is_transient, is_undefined};
use crate::stream::{Position, StreamName, Version};

/// Why an operation other than an append failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// PostgreSQL reported an error or was not reached.
    #[error("{action}")]
    Database {
        /// The operation: a verb and an object.
        action: &'static str,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// The URL of the database cannot be used.
    #[error(transparent)]
    DatabaseUrl(DatabaseUrlError),
    /// The server is a standby. Followers and relays need the primary, because a standby does not
    /// tell which transactions are in progress; reads of streams, categories and all events work on
    /// a standby. After its promotion, the same operation succeeds.
    #[error(
        "the database server is a standby, which does not tell which transactions are in progress: \
         follow and publish from the primary, or promote this server; `read` works \
         here"
    )]
    Standby,
    /// The server runs with `fsync = off` and confirms commits that are not on its disk.
    #[error(
        "the database server runs with fsync = off: a crash of its machine can lose or damage \
         confirmed commits; set fsync = on, or accept it with StoreOptions::allow_fsync_off \
         (database.allow_fsync_off of the relay, --allow-fsync-off of annals) if the data can be \
         lost, or if the server keeps it in another place, as Neon does"
    )]
    NotDurable,
    /// The tables could not be created or upgraded.
    #[error("migrate the store's tables")]
    Migrate(#[source] MigrationError),
    /// The store contains data that this version of the crate cannot read.
    #[error("{what} in the store is not readable: {reason}")]
    Unreadable {
        /// The data, and its location.
        what: String,
        /// The cause.
        reason: String,
    },
    /// A recorded event has content that no append writes, or its schema is missing: another
    /// program wrote it.
    #[error(
        "event {version} of stream {stream:?}, at position {position}, cannot be read: {reason}; \
         start a read behind it, or skip it in a follower with Follow::skipping"
    )]
    UnreadableEvent {
        /// The stream; a text, because the name itself can be illegal.
        stream: String,
        /// The event.
        version: Version,
        /// The event's position. Start a read behind it with [`from`](crate::Read::from), or skip
        /// it in a follower with [`skipping`](crate::Follow::skipping).
        position: Position,
        /// The unreadable field, and the cause.
        reason: String,
    },
    /// The store came from another database cluster and is not adopted yet. Its transaction ids
    /// have no meaning in this cluster.
    #[error("{}", other_cluster(recorded, found))]
    OtherCluster {
        /// The identifier of the cluster that the store belongs to.
        recorded: String,
        /// The identifier of the cluster that serves this session.
        found: String,
    },
    /// A checkpoint belongs to another store.
    #[error("the checkpoint is of {checkpoint}, and this is {found}: follow from the beginning")]
    OtherStore {
        /// The history of the checkpoint.
        checkpoint: Box<History>,
        /// The history of the database.
        found: Box<History>,
    },
    /// Events that the follower has processed are missing from the store or differ: the database
    /// lost a part of its history, by a restore to an earlier state or by the promotion of a
    /// standby that lagged.
    #[error(
        "the follower has processed {processed} events since position {since}, and the store does \
         not have all of them ({present} are present): the checkpoint is of {checkpoint}, and this \
         is {found}, which lost a part of it; follow from the beginning, or from a checkpoint that \
         is older than the loss, together with the state that belongs to it"
    )]
    OtherHistory {
        /// The history of the checkpoint.
        checkpoint: Box<History>,
        /// The history of the database.
        found: Box<History>,
        /// The position after which the events were counted.
        since: Position,
        /// The number of events that the follower processed since then.
        processed: u64,
        /// The number of these events that are present.
        present: u64,
    },
    /// A state does not match the schema of its snapshots.
    #[error("encode a snapshot of stream {stream}")]
    Encode {
        /// The stream.
        stream: StreamName,
        /// The cause.
        #[source]
        source: annals_schemas::EncodeError,
    },
    /// An event does not match its schema or the application's type.
    #[error("decode event {version} of stream {stream}")]
    Decode {
        /// The stream.
        stream: StreamName,
        /// The event.
        version: Version,
        /// The cause.
        #[source]
        source: annals_schemas::DecodeError,
    },
}

impl Error {
    pub(crate) fn database(action: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Database { action, source }
    }

    pub(crate) fn database_each(action: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| Self::Database { action, source }
    }

    /// Whether the database has no event store in the schema of this one, or one of an earlier
    /// release: [`Store::migrate`](crate::Store::migrate) makes the tables.
    #[must_use]
    pub fn is_not_migrated(&self) -> bool {
        matches!(self, Self::Database { source, .. } if is_undefined(source))
    }

    /// Whether the same operation can succeed when repeated.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Standby => true,
            Self::Database { source, .. } | Self::Migrate(MigrationError::Database(source)) => {
                is_transient(source)
            }
            Self::Migrate(_)
            | Self::DatabaseUrl(_)
            | Self::NotDurable
            | Self::Unreadable { .. }
            | Self::OtherCluster { .. }
            | Self::OtherStore { .. }
            | Self::UnreadableEvent { .. }
            | Self::OtherHistory { .. }
            | Self::Encode { .. }
            | Self::Decode { .. } => false,
        }
    }
}
