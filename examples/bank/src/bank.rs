//! Step 2: the bank. Each operation loads an account, decides, and appends under the loaded
//! version.

use annals_store::{Append, AppendError, NewEvent, Store, StreamName};
use anyhow::Result;

use crate::account::{Account, AccountEvent, Declined};

/// The maximum number of events in a conflict, so that a decision can be repeated without another
/// read.
const CONFLICT_EVENTS_MAX: u16 = 100;

/// The bank: nothing but the store.
#[derive(Debug, Clone)]
pub(crate) struct Bank {
    store: Store,
}

/// What became of an operation that could be carried out at all.
pub(crate) type Decision = Result<Done, Declined>;

/// An operation that is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Done {
    /// The number of decisions that were repeated because another append was faster.
    pub(crate) conflicts: u32,
}

impl Bank {
    pub(crate) const fn new(store: Store) -> Self {
        Self { store }
    }

    pub(crate) async fn open(&self, account: &StreamName, owner: &str) -> Result<Decision> {
        self.decide(account, |state| state.open(owner)).await
    }

    pub(crate) async fn pay_in(&self, account: &StreamName, cents: i64) -> Result<Decision> {
        self.decide(account, |state| state.pay_in(cents)).await
    }

    pub(crate) async fn withdraw(&self, account: &StreamName, cents: i64) -> Result<Decision> {
        self.decide(account, |state| state.withdraw(cents)).await
    }

    pub(crate) async fn balance(&self, account: &StreamName) -> Result<i64> {
        Ok(self.store.load::<Account>(account).await?.state.cents)
    }

    /// Load, decide, append; if another append was faster, apply its events and decide again.
    async fn decide(
        &self,
        account: &StreamName,
        decision: impl Fn(&Account) -> Result<AccountEvent, Declined>,
    ) -> Result<Decision> {
        let mut loaded = self.store.load::<Account>(account).await?;
        let mut conflicts = 0;
        loop {
            let event = match decision(&loaded.state) {
                Ok(event) => NewEvent::new(&event)?,
                Err(declined) => return Ok(Err(declined)),
            };
            let append = Append::to(account, loaded.expected(), [event])
                .with_conflict_events(CONFLICT_EVENTS_MAX);
            match settle(&self.store, &append).await {
                Ok(()) => return Ok(Ok(Done { conflicts })),
                Err(error) => match error.conflict_of(account) {
                    Some(conflict) if loaded.catch_up(conflict)? => conflicts += 1,
                    // More happened than a conflict carries.
                    Some(_) => loaded = self.store.load(account).await?,
                    None => return Err(error.into()),
                },
            }
        }
    }

    /// Takes money from one account and gives it to another, in one append: both, or neither.
    pub(crate) async fn transfer(
        &self,
        from: &StreamName,
        to: &StreamName,
        cents: i64,
    ) -> Result<Decision> {
        let mut conflicts = 0;
        loop {
            let payer = self.store.load::<Account>(from).await?;
            let payee = self.store.load::<Account>(to).await?;
            let decided = payer
                .state
                .send(cents, to.as_str())
                .and_then(|sent| Ok((sent, payee.state.receive(cents, from.as_str())?)));
            let (sent, received) = match decided {
                Ok(events) => events,
                Err(declined) => return Ok(Err(declined)),
            };
            let append = Append::to(from, payer.expected(), [NewEvent::new(&sent)?]).and_to(
                to,
                payee.expected(),
                [NewEvent::new(&received)?],
            );
            match settle(&self.store, &append).await {
                Ok(()) => return Ok(Ok(Done { conflicts })),
                Err(AppendError::Refused(_)) => conflicts += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Appends until the outcome is known. The events keep their ids, so that they are recorded once,
/// however often the connection breaks.
async fn settle(store: &Store, append: &Append) -> Result<(), AppendError> {
    loop {
        match store.append(append).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_retryable() => {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
            Err(error) => return Err(error),
        }
    }
}
