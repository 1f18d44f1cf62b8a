//! The events of the tutorial's bank accounts, from the same schemas.

use annals_store::events;
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

events! {
    /// What happens to an account: the streams of category `bank_account`.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) enum AccountEvent in "bank_account" {
        /// The first event of each account.
        BankAccountOpened = "../../../../schemas/avro/bank_account/BankAccountOpened.v1.avsc",
        /// More money.
        MoneyPaidIn = "../../../../schemas/avro/bank_account/MoneyPaidIn.v1.avsc",
        /// Less money.
        MoneyWithdrawn = "../../../../schemas/avro/bank_account/MoneyWithdrawn.v1.avsc",
        /// Less money here, more in another account.
        TransferSent = "../../../../schemas/avro/bank_account/TransferSent.v1.avsc",
        /// More money here, less in another account.
        TransferReceived = "../../../../schemas/avro/bank_account/TransferReceived.v1.avsc",
    }
}
