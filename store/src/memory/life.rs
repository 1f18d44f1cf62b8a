//! The ends of streams in memory: closed, truncated, archived.

use jiff::Timestamp;

use crate::error::Error;
use crate::memory::changes::Changes;
use crate::memory::illegal;
use crate::memory::log::{Absence, MemoryLog, now};
use crate::stream::{StreamName, Version};
use crate::stream_life::StreamLife;

impl MemoryLog {
    pub(super) fn life(&self, stream: &StreamName) -> Option<StreamLife> {
        let version = self.version(stream)?;
        let (closed_at, truncated_before, archived_at) =
            self.changes.get(stream).map_or((None, None, None), |changes| {
                (changes.closed_at, changes.truncated_before, changes.archived_at)
            });
        Some(StreamLife { version, closed_at, truncated_before, archived_at })
    }

    pub(super) fn closed_at(&self, stream: &StreamName) -> Option<Timestamp> {
        self.changes.get(stream)?.closed_at
    }

    pub(super) fn close(&mut self, stream: &StreamName, reason: &str) -> Result<bool, Error> {
        let changes = self.change("close a stream", stream, reason)?;
        let is_open = changes.closed_at.is_none();
        changes.closed_at.get_or_insert_with(now);
        Ok(is_open)
    }

    pub(super) fn reopen(&mut self, stream: &StreamName, reason: &str) -> Result<bool, Error> {
        let changes = self.change("open a stream", stream, reason)?;
        if changes.archived_at.is_some() {
            let reason = format!("stream {stream} is archived: restore it first");
            return Err(illegal("open a stream", reason));
        }
        Ok(changes.closed_at.take().is_some())
    }

    /// Removes the events below a version; their number.
    pub(super) fn truncate(
        &mut self,
        stream: &StreamName,
        before: Version,
        reason: &str,
    ) -> Result<u64, Error> {
        const ACTION: &str = "truncate a stream";
        let last = self.version(stream);
        let changes = self.change(ACTION, stream, reason)?;
        if last.is_some_and(|last| before > last) {
            let reason = format!("a truncation before {before} would remove the last event");
            return Err(illegal(ACTION, reason));
        }
        changes.truncated_before = changes.truncated_before.max(Some(before));
        Ok(self.take_out(stream, Some(before), Absence::Removed))
    }

    /// Moves the events of a closed stream out of the log; their number.
    pub(super) fn archive(&mut self, stream: &StreamName, reason: &str) -> Result<u64, Error> {
        const ACTION: &str = "archive a stream";
        let changes = self.change(ACTION, stream, reason)?;
        if changes.closed_at.is_none() {
            return Err(illegal(ACTION, format!("stream {stream} is open: close it first")));
        }
        changes.archived_at.get_or_insert_with(now);
        Ok(self.take_out(stream, None, Absence::Archived))
    }

    /// Moves the events of an archived stream back; their number.
    pub(super) fn restore(&mut self, stream: &StreamName, reason: &str) -> Result<u64, Error> {
        const ACTION: &str = "restore a stream";
        let is_recorded_again = self.has_other_events_with_archived_ids(stream);
        let changes = self.change(ACTION, stream, reason)?;
        if is_recorded_again {
            let reason = format!("an id of stream {stream} is recorded again");
            return Err(illegal(ACTION, reason));
        }
        changes.archived_at = None;
        Ok(self.put_back(stream))
    }

    fn change(
        &mut self,
        action: &'static str,
        stream: &StreamName,
        reason: &str,
    ) -> Result<&mut Changes, Error> {
        if self.version(stream).is_none() {
            return Err(illegal(action, format!("there is no stream {stream}")));
        }
        if reason.trim().is_empty() {
            return Err(illegal(action, "without a reason".to_owned()));
        }
        Ok(self.changes.entry(stream.clone()).or_default())
    }
}
