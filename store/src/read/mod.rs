//! Reading: streams of events, in pages; each page is one query by key.

pub(crate) mod causal_tree;
pub(crate) mod listing;
pub(crate) mod pages;
mod query;
pub(crate) mod removed_events;
pub(crate) mod rows;
mod stream_page;
pub(crate) mod stretch;

pub use self::query::{Key, Read};

use annals_schemas::{EventSet, UnknownEvents};
use futures_util::stream::{self, Stream, TryStreamExt, try_unfold};

use self::pages::Reading;
use self::rows::decode;
use crate::error::Error;
use crate::event::RecordedEvent;
use crate::store::Store;
use crate::stream::{StreamName, Version};

impl Store {
    /// Reads committed events up to the end of the store at the time of the last page.
    ///
    /// Memory is bounded by a page: some 4 MiB of payloads, at most 1,000 events. Each page is one
    /// query. During concurrent appends, an event that commits late can have a lower position than
    /// an event already read, and the read misses it. A follower ([`Store::follow`]) misses no
    /// event.
    ///
    /// # Errors
    /// Items are [`Error`] when a page cannot be read; the stream ends there.
    ///
    /// ```
    /// # use std::pin::pin;
    /// # use annals_store::{Append, Category, ExpectedVersion, Read};
    /// # use annals_testkit::{AccountEvent, account, deposited, opened};
    /// # use futures_util::TryStreamExt;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let bed = annals_testkit::Testbed::new("doc_read").await;
    /// # let store = bed.store();
    /// # let events = [opened("Ann"), deposited(1), deposited(2)];
    /// # let append = Append::to(&account(1), ExpectedVersion::Any, events);
    /// # store.append(&append).await?;
    /// // The last ten deposits, the latest first.
    /// let accounts = Category::new("account")?;
    /// let read = Read::category(&accounts).of_types(["MoneyDeposited"]);
    /// let read = read.backwards().events_max(10);
    /// let mut events = pin!(store.read(read));
    /// let mut found = Vec::new();
    /// while let Some(event) = events.try_next().await? {
    ///     if let AccountEvent::MoneyDeposited(deposited) = event.decode()? {
    ///         found.push(deposited.cents);
    ///     }
    /// }
    /// assert_eq!(found, [2, 1]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn read<K: Key>(
        &self,
        read: Read<K>,
    ) -> impl Stream<Item = Result<RecordedEvent, Error>> + Send + use<K> {
        let begin = Reading::new(self, read);
        try_unfold(begin, async |mut reading: Reading<K>| {
            Ok(reading.next().await?.map(|event| (event, reading)))
        })
    }

    /// Reads a stream forwards from a version: short for [`read`](Self::read).
    ///
    /// # Errors
    /// Items are [`Error`] when a page cannot be read; the stream ends there.
    pub fn read_stream(
        &self,
        stream: &StreamName,
        from: Version,
    ) -> impl Stream<Item = Result<RecordedEvent, Error>> + Send + use<> {
        self.read(Read::stream(stream).from(from))
    }

    /// Reads a stream as values of the application's type, with their versions: several of one
    /// version where an upcaster makes them.
    ///
    /// # Errors
    /// Items are [`Error`] when a page cannot be read or an event cannot be decoded; the stream
    /// ends there.
    pub fn read_events<E: EventSet>(
        &self,
        stream: &StreamName,
        from: Version,
    ) -> impl Stream<Item = Result<(Version, E), Error>> + Send + use<E> {
        self.read_stream(stream, from).map_ok(|event| decode_each(&event)).try_flatten()
    }

    /// The version of a stream's last event, even if an administrator removed that event; `None` if
    /// there is no such stream.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn stream_version(&self, stream: &StreamName) -> Result<Option<Version>, Error> {
        let version = sqlx::query_scalar(self.statements().stream_version.clone())
            .bind(stream.as_str())
            .fetch_optional(self.pool());
        self.within_deadline(version).await.map_err(Error::database("read a stream's version"))
    }
}

/// The values of an event, with its version.
fn decode_each<E: EventSet>(
    event: &RecordedEvent,
) -> impl Stream<Item = Result<(Version, E), Error>> + Send + use<E> {
    let version = event.version;
    let decoded = match decode(event, UnknownEvents::Refuse) {
        Ok(decoded) => decoded.into_iter().map(|value| Ok((version, value))).collect(),
        Err(error) => vec![Err(error)],
    };
    stream::iter(decoded)
}
