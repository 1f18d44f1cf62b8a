//! The events of the tests: accounts that are opened, credited and closed.

use annals_store::{Aggregate, NewEvent, StreamName, events};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::must::Must;

/// The category of the tests' streams.
pub const CATEGORY: &str = "account";

/// An account was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountOpened {
    /// The owner.
    pub owner: String,
}

/// Money was deposited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoneyDeposited {
    /// The depositor's own count of its deposits.
    pub sequence: i64,
    /// The amount.
    pub cents: i64,
    /// The purpose.
    pub note: String,
}

/// An account was closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountClosed {
    /// The reason, if one was given.
    pub reason: Option<String>,
}

events! {
    /// The events of an account.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum AccountEvent in "account" {
        /// The account begins.
        AccountOpened = "../../schemas/avro/account/AccountOpened.v1.avsc",
        /// The balance grows.
        MoneyDeposited = "../../schemas/avro/account/MoneyDeposited.v1.avsc",
        /// The account ends.
        AccountClosed = "../../schemas/avro/account/AccountClosed.v1.avsc",
    }
}

/// An account, rebuilt from its events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// The owner; `None` before the account was opened.
    pub owner: Option<String>,
    /// The sum of the deposits.
    pub cents: i64,
    /// Whether it was closed.
    pub closed: bool,
}

impl Aggregate for Account {
    type Event = AccountEvent;

    fn apply(&mut self, event: AccountEvent) {
        match event {
            AccountEvent::AccountOpened(opened) => self.owner = Some(opened.owner),
            AccountEvent::MoneyDeposited(deposited) => self.cents += deposited.cents,
            AccountEvent::AccountClosed(_) => self.closed = true,
        }
    }
}

/// The stream `account-<id>`.
#[must_use]
pub fn account(id: impl std::fmt::Display) -> StreamName {
    StreamName::new(format!("{CATEGORY}-{id}")).must("name an account's stream")
}

/// A new `AccountOpened`.
#[must_use]
pub fn opened(owner: &str) -> NewEvent {
    new_event(&AccountOpened { owner: owner.to_owned() }.into())
}

/// A new `MoneyDeposited` of `sequence` cents.
#[must_use]
pub fn deposited(sequence: i64) -> NewEvent {
    deposited_for(sequence, "")
}

/// A new `MoneyDeposited` with a note.
#[must_use]
pub fn deposited_for(sequence: i64, note: &str) -> NewEvent {
    new_event(&MoneyDeposited { sequence, cents: sequence, note: note.to_owned() }.into())
}

/// A new `MoneyDeposited` of some 13 kB that do not compress.
#[must_use]
pub fn deposited_large(sequence: i64) -> NewEvent {
    let note: String = (0..400).map(|_| Uuid::new_v4().simple().to_string()).collect();
    deposited_for(sequence, &note)
}

/// A new `AccountClosed`.
#[must_use]
pub fn closed() -> NewEvent {
    new_event(&AccountClosed { reason: None }.into())
}

fn new_event(event: &AccountEvent) -> NewEvent {
    NewEvent::new(event).must("encode an event")
}
