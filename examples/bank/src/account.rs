//! Step 1: what happens to an account, and what an account is. No database yet.

use annals_store::{Aggregate, Personal, Snapshots, events};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An account was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BankAccountOpened {
    pub(crate) owner: String,
}

/// Cash was paid into the account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MoneyPaidIn {
    pub(crate) cents: i64,
}

/// Cash was taken out of the account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MoneyWithdrawn {
    pub(crate) cents: i64,
}

/// Money went to another account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TransferSent {
    pub(crate) cents: i64,
    pub(crate) to: String,
}

/// Money came from another account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TransferReceived {
    pub(crate) cents: i64,
    pub(crate) from: String,
}

/// An earlier event of the account has a wrong amount. That event stays as it is: the correction is
/// a fact of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BookingCorrected {
    #[serde(with = "uuid::serde::hyphenated")]
    pub(crate) corrects: Uuid,
    pub(crate) cents: i64,
    pub(crate) reason: String,
}

/// The owner gave a name and an address, which can be erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwnerNamed {
    pub(crate) name: Personal<String>,
    pub(crate) address: Personal<String>,
}

// Each event has its Avro schema in a file: that file is the contract with every consumer of the
// topic. The macro generates a test that compares the types with the schemas: `cargo test` finds a
// mismatch.
events! {
    /// What happens to an account: the streams of category `bank_account`.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) enum AccountEvent in "bank_account" {
        /// The first event of each account.
        BankAccountOpened = "../../../schemas/avro/bank_account/BankAccountOpened.v1.avsc",
        /// More money.
        MoneyPaidIn = "../../../schemas/avro/bank_account/MoneyPaidIn.v1.avsc",
        /// Less money.
        MoneyWithdrawn = "../../../schemas/avro/bank_account/MoneyWithdrawn.v1.avsc",
        /// Less money here, more in another account.
        TransferSent = "../../../schemas/avro/bank_account/TransferSent.v1.avsc",
        /// More money here, less in another account.
        TransferReceived = "../../../schemas/avro/bank_account/TransferReceived.v1.avsc",
        /// Who the owner is.
        OwnerNamed = "../../../schemas/avro/bank_account/OwnerNamed.v1.avsc",
        /// What an earlier event should have said.
        BookingCorrected = "../../../schemas/avro/bank_account/BookingCorrected.v1.avsc",
    }
}

impl AccountEvent {
    /// The change of the balance.
    pub(crate) const fn cents(&self) -> i64 {
        match self {
            Self::BankAccountOpened(_) | Self::OwnerNamed(_) => 0,
            Self::MoneyPaidIn(paid) => paid.cents,
            Self::MoneyWithdrawn(withdrawn) => -withdrawn.cents,
            Self::TransferSent(sent) => -sent.cents,
            Self::TransferReceived(received) => received.cents,
            Self::BookingCorrected(corrected) => corrected.cents,
        }
    }
}

/// An account, as its events make it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) is_open: bool,
    pub(crate) cents: i64,
}

impl Aggregate for Account {
    type Event = AccountEvent;

    fn apply(&mut self, event: AccountEvent) {
        self.is_open |= matches!(event, AccountEvent::BankAccountOpened(_));
        self.cents += event.cents();
    }

    // An account with thousands of events loads as fast as a new one: after a decision the state is
    // saved if the last saved one is 50 events old.
    fn snapshots() -> Option<Snapshots<Self>> {
        Some(Snapshots::every(50, include_str!("../avro/AccountState.v1.avsc")))
    }
}

/// Why the bank says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Declined {
    #[error("the account is not open")]
    NotOpen,
    #[error("the account is open already")]
    OpenAlready,
    #[error("{wanted} cents were asked for, and the account has {cents}")]
    Overdraft { cents: i64, wanted: i64 },
}

/// The events of a decision, or the refusal.
pub(crate) type Decision = Result<Vec<AccountEvent>, Declined>;

/// Deciding is plain Rust on plain state.
impl Account {
    pub(crate) fn open(&self, owner: &str) -> Decision {
        if self.is_open {
            return Err(Declined::OpenAlready);
        }
        Ok(vec![BankAccountOpened { owner: owner.to_owned() }.into()])
    }

    pub(crate) fn pay_in(&self, cents: i64) -> Decision {
        self.check_open()?;
        Ok(vec![MoneyPaidIn { cents }.into()])
    }

    pub(crate) fn withdraw(&self, cents: i64) -> Decision {
        self.check_balance(cents)?;
        Ok(vec![MoneyWithdrawn { cents }.into()])
    }

    pub(crate) fn send(&self, cents: i64, to: &str) -> Decision {
        self.check_balance(cents)?;
        Ok(vec![TransferSent { cents, to: to.to_owned() }.into()])
    }

    pub(crate) fn receive(&self, cents: i64, from: &str) -> Decision {
        self.check_open()?;
        Ok(vec![TransferReceived { cents, from: from.to_owned() }.into()])
    }

    pub(crate) fn name_owner(&self, named: OwnerNamed) -> Decision {
        self.check_open()?;
        Ok(vec![named.into()])
    }

    /// Corrects a booking, also below zero: the money was never there.
    pub(crate) fn correct(&self, wrong: Uuid, cents: i64, reason: &str) -> Decision {
        self.check_open()?;
        Ok(vec![BookingCorrected { corrects: wrong, cents, reason: reason.to_owned() }.into()])
    }

    const fn check_open(&self) -> Result<(), Declined> {
        if self.is_open { Ok(()) } else { Err(Declined::NotOpen) }
    }

    fn check_balance(&self, wanted: i64) -> Result<(), Declined> {
        self.check_open()?;
        if self.cents < wanted {
            return Err(Declined::Overdraft { cents: self.cents, wanted });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use annals_store::testing::given;

    use super::*;

    fn opened() -> AccountEvent {
        BankAccountOpened { owner: "Anna".to_owned() }.into()
    }

    fn paid_in(cents: i64) -> AccountEvent {
        MoneyPaidIn { cents }.into()
    }

    #[test]
    fn an_account_is_opened_once() {
        given::<Account>(vec![]).when(|account| account.open("Anna")).then(vec![opened()]);
        given::<Account>(vec![opened()])
            .when(|account| account.open("Anna"))
            .then_refused(Declined::OpenAlready);
    }

    #[test]
    fn a_withdrawal_takes_at_most_the_balance() {
        given::<Account>(vec![opened(), paid_in(100)])
            .when(|account| account.withdraw(100))
            .then(vec![MoneyWithdrawn { cents: 100 }.into()])
            .then_state(|account| assert_eq!(account.cents, 0));
        given::<Account>(vec![opened(), paid_in(100)])
            .when(|account| account.withdraw(101))
            .then_refused(Declined::Overdraft { cents: 100, wanted: 101 });
        given::<Account>(vec![])
            .when(|account| account.withdraw(1))
            .then_refused(Declined::NotOpen);
    }

    #[test]
    fn the_state_fits_the_schema_of_its_snapshots() {
        Account::snapshots().unwrap().verify().unwrap();
    }
}
