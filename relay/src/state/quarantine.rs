//! The quarantine in PostgreSQL.

use std::collections::BTreeMap;

use annals_relay_machine::Lease;
use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::types::Json;

use crate::model::checkpoint::{Cursor, EntryId, EntryProgress};
use crate::model::quarantine::{Cause, Entry, EntryState, Kind, NamedEntry, NewEntry, Quarantine};
use crate::model::shard_number::number;
use crate::report::failure::Failure;
use crate::state::session::WriteNumber;
use crate::state::tables::{RelayTables, admitted};

impl RelayTables {
    /// Quarantines streams and categories, from the committed cursors of their shards on.
    ///
    /// # Errors
    /// [`Failure::Fenced`] when the write is not admitted; [`Failure::Outage`].
    pub(crate) async fn quarantine(
        &self,
        write: WriteNumber,
        leases: &[Lease],
        (incarnation, cursors): (&str, &[&Cursor]),
        entries: &[NewEntry],
    ) -> Result<(), Failure> {
        let action = "quarantine streams and categories";
        let cursors: Vec<Json<&Cursor>> = cursors.iter().map(|cursor| Json(*cursor)).collect();
        let query = self.write(include_str!("../../sql/quarantine_add.sql"), write, leases);
        let query = query.bind(incarnation).bind(cursors).bind(Json(entries));
        let rows = self.rows(action, query).await?;
        admitted(&rows).map_err(Failure::database(action))?.then_some(()).ok_or(Failure::Fenced)
    }

    /// Records the progress of entries in committed checkpoints. False when the write is not
    /// admitted: another session may have advanced the entries.
    pub(crate) async fn advance_quarantine(
        &self,
        write: WriteNumber,
        incarnation: &str,
        leases: &[Lease],
        progress: &[EntryProgress],
    ) -> Result<bool, Failure> {
        let action = "record the progress of the quarantine";
        let entries: Vec<i64> = progress.iter().map(|progress| progress.entry.get()).collect();
        let cursors: Vec<Option<Json<&Cursor>>> =
            progress.iter().map(|progress| progress.cursor.as_ref().map(Json)).collect();
        let query = self.write(include_str!("../../sql/quarantine_advance.sql"), write, leases);
        let query = query.bind(incarnation).bind(entries).bind(cursors);
        admitted(&self.rows(action, query).await?).map_err(Failure::database(action))
    }

    /// The quarantine of these shards, by shard number.
    pub(crate) async fn quarantine_of(
        &self,
        leases: &[Lease],
    ) -> Result<BTreeMap<i16, Quarantine>, Failure> {
        let action = "read the quarantine";
        let shards: Vec<i16> = leases.iter().map(|lease| number(lease.shard)).collect();
        let query = self.query(include_str!("../../sql/quarantine_of_shards.sql")).bind(shards);
        let mut entries: BTreeMap<i16, Vec<_>> = BTreeMap::new();
        for row in self.rows(action, query).await? {
            let (shard, named) = entry(&row).map_err(Failure::database(action))?;
            entries.entry(shard).or_default().push(named);
        }
        Ok(entries.into_iter().map(|(shard, of)| (shard, Quarantine::new(of))).collect())
    }
}

fn entry(row: &PgRow) -> Result<(i16, NamedEntry), sqlx::Error> {
    let kind = match row.try_get("kind")? {
        "category" => Kind::Category,
        _ => Kind::Stream,
    };
    let Json(cursor) = row.try_get("cursor")?;
    let id = EntryId::new(row.try_get("entry")?);
    let text: &str = row.try_get("cause")?;
    let cause = Cause::ALL.into_iter().find(|cause| cause.id() == text).unwrap_or(Cause::Topic);
    let entry = Entry { id, cause, cursor, state: EntryState::Recorded };
    Ok((row.try_get("shard")?, ((kind, row.try_get("name")?), entry)))
}
