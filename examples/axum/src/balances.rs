//! The read model: balances in the store's database.

use std::error::Error;

use annals_store::{Follow, Projection, RecordedEvent};
use sqlx::PgConnection;

use crate::account::AccountEvent;

pub(crate) const NAME: &str = "balances";

/// One row an account.
pub(crate) struct Balances;

impl Projection for Balances {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        1
    }

    fn events(&self) -> Follow {
        Follow::events_of::<AccountEvent>()
    }

    fn tables(&self) -> &'static str {
        include_str!("../sql/balances.sql")
    }

    async fn apply(
        &self,
        events: &[RecordedEvent],
        connection: &mut PgConnection,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        for event in events {
            let (owner, cents) = match event.decode()? {
                AccountEvent::AccountOpened(opened) => (Some(opened.owner), 0),
                AccountEvent::MoneyDeposited(deposited) => (None, deposited.cents),
            };
            let change = sqlx::query(include_str!("../sql/balance_change.sql"));
            let change = change.bind(event.stream.as_str()).bind(owner).bind(cents);
            change.execute(&mut *connection).await?;
        }
        Ok(())
    }
}
