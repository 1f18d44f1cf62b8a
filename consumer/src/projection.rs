//! What a projection is: a name, its topics, its limits.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{PgConnection, PgPool};

use crate::batch::UnknownEvents;
use crate::filter::FirstVersion;
use crate::ledger::Ledger;
use crate::registry::Schemas;
use crate::runner::Runner;
use crate::settings::Settings;

const NAME_BYTES_MAX: usize = 200;
const SCHEMA_BYTES_MAX: usize = 63;

/// A read model kept in PostgreSQL, and the topics it is made from.
///
/// [Prepare](Self::prepare) it once, then [run](Self::runner) it in one process at a time: a second runner of the same
/// name makes no mistakes, but one of the two ends with [`RunError::Superseded`](crate::RunError::Superseded).
#[derive(Debug, Clone)]
pub struct Projection {
    pub(crate) name: Arc<str>,
    pub(crate) topics: Vec<String>,
    pub(crate) limits: Limits,
    pub(crate) first_version: FirstVersion,
    pub(crate) unknown_events: UnknownEvents,
    pub(crate) ledger: Ledger,
}

/// How much at once, and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) batch_events_max: usize,
    pub(crate) batch_bytes_max: usize,
    pub(crate) batch_deadline: Duration,
    pub(crate) cached_streams_max: usize,
}

/// Why a projection cannot be declared or prepared.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionError {
    /// The name is empty or too long.
    #[error("projection name {name:?}: use 1 to {NAME_BYTES_MAX} bytes")]
    Name {
        /// The name.
        name: String,
    },
    /// There is nothing to read.
    #[error("projection {name} names no topic")]
    NoTopics {
        /// The projection.
        name: String,
    },
    /// The schema name would need quotes.
    #[error("schema name {name:?}: use small letters, digits and _, not starting with a digit")]
    Schema {
        /// The name.
        name: String,
    },
    /// PostgreSQL refused, or does not answer.
    #[error("{action}")]
    Database {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: sqlx::Error,
    },
}

impl Projection {
    /// Declares a projection. Its name is what its progress is stored under.
    ///
    /// # Errors
    /// [`ProjectionError`] if the name is empty or longer than 200 bytes, or there is no topic.
    pub fn new(name: &str, topics: &[&str]) -> Result<Self, ProjectionError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(ProjectionError::Name { name: name.to_owned() });
        }
        if topics.is_empty() {
            return Err(ProjectionError::NoTopics { name: name.to_owned() });
        }
        Ok(Self {
            name: Arc::from(name),
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            limits: Limits {
                batch_events_max: 1_000,
                batch_bytes_max: 16 * 1024 * 1024,
                batch_deadline: Duration::from_secs(120),
                cached_streams_max: 100_000,
            },
            first_version: FirstVersion::Zero,
            unknown_events: UnknownEvents::Refuse,
            ledger: Ledger::new(name, "annals_projections"),
        })
    }

    /// Applies at most this many events in one transaction (1,000 unless set). A batch is what is there:
    /// nothing is waited for to fill it. It also ends at 16 MiB of payload.
    #[must_use]
    pub fn batch_events_max(mut self, events: NonZeroUsize) -> Self {
        self.limits.batch_events_max = events.get();
        self
    }

    /// Gives up a transaction after this long (120 s unless set), and tries the batch again on
    /// another connection: this is what ends a wait for a server whose host has vanished.
    #[must_use]
    pub fn batch_deadline(mut self, deadline: Duration) -> Self {
        self.limits.batch_deadline = deadline;
        self
    }

    /// Keeps the progress in tables of this database schema (`annals_projections` unless set).
    ///
    /// # Errors
    /// [`ProjectionError::Schema`] if the name would need quotes in SQL.
    pub fn schema(mut self, name: &str) -> Result<Self, ProjectionError> {
        if !needs_no_quotes(name) {
            return Err(ProjectionError::Schema { name: name.to_owned() });
        }
        self.ledger = Ledger::new(&self.name, name);
        Ok(self)
    }

    /// Which version the first event seen of a stream may have: [`FirstVersion::Zero`] unless set.
    #[must_use]
    pub fn first_version(mut self, first: FirstVersion) -> Self {
        self.first_version = first;
        self
    }

    /// What to do with event types that the program does not declare: [`UnknownEvents::Refuse`] unless set.
    #[must_use]
    pub fn unknown_events(mut self, unknown: UnknownEvents) -> Self {
        self.unknown_events = unknown;
        self
    }

    /// Creates the schema and tables for the progress of projections, unless they exist.
    ///
    /// # Errors
    /// [`ProjectionError::Database`].
    pub async fn prepare(&self, pool: &PgPool) -> Result<(), ProjectionError> {
        let failed = |source| ProjectionError::Database {
            action: "create the tables for the progress of projections",
            source,
        };
        let mut connection = pool.acquire().await.map_err(failed)?;
        self.ledger.prepare(&mut connection).await.map_err(failed)
    }

    /// Lets the next run read the topics from their beginning: for a topic that was created anew and filled
    /// again. What was applied stays applied: its events are dropped as duplicates.
    ///
    /// # Errors
    /// [`ProjectionError::Database`].
    pub async fn replay(&self, connection: &mut PgConnection) -> Result<(), ProjectionError> {
        self.ledger.replay(connection).await.map_err(|source| ProjectionError::Database {
            action: "reset the offsets of the projection",
            source,
        })
    }

    /// Lets the next run apply everything again. Call it in the transaction that empties the read
    /// model. After [`RunError::Forked`](crate::RunError::Forked) the topics must be published anew first: in those that
    /// have both histories the fork comes again.
    ///
    /// # Errors
    /// [`ProjectionError::Database`].
    pub async fn forget(&self, connection: &mut PgConnection) -> Result<(), ProjectionError> {
        self.replay(connection).await?;
        self.ledger.forget_versions(connection).await.map_err(|source| ProjectionError::Database {
            action: "reset the versions of the projection",
            source,
        })
    }

    /// What runs this projection. It takes one connection out of the pool and keeps it.
    #[must_use]
    pub fn runner(&self, pool: &PgPool, settings: Settings, schemas: Schemas) -> Runner {
        Runner { projection: self.clone(), pool: pool.clone(), settings, schemas }
    }
}

fn needs_no_quotes(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    name.len() <= SCHEMA_BYTES_MAX
        && name.bytes().all(plain)
        && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schema_name_that_could_change_a_statement_is_refused() {
        for name in ["", "1st", "a.b", "a b", "Flights", "x\"; drop table y", &"a".repeat(64)] {
            let refused = Projection::new("p", &["t"]).unwrap().schema(name);
            assert!(matches!(refused, Err(ProjectionError::Schema { .. })), "{name}");
        }
        assert!(Projection::new("p", &["t"]).unwrap().schema("read_models_2").is_ok());
    }

    #[test]
    fn projection_without_name_or_topics_is_refused() {
        assert!(matches!(Projection::new("", &["t"]), Err(ProjectionError::Name { .. })));
        assert!(matches!(Projection::new("p", &[]), Err(ProjectionError::NoTopics { .. })));
    }
}
