//! Events, state and decisions: plain Rust.

use annals_store::{Aggregate, events};
use serde::{Deserialize, Serialize};

/// An account was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AccountOpened {
    pub(crate) owner: String,
}

/// Money was put into an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MoneyDeposited {
    pub(crate) sequence: i64,
    pub(crate) cents: i64,
    pub(crate) note: String,
}

events! {
    /// What happens to an account.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) enum AccountEvent in "account" {
        /// It begins.
        AccountOpened = "../../../schemas/avro/account/AccountOpened.v1.avsc",
        /// Its balance grows.
        MoneyDeposited = "../../../schemas/avro/account/MoneyDeposited.v1.avsc",
    }
}

/// An account, as its events make it.
#[derive(Debug, Default)]
pub(crate) struct Account {
    is_open: bool,
    deposits: i64,
}

/// Why the domain says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Declined {
    #[error("the account is open already")]
    OpenAlready,
    #[error("the account is not open")]
    NotOpen,
    #[error("a deposit has at least one cent")]
    NoMoney,
}

impl Aggregate for Account {
    type Event = AccountEvent;

    fn apply(&mut self, event: AccountEvent) {
        match event {
            AccountEvent::AccountOpened(_) => self.is_open = true,
            AccountEvent::MoneyDeposited(_) => self.deposits += 1,
        }
    }
}

impl Account {
    pub(crate) fn open(&self, owner: &str) -> Result<Vec<AccountEvent>, Declined> {
        match self.is_open {
            true => Err(Declined::OpenAlready),
            false => Ok(vec![AccountOpened { owner: owner.to_owned() }.into()]),
        }
    }

    pub(crate) fn deposit(&self, cents: i64, note: &str) -> Result<Vec<AccountEvent>, Declined> {
        match (self.is_open, cents) {
            (false, _) => Err(Declined::NotOpen),
            (true, ..=0) => Err(Declined::NoMoney),
            (true, _) => {
                let (sequence, note) = (self.deposits, note.to_owned());
                Ok(vec![MoneyDeposited { sequence, cents, note }.into()])
            }
        }
    }
}
