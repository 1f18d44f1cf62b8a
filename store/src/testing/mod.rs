//! Tests of decisions without a database: given events, when a decision is made, then these events
//! or this refusal.
//!
//! ```
//! use annals_store::testing::given;
//! # use annals_testkit::{Account, AccountEvent, AccountOpened, MoneyDeposited};
//! # let opened = || -> AccountEvent { AccountOpened { owner: "Ann".to_owned() }.into() };
//! # let deposited = |cents| -> AccountEvent {
//! #     MoneyDeposited { sequence: 0, cents, note: String::new() }.into()
//! # };
//! # let deposit = |account: &Account, cents| match account.owner {
//! #     Some(_) => Ok(vec![deposited(cents)]),
//! #     None => Err("the account is not open"),
//! # };
//! given::<Account>(vec![opened()])
//!     .when(|account| deposit(account, 5))
//!     .then(vec![deposited(5)])
//!     .then_state(|account| assert_eq!(account.cents, 5));
//! given::<Account>(vec![])
//!     .when(|account| deposit(account, 5))
//!     .then_refused("the account is not open");
//! ```
//!
//! A decision on several aggregates takes and returns tuples, as
//! [`EventStore::decide`](crate::EventStore::decide) does. Application code that needs a whole
//! store runs on a [`MemoryStore`](crate::MemoryStore).

mod diff;

use std::fmt::Debug;

use crate::aggregate::Aggregates;

/// The state that results from these events.
///
/// # Panics
/// If an event does not match its schema: it could not have been recorded.
#[track_caller]
#[must_use]
pub fn given<S: Aggregates>(events: S::Events) -> Given<S> {
    check_encodes::<S>("a given event", &events);
    let mut state = S::initial_for(&events);
    state.apply_all(events);
    Given { state }
}

/// A state for a decision.
#[derive(Debug)]
pub struct Given<S> {
    state: S,
}

impl<S: Aggregates> Given<S> {
    /// Makes a decision on the state, once.
    #[must_use]
    pub fn when<E>(self, decision: impl FnOnce(&S) -> Result<S::Events, E>) -> When<S, E> {
        let decided = decision(&self.state);
        When { state: self.state, decided }
    }
}

/// A decision.
#[derive(Debug)]
pub struct When<S: Aggregates, E> {
    state: S,
    decided: Result<S::Events, E>,
}

impl<S, E> When<S, E>
where
    S: Aggregates,
    S::Events: Debug + PartialEq,
    E: Debug,
{
    /// Asserts that the decision has exactly these events, and that each one matches its schema.
    /// Returns the state with them.
    ///
    /// # Panics
    /// If the decision was refused, has other events (with the lines that differ), or has an event
    /// that does not match its schema.
    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "the events are written at the call")]
    pub fn then(mut self, events: S::Events) -> Then<S> {
        let decided = match self.decided {
            Ok(decided) => decided,
            Err(refused) => panic!("the decision was refused: {refused:?}"),
        };
        assert!(
            decided == events,
            "the decision has other events (- expected, + decided):\n{}",
            diff::lines(&events, &decided)
        );
        check_encodes::<S>("an event of the decision", &decided);
        self.state.apply_all(decided);
        Then { state: self.state }
    }

    /// Asserts that the decision was refused with this error.
    ///
    /// # Panics
    /// If it was accepted, or refused with another error.
    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "the refusal is written at the call")]
    pub fn then_refused(self, refusal: E)
    where
        E: PartialEq,
    {
        match self.decided {
            Ok(events) => panic!("the decision was not refused, it has the events {events:#?}"),
            Err(refused) => assert!(
                refused == refusal,
                "the decision was refused otherwise (- expected, + refused):\n{}",
                diff::lines(&refusal, &refused)
            ),
        }
    }
}

/// The state after a decision.
#[derive(Debug)]
pub struct Then<S> {
    state: S,
}

impl<S> Then<S> {
    /// Passes the state after the decision to assertions.
    pub fn then_state(self, check: impl FnOnce(&S)) -> Self {
        check(&self.state);
        self
    }
}

#[track_caller]
fn check_encodes<S: Aggregates>(what: &str, events: &S::Events) {
    if let Err(error) = S::encode(events) {
        panic!("{what} does not match its schema: {error}");
    }
}
