//! Events of an earlier set are applied as what its upcasters make of them: none, one or several, and
//! those of one record together or not at all.

use std::num::NonZeroUsize;

use annals_consumer::testing::given;
use annals_consumer::{DeliveredEvent, FailurePolicy, Projection, RunError, RunTotals};
use annals_schemas::events;
use annals_testkit::in_time;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::bed;
use crate::book;
use crate::events::{OrderEvent, paid, placed};

/// What each placed order costs.
const FEE: i64 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct AmountAdded {
    amount: i64,
}

events! {
    /// The amounts of orders: the events of a later release.
    #[derive(Debug, Clone, PartialEq, Eq)]
    enum AmountEvent in "order", upcast OrderEvent => amounts {
        AmountAdded = "../avro/AmountAdded.avsc",
    }
}

/// Two of a placed order, none of a payment of 1.
fn amounts(event: OrderEvent) -> Vec<AmountEvent> {
    let amounts = match event {
        OrderEvent::OrderPlaced(placed) => vec![placed.amount, FEE],
        OrderEvent::OrderPaid(paid) if paid.amount == 1 => vec![],
        OrderEvent::OrderPaid(paid) => vec![paid.amount],
    };
    amounts.into_iter().map(|amount| AmountAdded { amount }.into()).collect()
}

fn amount(event: &DeliveredEvent<AmountEvent>) -> i64 {
    let AmountEvent::AmountAdded(added) = &event.data;
    added.amount
}

/// Refuses the fee of one order, after it has written the order.
async fn refuse_a_fee(
    connection: &mut PgConnection,
    events: &[DeliveredEvent<AmountEvent>],
) -> Result<(), sqlx::Error> {
    for event in events {
        let delivered = &event.delivered;
        if (&*delivered.stream, delivered.version.get(), amount(event)) == ("order-2", 0, FEE) {
            return Err(sqlx::Error::RowNotFound);
        }
        book::add_amount(connection, &delivered.stream, amount(event)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn events_of_an_earlier_set_are_applied_and_those_of_one_record_together_or_not_at_all() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    bed.write(&topic, &book::orders(&bed, 3, 0..4)).await;
    let stopping = bed.projection(&[&topic]).await;
    let run = async |projection: &Projection| {
        let shutdown = CancellationToken::new();
        let run = bed.runner(projection).run_until(&shutdown, book::to_the_end, refuse_a_fee);
        in_time(run).await
    };
    let error = run(&stopping).await.unwrap_err();
    let RunError::Handler { stream, version, .. } = &error else { panic!("{error:?}") };
    assert_eq!((stream.as_str(), version.get()), ("order-2", 0));
    assert_eq!(book::sums(&bed.pool).await, (2, 4, 3), "the two orders before it");

    let passing = stopping.rejected_events(FailurePolicy::DeadLetter);
    let totals = run(&passing).await.unwrap();
    let RunTotals { events, duplicates, skipped, dead_letters, .. } = totals;
    assert_eq!((events, duplicates, skipped, dead_letters), (8, 0, 1, 1));
    assert_eq!(book::sums(&bed.pool).await, (3, 12, 29));
    assert_eq!(run(&passing).await.unwrap().events, 0);
}

#[tokio::test]
async fn tests_of_a_handler_are_given_events_of_an_earlier_set() {
    let given = given::<AmountEvent>()
        .earlier_event::<OrderEvent>("order-1", placed(5))
        .earlier_event::<OrderEvent>("order-1", paid(1))
        .event("order-1", AmountAdded { amount: 7 })
        .batches_of(NonZeroUsize::MAX);
    let mut model = Vec::new();
    let add = async |model: &mut Vec<(i64, i64)>, events: &[DeliveredEvent<AmountEvent>]| {
        model.extend(events.iter().map(|event| (event.delivered.version.get(), amount(event))));
        Ok::<_, std::io::Error>(())
    };
    let projection = Projection::new("amounts", &["test-order"]).unwrap();
    let totals = given.apply(&projection, &mut model, add).await.unwrap();
    assert_eq!(model, [(0, 5), (0, FEE), (2, 7)]);
    assert_eq!((totals.events, totals.skipped), (3, 1));
}
