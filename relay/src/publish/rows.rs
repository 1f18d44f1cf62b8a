//! Rows of the outbox become messages.

use std::pin::pin;

use annals_store::Position;
use annals_store::outbox::{OutboxEvent, OutboxRow};
use futures_util::TryStreamExt;

use crate::publish::encoder::{EncodeFailure, Encoder};
use crate::publish::page_builder::PageBuilder;
use crate::report::failure::Failure;
use crate::state::SkippedEvents;

/// The rows that one statement has returned.
pub(crate) struct RowsRead {
    /// The number of events, those left out included.
    pub(crate) events: usize,
    /// The position of the last one.
    pub(crate) last: Option<Position>,
    /// The number of received rows, and the bytes of their payloads and keys.
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
    pub(crate) left: RowsLeft,
    /// Whether rows were left: the batch is full, the time is over, or an event has to wait.
    pub(crate) is_cut: bool,
}

/// Whether the server may have more rows to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowsLeft {
    No,
    Yes,
    /// Yes, and they come slowly.
    Slow,
}

impl RowsRead {
    pub(crate) const fn none() -> Self {
        Self { events: 0, last: None, rows: 0, bytes: 0, left: RowsLeft::No, is_cut: false }
    }
}

/// Takes rows until the batch is full, the time is over, or an event has to wait for its topic or
/// its schema. Of the rows after that one it learns the topics, so that all of these are prepared
/// together.
pub(crate) async fn collect(
    rows: impl futures_util::Stream<Item = Result<OutboxRow, annals_store::Error>>,
    encoder: &mut Encoder,
    skipped: &mut SkippedEvents,
    page: &mut PageBuilder,
    is_left_out: impl Fn(&OutboxEvent<'_>) -> bool,
) -> Result<RowsRead, Failure> {
    let mut read = RowsRead::none();
    let mut rows = pin!(rows);
    while let Some(row) = rows.try_next().await? {
        let event = row.event()?;
        read.rows += 1;
        read.bytes += event.payload.len() + event.stream.len();
        if read.is_cut && is_left_out(&event) {
            continue;
        }
        if read.is_cut {
            page.delays_others |= page.waits && encoder.is_ready(&event);
            encoder.want(&event);
            continue;
        }
        read.left = left(&read, page);
        if read.left != RowsLeft::No {
            read.is_cut = true;
            break;
        }
        let is_omitted = is_left_out(&event)
            || page.new_entries.include(&event)
            || skipped.contains(event.position).await?;
        let taken = if is_omitted { Taken::Yes } else { take(&event, encoder, page)? };
        match taken {
            Taken::Yes => {
                read.events += 1;
                read.last = Some(event.position);
            }
            Taken::NotReady => {
                read.is_cut = true;
                page.waits = true;
            }
            Taken::StaysQuarantined => read.is_cut = true,
        }
    }
    Ok(read)
}

/// Whether this row and those behind it are left to the next page. Each statement makes progress.
fn left(read: &RowsRead, page: &PageBuilder) -> RowsLeft {
    if read.events > 0 && page.is_late() {
        RowsLeft::Slow
    } else if page.collector.is_full() {
        RowsLeft::Yes
    } else {
        RowsLeft::No
    }
}

/// Whether the page is done with an event.
enum Taken {
    Yes,
    NotReady,
    StaysQuarantined,
}

fn take(
    event: &OutboxEvent<'_>,
    encoder: &mut Encoder,
    page: &mut PageBuilder,
) -> Result<Taken, Failure> {
    match encoder.message(event) {
        Ok(message) => page.push(event, message),
        Err(EncodeFailure::Quarantine(entry)) if page.keeps_waiting(&entry) => {
            return Ok(Taken::StaysQuarantined);
        }
        Err(EncodeFailure::Quarantine(entry)) => page.new_entries.push(entry),
        Err(EncodeFailure::NotReady) => return Ok(Taken::NotReady),
        Err(EncodeFailure::Failed(failure)) => return Err(failure),
    }
    Ok(Taken::Yes)
}
