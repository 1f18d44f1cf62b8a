//! A page of one stream: its events, how far it went, and how many versions on the way have no event any more.

use std::collections::{BTreeSet, VecDeque};

use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::error::Error;
use crate::event::RecordedEvent;
use crate::rows::{Recorded, recorded};
use crate::store::Store;

/// A page, as `read_stream.sql` and `read_stream_backwards.sql` give it.
pub(crate) struct StreamPage {
    /// The events asked for.
    pub(crate) events: VecDeque<RecordedEvent>,
    /// Why the next one cannot be read.
    pub(crate) unreadable: Option<Error>,
    /// How many events were looked at, asked for or not.
    pub(crate) looked_at: i64,
    /// The version of the last event looked at; none when there is no event.
    pub(crate) end: Option<i64>,
    /// The version of the stream's last event, removed or not; none when there is no such stream.
    pub(crate) stream_version: Option<i64>,
    /// Events removed behind the last of `events`, as far as the page went.
    pub(crate) removed_behind: u64,
}

/// Where a page begins.
#[derive(Clone, Copy)]
pub(crate) struct Begin {
    /// The version next to the first one of the page.
    pub(crate) version: i64,
    pub(crate) is_backwards: bool,
    /// Events removed between the last one given and this version.
    pub(crate) removed_before: u64,
}

/// An event of the page, given or only looked at.
struct Seen {
    version: i64,
    place: i64,
    is_asked: bool,
}

impl StreamPage {
    pub(crate) async fn of(store: &Store, rows: &[PgRow], begin: Begin) -> Result<Self, Error> {
        let failed = Error::database_each("read events");
        let stream_version = rows.first().map(|row| row.try_get("stream_version")).transpose();
        let stream_version: Option<i64> = stream_version.map_err(&failed)?;
        let seen = rows.iter().filter_map(|row| Seen::read(row).transpose());
        let seen = seen.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        // The last row may be there only to say where the page ends.
        let asked = seen.iter().filter(|seen| seen.is_asked).count();
        let asked = rows.get(..asked).unwrap_or_default();
        let Recorded { mut events, unreadable } = recorded(store, asked, &BTreeSet::new()).await?;
        let begin = begin.within(stream_version);
        let removed_behind = count_removed(&seen, &mut events, begin);
        let last = seen.last();
        Ok(Self {
            events,
            unreadable,
            looked_at: last.map_or(0, |last| last.place),
            end: last.map(|last| last.version),
            stream_version,
            removed_behind,
        })
    }
}

impl Begin {
    /// A reading backwards begins at the end of the stream, not at a version that was never given.
    fn within(self, stream_version: Option<i64>) -> Self {
        match stream_version {
            Some(last) if self.is_backwards => Self { version: self.version.min(last + 1), ..self },
            _ => self,
        }
    }

    /// How many versions from the begin to this event have no event.
    fn removed_up_to(self, seen: &Seen) -> u64 {
        let versions = (seen.version - self.version).unsigned_abs();
        self.removed_before + versions.saturating_sub(seen.place.unsigned_abs())
    }
}

impl Seen {
    /// None where the stream has no event.
    fn read(row: &PgRow) -> Result<Option<Self>, sqlx::Error> {
        let Some(version) = row.try_get("version")? else { return Ok(None) };
        Ok(Some(Self { version, place: row.try_get("place")?, is_asked: row.try_get("is_asked")? }))
    }
}

/// Tells each event how many were removed before it; returns how many were removed behind the last one.
fn count_removed(seen: &[Seen], events: &mut VecDeque<RecordedEvent>, begin: Begin) -> u64 {
    let mut told = 0;
    for (seen, event) in seen.iter().filter(|seen| seen.is_asked).zip(events) {
        let removed = begin.removed_up_to(seen);
        event.removed_before = removed - told;
        told = removed;
    }
    seen.last().map_or(begin.removed_before, |last| begin.removed_up_to(last)) - told
}
