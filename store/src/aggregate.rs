//! Aggregates: state that is rebuilt from the events of its stream.

use annals_schemas::EventSet;

use crate::error::{Conflict, Error};
use crate::read::{Read, Reading, decode};
use crate::store::Store;
use crate::stream::{ExpectedVersion, StreamName, Version};

/// State that the events of one stream make, one after the other, from the default state.
pub trait Aggregate: Default + Send {
    /// The events of its category.
    type Event: EventSet + Send;

    /// Takes an event into the state. Events happened: there is nothing to refuse here.
    fn apply(&mut self, event: Self::Event);
}

/// An aggregate as it stood when its stream was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded<A> {
    /// The state after the last event.
    pub state: A,
    /// The version of the last event that the stream ever had; `None` when there is no such stream.
    pub version: Option<Version>,
    /// How many of its events were removed by logged administration. Unless 0, the state is that of the events
    /// which are left, and it is for the application to say whether it may decide on that.
    pub removed: u64,
}

impl<A> Loaded<A> {
    /// What an append that was decided on this state must expect.
    #[must_use]
    pub fn expected(&self) -> ExpectedVersion {
        self.version.into()
    }
}

impl<A: Aggregate> Loaded<A> {
    /// Takes in what a [`Conflict`] carries, so that a decision can be made again without reading. False when that
    /// is not all that happened: the append asked for fewer events ([`Append::with_conflict_events`]), and the
    /// aggregate must be loaded again.
    ///
    /// # Errors
    /// [`Error::Decode`] when an event is none of the aggregate's.
    ///
    /// [`Append::with_conflict_events`]: crate::Append::with_conflict_events
    pub fn catch_up(&mut self, conflict: &Conflict) -> Result<bool, Error> {
        for event in &conflict.events {
            // Events behind a hole are not taken in: loading again counts what was removed.
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
    /// Rebuilds an aggregate from all events of its stream; the default state when there is none.
    ///
    /// Events that were removed are missing in the state, and counted in [`Loaded::removed`].
    ///
    /// # Errors
    /// [`Error`] when the stream cannot be read or an event not be decoded.
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
    /// // Appended only if nobody was faster.
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
        // Not that of the last event read: where that was removed, no append would ever find the version expected.
        let (version, removed_behind) = reading.end();
        loaded.version = version;
        loaded.removed += removed_behind;
        Ok(loaded)
    }
}
