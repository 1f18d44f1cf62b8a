//! One function applies events of the log, in the database of the store, and records of the topic,
//! in the database of another service. Both read models have the same rows.

use std::ops::ControlFlow;

use annals_consumer::{ConsumerSettings, DeliveredEvent, Projection, RunProgress, SchemaRegistry};
use annals_store::{Append, ExpectedVersion};
use annals_testkit::{
    AccountEvent, CATEGORY, DEADLINE, Must, RelayProcess, Testbed, account, deposited, in_time,
};
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::projections::{AppliedEvent, Running, Script, add_to_balance, balances};

const EVENTS: u64 = 60;

async fn of_the_topic(
    connection: &mut PgConnection,
    events: &[DeliveredEvent<AccountEvent>],
) -> Result<(), sqlx::Error> {
    for DeliveredEvent { data, delivered } in events {
        let (version, event_id) = (delivered.version.get(), delivered.event_id);
        let applied = AppliedEvent { stream: &delivered.stream, version, event_id };
        add_to_balance(connection, &applied, data).await?;
    }
    Ok(())
}

async fn rows(pool: &PgPool) -> Vec<(String, i64)> {
    let rows = sqlx::query_as(include_str!("sql/all_balances.sql"));
    rows.fetch_all(pool).await.must("read a read model")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_projection_of_the_log_and_one_of_the_topic_share_their_handler() {
    let bed = Testbed::new("handler").await;
    let other = Testbed::new("handler_of_another").await;
    let projected = Running::start(bed.store(), balances(&Script::plain()), DEADLINE);
    let mut relay = RelayProcess::start(&bed.relay());
    for sequence in 0..i64::try_from(EVENTS).must("count") {
        let stream = account(sequence % 7);
        let append = Append::to(&stream, ExpectedVersion::Any, [deposited(sequence)]);
        let appended = bed.store().append(&append).await.must("append");
        bed.store().wait_for("balances", appended.positions(), DEADLINE).await.must("apply it");
    }
    drop(projected);

    let topic = bed.topic(CATEGORY);
    let projection = Projection::new("balances", &[&topic]).must("name a projection");
    let projection = projection.version(1, include_str!("sql/balances.sql")).must("version it");
    let pool = other.store().pool();
    projection.prepare(pool).await.must("prepare a projection");
    let settings = ConsumerSettings::new(&bed.environment().kafka);
    let schemas = SchemaRegistry::new(&bed.environment().registry_url).must("use the registry");
    let runner = projection.runner(pool, settings, schemas);
    let until_all = |progress: &RunProgress<'_>| {
        let is_all = progress.totals.events >= EVENTS;
        if is_all { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let shutdown = CancellationToken::new();
    in_time(runner.run_until(&shutdown, until_all, of_the_topic)).await.must("read the topic");
    assert_eq!(rows(bed.store().pool()).await, rows(pool).await);
    assert_eq!(rows(pool).await.len(), 7);
    assert!(relay.terminate().await.success());
}
