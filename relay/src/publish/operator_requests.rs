//! The requests of operators, by the `quarantine` subcommands.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use annals_store::Store;
use sqlx::PgConnection;

use crate::model::checkpoint::EntryId;
use crate::report::failure::Failure;

/// The interval at which requests are read when no notification arrives.
const POLL_INTERVAL: Duration = Duration::from_secs(10);

/// The requests, as they were last read.
#[derive(Default)]
pub(crate) struct OperatorRequests {
    read_at: Option<Instant>,
    retries: HashSet<EntryId>,
}

impl OperatorRequests {
    /// Reads the requests of a deployment.
    pub(crate) async fn read(
        connection: &mut PgConnection,
        store: &Store,
        publication: &str,
    ) -> Result<Self, Failure> {
        let statement = store.schema().statement(include_str!("../../sql/quarantine_retries.sql"));
        let retries: Vec<i64> = sqlx::query_scalar(statement)
            .bind(publication)
            .fetch_all(connection)
            .await
            .map_err(Failure::database("read the requests of operators"))?;
        Ok(Self {
            read_at: Some(Instant::now()),
            retries: retries.into_iter().map(EntryId::new).collect(),
        })
    }

    /// Has them read before the next page.
    pub(crate) fn forget(&mut self) {
        self.read_at = None;
    }

    /// Whether they are to be read: after a notification, or at an interval while something is
    /// quarantined.
    pub(crate) fn is_due(&self, quarantine: QuarantineState) -> bool {
        match (self.read_at, quarantine) {
            (None, _) => true,
            (Some(_), QuarantineState::Empty) => false,
            (Some(at), QuarantineState::HasEntries) => at.elapsed() >= POLL_INTERVAL,
        }
    }

    /// Whether an operator asked to retry this entry.
    pub(crate) fn retry_requested(&self, entry: EntryId) -> bool {
        self.retries.contains(&entry)
    }
}

/// Whether the shards have quarantine entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QuarantineState {
    /// None.
    Empty,
    /// Some.
    HasEntries,
}
