//! The events of the tests.

use annals_schemas::events;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OrderPlaced {
    pub(crate) amount: i64,
    pub(crate) note: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OrderPaid {
    pub(crate) amount: i64,
}

events! {
    /// Everything that happens to an order.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) enum OrderEvent in "order" {
        OrderPlaced = "../avro/OrderPlaced.avsc",
        OrderPaid = "../avro/OrderPaid.avsc",
    }
}

pub(crate) mod placed_only {
    //! A program that knows only one of the types.

    use super::OrderPlaced;
    use annals_schemas::events;

    events! {
        /// What interests a program that counts orders.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(crate) enum PlacedOnly in "order" {
            OrderPlaced = "../avro/OrderPlaced.avsc",
        }
    }
}

impl OrderEvent {
    pub(crate) fn amount(&self) -> i64 {
        match self {
            Self::OrderPlaced(placed) => placed.amount,
            Self::OrderPaid(paid) => paid.amount,
        }
    }
}

pub(crate) fn placed(amount: i64) -> OrderEvent {
    OrderPlaced { amount, note: format!("amount {amount}") }.into()
}

pub(crate) fn paid(amount: i64) -> OrderEvent {
    OrderPaid { amount }.into()
}
