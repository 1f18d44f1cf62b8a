//! Step 4: the bank's first release had one event for cash in and out. These events stay as they are, and
//! are read as those of today.

use annals_store::{Append, EventStore, ExpectedVersion, NewEvent, StreamName, events};
use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::account::{AccountEvent, MoneyPaidIn, MoneyWithdrawn};

/// Cash was paid into the account; taken out of it, if it is less than zero.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MoneyMoved {
    pub(crate) cents: i64,
}

events! {
    /// What happened to an account in the first release.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) enum FirstAccountEvent in "bank_account" {
        /// More or less money.
        MoneyMoved = "../avro/MoneyMoved.v1.avsc",
    }
}

/// What an event of the first release is today.
#[expect(clippy::needless_pass_by_value, reason = "an upcaster takes the event")]
pub(crate) fn upcast(event: FirstAccountEvent) -> Option<AccountEvent> {
    let FirstAccountEvent::MoneyMoved(MoneyMoved { cents }) = event;
    Some(if cents < 0 {
        MoneyWithdrawn { cents: -cents }.into()
    } else {
        MoneyPaidIn { cents }.into()
    })
}

/// Books as the program of the first release did.
pub(crate) async fn book(
    store: &impl EventStore,
    account: &StreamName,
    cents: impl IntoIterator<Item = i64>,
) -> Result<()> {
    let moved = cents.into_iter().map(|cents| FirstAccountEvent::from(MoneyMoved { cents }));
    let events = moved.map(|event| NewEvent::new(&event)).collect::<Result<Vec<_>, _>>()?;
    store.append(&Append::to(account, ExpectedVersion::StreamExists, events)).await?;
    Ok(())
}
