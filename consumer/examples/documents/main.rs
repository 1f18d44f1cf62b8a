//! Balances of accounts as documents in files: a projection outside PostgreSQL.
//!
//! `cargo run -p annals-consumer --example documents -- DIRECTORY TOPIC`, with `ANNALS_KAFKA` and
//! `ANNALS_REGISTRY_URL` in the environment, on a topic of the category `order` of the tests.

mod store;

use std::env;
use std::error::Error;
use std::path::Path;

use annals_consumer::{ConsumerSettings, DeliveredEvent, Projection, SchemaRegistry};
use annals_schemas::events;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use self::store::Documents;

#[derive(Debug, Serialize, Deserialize)]
struct OrderPlaced {
    amount: i64,
    note: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct OrderPaid {
    amount: i64,
}

events! {
    /// Orders.
    #[derive(Debug)]
    enum OrderEvent in "order" {
        OrderPlaced = "../../tests/avro/OrderPlaced.avsc",
        OrderPaid = "../../tests/avro/OrderPaid.avsc",
    }
}

/// The document of an order.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Order {
    placed: i64,
    paid: i64,
}

fn fold(order: &mut Order, event: &DeliveredEvent<OrderEvent>) {
    match &event.data {
        OrderEvent::OrderPlaced(placed) => order.placed += placed.amount,
        OrderEvent::OrderPaid(paid) => order.paid += paid.amount,
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let directory = arguments.next().ok_or("the directory is missing")?;
    let topic = arguments.next().ok_or("the topic is missing")?;
    let documents = Documents::open(Path::new(&directory), fold)?;
    let projection = Projection::new("orders", &[&topic])?;
    let kafka = ConsumerSettings::new(&env::var("ANNALS_KAFKA")?);
    let registry = SchemaRegistry::new(&env::var("ANNALS_REGISTRY_URL")?)?;
    let shutdown = CancellationToken::new();
    tokio::spawn(cancel_at_interrupt(shutdown.clone()));
    projection.runner_on(documents, kafka, registry).run(&shutdown).await?;
    Ok(())
}

async fn cancel_at_interrupt(shutdown: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_ok() {
        shutdown.cancel();
    }
}
