//! Following: all events from a checkpoint, then each new event, without loss, reordering or
//! stalls.
//!
//! A follower reads the log window by window: the events that became visible between two snapshots,
//! in position order. The first window of a follower without a checkpoint is the whole history.

mod checkpoint;
mod evidence;
mod poll;
mod request;
mod stream;
mod windows;

pub(crate) use self::checkpoint::Filter;
pub use self::checkpoint::{Checkpoint, CheckpointFormatError};
pub use self::request::{Follow, Followed};
pub(crate) use self::windows::{FollowedPage, Follower};

use std::sync::Arc;

use futures_util::stream::{Stream, try_unfold};

use self::stream::StreamFollower;
use crate::error::Error;
use crate::event::RecordedEvent;
use crate::outbox::LogEnd;
use crate::store::Store;
use crate::stream::{StreamName, Version};

impl Store {
    /// Follows the log: each event after the checkpoint, then each new event as it is committed,
    /// without end.
    ///
    /// Each event comes once, and the events of a stream in version order. An open
    /// transaction delays only its own events. Across streams, the
    /// events of one window come in position order. Memory is bounded by a page of 500 events.
    ///
    /// # Errors
    /// Items are [`Error::UnreadableEvent`] for an event with content that no append writes, after
    /// all earlier events; [`Error::OtherHistory`] if processed events are missing from the store;
    /// [`Error::OtherStore`]; [`Error::OtherCluster`]; and other [`Error`]s if a page cannot be
    /// read. The stream ends there. If [`Error::is_retryable`], follow again from the last
    /// checkpoint.
    ///
    /// ```
    /// # use std::pin::pin;
    /// # use annals_store::{Append, Checkpoint, ExpectedVersion, Follow};
    /// # use annals_testkit::{account, deposited, opened};
    /// # use futures_util::TryStreamExt;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let bed = annals_testkit::Testbed::new("doc_follow").await;
    /// # let store = bed.store();
    /// # let append = Append::to(&account(1), ExpectedVersion::Any, [opened("Ann"), deposited(1)]);
    /// # store.append(&append).await?;
    /// let mut log = pin!(store.follow(Follow::all()));
    /// let first = log.try_next().await?.ok_or("a log has no end")?;
    /// // Store it with the result of processing the event, in the same transaction.
    /// let stored: String = serde_json::to_string(&first.checkpoint)?;
    ///
    /// // After a restart.
    /// let checkpoint: Checkpoint = serde_json::from_str(&stored)?;
    /// let mut log = pin!(store.follow(Follow::all().after(checkpoint)));
    /// let second = log.try_next().await?.ok_or("a log has no end")?;
    /// assert_eq!(second.event.version, first.event.version.next());
    /// # Ok(())
    /// # }
    /// ```
    pub fn follow(
        &self,
        follow: Follow,
    ) -> impl Stream<Item = Result<Followed, Error>> + Send + use<> {
        let follower = Follower::new(self, follow);
        try_unfold(follower, async |mut follower: Follower| {
            let followed = follower.next().await?;
            Ok(Some((followed, follower)))
        })
    }

    /// The current end of the log: a follower that starts [`after`](Follow::after) it gets only
    /// events that are committed later.
    ///
    /// # Errors
    /// [`Error::OtherCluster`]; [`Error::Database`].
    pub async fn end_of_log(&self) -> Result<Checkpoint, Error> {
        let LogEnd { history, bound, .. } = windows::read_log_end(self).await?;
        Ok(Checkpoint::at(Arc::new(history), Arc::new(bound)))
    }

    /// Follows one stream from a version: its events, then each new event as it is committed,
    /// without end.
    ///
    /// The version of the last event is the checkpoint. The follower continues behind events that
    /// an administrator removed; [`RecordedEvent::removed_before`] of the next event is their
    /// number.
    ///
    /// # Errors
    /// Items are [`Error`] when a page cannot be read; the stream ends there.
    pub fn follow_stream(
        &self,
        stream: &StreamName,
        from: Version,
    ) -> impl Stream<Item = Result<RecordedEvent, Error>> + Send + use<> {
        let follower = StreamFollower::new(self, stream, from);
        try_unfold(follower, async |mut follower: StreamFollower| {
            let event = follower.next().await?;
            Ok(Some((event, follower)))
        })
    }
}
