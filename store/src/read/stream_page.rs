//! A page of one stream: its events, its end, and the number of versions whose event was removed.

use std::collections::{BTreeSet, VecDeque};

use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::error::Error;
use crate::event::RecordedEvent;
use crate::read::query::sealed::{PageKey, ToPageKey};
use crate::read::rows::{DecodedRows, decode_rows};
use crate::store::Store;
use crate::stream::Version;

/// A page, as `read_stream.sql` and `read_stream_backwards.sql` return it.
pub(crate) struct StreamPage {
    /// The events that match the query.
    pub(crate) events: VecDeque<RecordedEvent>,
    /// The error of the next event.
    pub(crate) unreadable: Option<Error>,
    /// The number of scanned events, matching or not.
    pub(crate) scanned: u64,
    /// Whether the page ends before the last event within its maximum number: it has its maximum of
    /// bytes.
    pub(crate) is_cut: bool,
    /// The version of the last scanned event; none if there is no event.
    pub(crate) end: Option<PageKey>,
    /// The version of the stream's last event, removed or not; none if there is no such stream.
    pub(crate) stream_version: Option<Version>,
    /// Removed events between the last of `events` and the end of the page.
    pub(crate) removed_behind: u64,
}

/// The start of a page.
#[derive(Clone, Copy)]
pub(crate) struct PageStart {
    /// The version before the first one of the page, in the read direction.
    pub(crate) version: PageKey,
    pub(crate) is_backwards: bool,
    /// Removed events between the last matching event and this version.
    pub(crate) removed_before: u64,
}

/// A scanned event of the page.
struct ScannedRow {
    version: PageKey,
    /// 1 for the first event of the page.
    number: u64,
    is_match: bool,
    is_end: bool,
}

impl StreamPage {
    pub(crate) async fn decode(
        store: &Store,
        rows: &[PgRow],
        start: PageStart,
    ) -> Result<Self, Error> {
        let failed = Error::database_each("read events");
        let stream_version = rows.first().map(|row| row.try_get("stream_version")).transpose();
        let stream_version: Option<Version> = stream_version.map_err(&failed)?;
        let scanned = rows.iter().filter_map(|row| ScannedRow::read(row).transpose());
        let scanned = scanned.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        // The last row does not match if it only marks the end of the page.
        let matches = scanned.iter().filter(|scanned| scanned.is_match).count();
        let matching = rows.get(..matches).unwrap_or_default();
        let decoded = decode_rows(store, matching, &BTreeSet::new()).await?;
        let DecodedRows { mut events, unreadable } = decoded;
        let start = start.within(stream_version);
        let removed_behind = count_removed(&scanned, &mut events, start);
        let last = scanned.last();
        Ok(Self {
            events,
            unreadable,
            scanned: last.map_or(0, |last| last.number),
            is_cut: last.is_some_and(|last| !last.is_end),
            end: last.map(|last| last.version),
            stream_version,
            removed_behind,
        })
    }
}

impl PageStart {
    /// A backwards read starts at the end of the stream, even if its start version is higher.
    fn within(self, stream_version: Option<Version>) -> Self {
        match stream_version {
            Some(last) if self.is_backwards => {
                Self { version: self.version.min(last.key().next()), ..self }
            }
            _ => self,
        }
    }

    /// The number of removed events from the start to this event.
    fn removed_up_to(self, scanned: &ScannedRow) -> u64 {
        let versions = scanned.version.distance(self.version);
        self.removed_before + versions.saturating_sub(scanned.number)
    }
}

impl ScannedRow {
    /// None if the stream has no event in the page.
    fn read(row: &PgRow) -> Result<Option<Self>, sqlx::Error> {
        let Some(version) = row.try_get("version")? else { return Ok(None) };
        let number: i64 = row.try_get("number")?;
        let (number, is_match) = (number.unsigned_abs(), row.try_get("is_match")?);
        Ok(Some(Self { version, number, is_match, is_end: row.try_get("is_end")? }))
    }
}

/// Sets `removed_before` of each event; returns the number of removed events behind the last one.
fn count_removed(
    scanned: &[ScannedRow],
    events: &mut VecDeque<RecordedEvent>,
    start: PageStart,
) -> u64 {
    let mut counted = 0;
    for (scanned, event) in scanned.iter().filter(|scanned| scanned.is_match).zip(events) {
        let removed = start.removed_up_to(scanned);
        event.removed_before = removed - counted;
        counted = removed;
    }
    scanned.last().map_or(start.removed_before, |last| start.removed_up_to(last)) - counted
}
