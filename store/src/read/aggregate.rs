//! Aggregates: state that is rebuilt from the events of a stream.

use annals_schemas::EventSet;

use crate::error::{Conflict, Error};
use crate::read::pages::Reading;
use crate::read::query::Read;
use crate::read::rows::decode;
use crate::store::Store;
use crate::stream::{ExpectedVersion, StreamName, Version};

/// State that results from the events of one stream, applied in order to the default state.
pub trait Aggregate: Default + Send {
    /// The events of its category.
    type Event: EventSet + Send;

    /// Applies an event to the state. It cannot fail: the event is already recorded.
    fn apply(&mut self, event: Self::Event);
}

/// An aggregate at the time when its stream was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded<A> {
    /// The state after the last event.
    pub state: A,
    /// The version of the stream's last event, removed or not; `None` if there is no such stream.
    pub version: Option<Version>,
    /// The number of its events that an administrator removed. Above 0, the state results from the
    /// remaining events, and the application decides whether it can use this state.
    pub removed: u64,
}

impl<A> Loaded<A> {
    /// The expected version of an append that is decided on this state.
    #[must_use]
    pub fn expected(&self) -> ExpectedVersion {
        self.version.into()
    }
}

impl<A: Aggregate> Loaded<A> {
    /// Applies the events of a [`Conflict`], so that a decision can be made again without a read.
    /// False if the conflict does not have all new events, because the append asked for fewer
    /// ([`Append::with_conflict_events`]): load the aggregate again.
    ///
    /// # Errors
    /// [`Error::Decode`] if an event is not one of the aggregate's event types.
    ///
    /// [`Append::with_conflict_events`]: crate::Append::with_conflict_events
    pub fn catch_up(&mut self, conflict: &Conflict) -> Result<bool, Error> {
        for event in &conflict.events {
            // Events behind a removed event are not applied: a new load counts the removed ones.
            let next = self.version.map_or(Version::FIRST, Version::next);
            if event.version == next {
                let (version, event) = decode(event)?;
                self.state.apply(event);
                self.version = Some(version);
            }
        }
        Ok(self.version == conflict.actual)
    }
}

impl Store {
    /// Rebuilds an aggregate from all events of its stream; the default state if there are none.
    ///
    /// [`Loaded::removed`] counts the events that an administrator removed.
    ///
    /// # Errors
    /// [`Error`] if the stream cannot be read or an event cannot be decoded.
    ///
    /// ```
    /// # use annals_store::{Aggregate, Append, ExpectedVersion, Version};
    /// # use annals_testkit::{AccountEvent, account, deposited, opened};
    /// #[derive(Default)]
    /// struct Balance {
    ///     cents: i64,
    /// }
    ///
    /// impl Aggregate for Balance {
    ///     type Event = AccountEvent;
    ///
    ///     fn apply(&mut self, event: AccountEvent) {
    ///         if let AccountEvent::MoneyDeposited(deposited) = event {
    ///             self.cents += deposited.cents;
    ///         }
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let bed = annals_testkit::Testbed::new("doc_load").await;
    /// # let (store, account, deposit) = (bed.store(), account(42), deposited(5));
    /// # let append = Append::to(&account, ExpectedVersion::NoStream, [opened("Ann"), deposited(7)]);
    /// # store.append(&append).await?;
    /// let balance = store.load::<Balance>(&account).await?;
    /// assert_eq!(balance.state.cents, 7);
    /// // Appended only if no other append came first.
    /// store.append(&Append::to(&account, balance.expected(), [deposit])).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn load<A: Aggregate>(&self, stream: &StreamName) -> Result<Loaded<A>, Error> {
        let mut loaded = Loaded { state: A::default(), version: None, removed: 0 };
        let mut reading = Reading::new(self, Read::stream(stream));
        while let Some(event) = reading.next().await? {
            loaded.removed += event.removed_before;
            let (_version, event) = decode(&event)?;
            loaded.state.apply(event);
        }
        // Not the version of the last event read: if the last event was removed, no append could
        // ever match the expected version.
        let (version, removed_behind) = reading.end();
        loaded.version = version;
        loaded.removed += removed_behind;
        Ok(loaded)
    }
}
