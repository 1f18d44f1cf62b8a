//! The proof of the last audit without faults: the next one continues there.

use annals_store::outbox::TransactionId;
use annals_store::{Position, Store};
use sqlx::Row;
use sqlx::types::Json;

use crate::audit::partition::ProvenPartition;
use crate::report::failure::Failure;

/// `insufficient_privilege`: an audit by a login that only reads is complete without its proof.
const FORBIDDEN: &str = "42501";

/// Every event up to a position is accounted for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Proof {
    pub(super) proven: Position,
    /// Where the next audit reads on.
    pub(super) partitions: Vec<ProvenPartition>,
}

impl Proof {
    /// Nothing is proved.
    pub(super) const fn none() -> Self {
        Self { proven: Position::ORIGIN, partitions: Vec::new() }
    }

    pub(super) async fn read(store: &Store, publication: &str) -> Result<Self, Failure> {
        let action = "read the proof of the last audit";
        let statement = store.schema().statement(include_str!("../../sql/audit_proof.sql"));
        let row = sqlx::query(statement).bind(publication).fetch_optional(store.pool()).await;
        let Some(row) = row.map_err(Failure::database(action))? else { return Ok(Self::none()) };
        let read = || {
            let Json(partitions) = row.try_get("partitions")?;
            Ok(Self { proven: row.try_get("proven")?, partitions })
        };
        read().map_err(Failure::database(action))
    }

    /// Records it; returns the position up to which the next audit relies on it. None if the login
    /// may not write.
    pub(super) async fn record(
        &self,
        store: &Store,
        publication: &str,
        next_xid: TransactionId,
    ) -> Result<Option<Position>, Failure> {
        let statement = store.schema().statement(include_str!("../../sql/audit_record_proof.sql"));
        let recorded = sqlx::query_scalar(statement)
            .bind(publication)
            .bind(self.proven)
            .bind(Json(&self.partitions))
            .bind(next_xid)
            .fetch_one(store.pool())
            .await;
        match recorded {
            Ok(proven) => Ok(Some(proven)),
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(FORBIDDEN) => {
                Ok(None)
            }
            Err(error) => Err(Failure::database("record the proof of the audit")(error)),
        }
    }
}
