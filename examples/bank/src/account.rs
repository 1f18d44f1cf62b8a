//! Step 1: what happens to an account, and what an account is. No database yet.

use annals_store::{Aggregate, events};
use serde::{Deserialize, Serialize};

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
    }
}

/// An account, as its events make it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) is_open: bool,
    pub(crate) cents: i64,
}

impl Aggregate for Account {
    type Event = AccountEvent;

    fn apply(&mut self, event: AccountEvent) {
        match event {
            AccountEvent::BankAccountOpened(_) => self.is_open = true,
            AccountEvent::MoneyPaidIn(paid) => self.cents += paid.cents,
            AccountEvent::MoneyWithdrawn(withdrawn) => self.cents -= withdrawn.cents,
            AccountEvent::TransferSent(sent) => self.cents -= sent.cents,
            AccountEvent::TransferReceived(received) => self.cents += received.cents,
        }
    }
}

/// Why the bank says no. Deciding is plain Rust on plain state: nothing to mock in a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Declined {
    NotOpen,
    OpenAlready,
    Overdraft { cents: i64, wanted: i64 },
}

impl Account {
    pub(crate) fn open(&self, owner: &str) -> Result<AccountEvent, Declined> {
        if self.is_open {
            return Err(Declined::OpenAlready);
        }
        Ok(BankAccountOpened { owner: owner.to_owned() }.into())
    }

    pub(crate) const fn pay_in(&self, cents: i64) -> Result<AccountEvent, Declined> {
        if !self.is_open {
            return Err(Declined::NotOpen);
        }
        Ok(AccountEvent::MoneyPaidIn(MoneyPaidIn { cents }))
    }

    pub(crate) fn withdraw(&self, cents: i64) -> Result<AccountEvent, Declined> {
        self.check_balance(cents)?;
        Ok(MoneyWithdrawn { cents }.into())
    }

    pub(crate) fn send(&self, cents: i64, to: &str) -> Result<AccountEvent, Declined> {
        self.check_balance(cents)?;
        Ok(TransferSent { cents, to: to.to_owned() }.into())
    }

    pub(crate) fn receive(&self, cents: i64, from: &str) -> Result<AccountEvent, Declined> {
        if !self.is_open {
            return Err(Declined::NotOpen);
        }
        Ok(TransferReceived { cents, from: from.to_owned() }.into())
    }

    const fn check_balance(&self, wanted: i64) -> Result<(), Declined> {
        if !self.is_open {
            return Err(Declined::NotOpen);
        }
        if self.cents < wanted {
            return Err(Declined::Overdraft { cents: self.cents, wanted });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_out_more_than_there_is() {
        let account = Account { is_open: true, cents: 100 };
        assert!(account.withdraw(100).is_ok());
        assert_eq!(account.withdraw(101), Err(Declined::Overdraft { cents: 100, wanted: 101 }));
        assert_eq!(Account::default().withdraw(1), Err(Declined::NotOpen));
    }
}
