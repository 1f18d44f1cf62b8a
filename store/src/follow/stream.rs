//! The follower of one stream.

use std::collections::VecDeque;

use futures_util::stream::TryStreamExt;

use super::poll::{PollTimer, Polled};
use super::request::POLL_IDLE_MAX;
use super::windows::PAGE_EVENTS;
use crate::error::Error;
use crate::event::RecordedEvent;
use crate::read::Read;
use crate::store::Store;
use crate::stream::{StreamName, Version};

/// A follower of one stream in progress.
pub(super) struct StreamFollower {
    store: Store,
    stream: StreamName,
    from: Version,
    page: VecDeque<RecordedEvent>,
    timer: PollTimer,
}

impl StreamFollower {
    pub(super) fn new(store: &Store, stream: &StreamName, from: Version) -> Self {
        Self {
            store: store.clone(),
            stream: stream.clone(),
            from,
            page: VecDeque::new(),
            timer: PollTimer::new(store.notifications().subscribe(), POLL_IDLE_MAX),
        }
    }

    pub(super) async fn next(&mut self) -> Result<RecordedEvent, Error> {
        loop {
            if let Some(event) = self.page.pop_front() {
                self.from = event.version.next();
                return Ok(event);
            }
            self.timer.before_poll();
            let page =
                Read::stream(&self.stream).from(self.from).events_max(PAGE_EVENTS.unsigned_abs());
            self.page = self.store.read(page).try_collect().await?;
            let polled = if self.page.is_empty() { Polled::Nothing } else { Polled::Something };
            self.timer.after_poll(polled).await;
        }
    }
}
