//! Checkpoints in PostgreSQL: origins of generations, copies of those in Kafka, and those of
//! at-least-once delivery.

use annals_store::Position;
use std::collections::BTreeMap;

use annals_relay_machine::{Lease, Shard};
use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::types::Json;

use crate::model::checkpoint::ShardCheckpoint;
use crate::model::shard_number::number;
use crate::report::failure::Failure;
use crate::state::session::WriteNumber;
use crate::state::tables::{RelayTables, admitted};

/// The checkpoints of one shard in PostgreSQL.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoredCheckpoints {
    /// The one with which the generation began.
    pub(crate) origin: Option<ShardCheckpoint>,
    /// The last copy of the checkpoint in Kafka; in at-least-once delivery, the checkpoint itself.
    pub(crate) copy: Option<ShardCheckpoint>,
}

impl RelayTables {
    /// Reads the checkpoints of shards, by shard number.
    pub(crate) async fn checkpoints(
        &self,
        shards: &[Shard],
    ) -> Result<BTreeMap<i16, StoredCheckpoints>, Failure> {
        let action = "read checkpoints";
        let shards: Vec<i16> = shards.iter().copied().map(number).collect();
        let query = self.query(include_str!("../../sql/checkpoints_read.sql")).bind(shards);
        let rows = self.rows(action, query).await?;
        rows.iter().map(stored).collect::<Result<_, _>>().map_err(Failure::database(action))
    }

    /// Writes the checkpoints of at-least-once delivery.
    ///
    /// # Errors
    /// [`Failure::Fenced`] when the write is not admitted; [`Failure::Outage`].
    pub(crate) async fn write_checkpoints(
        &self,
        write: WriteNumber,
        incarnation: &str,
        checkpoints: &[(Lease, ShardCheckpoint)],
    ) -> Result<(), Failure> {
        let action = "write checkpoints";
        let leases: Vec<Lease> = checkpoints.iter().map(|(lease, _)| *lease).collect();
        let positions: Vec<Position> =
            checkpoints.iter().map(|(_, checkpoint)| checkpoint.cursor.position()).collect();
        let checkpoints: Vec<_> = checkpoints.iter().map(|(_, of)| Json(of)).collect();
        let query = self.write(include_str!("../../sql/checkpoints_write.sql"), write, &leases);
        let query = query.bind(incarnation).bind(positions).bind(checkpoints);
        let rows = self.rows(action, query).await?;
        admitted(&rows).map_err(Failure::database(action))?.then_some(()).ok_or(Failure::Fenced)
    }
}

fn stored(row: &PgRow) -> Result<(i16, StoredCheckpoints), sqlx::Error> {
    let checkpoint =
        |name| row.try_get::<Option<Json<_>>, _>(name).map(|json| json.map(|Json(of)| of));
    let (origin, copy) = (checkpoint("origin")?, checkpoint("copy")?);
    Ok((row.try_get("shard")?, StoredCheckpoints { origin, copy }))
}
