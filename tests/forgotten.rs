//! A deployment without relays keeps the outbox until an operator lets go of it, and
//! does not start again by mistake.

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{Must, RelayProcess, Testbed, account, check, deposited, until};
use sqlx::{Connection, PgConnection, Row};

async fn append(bed: &Testbed) {
    let append = Append::to(&account("a"), ExpectedVersion::Any, (0..10).map(deposited));
    bed.store().append(&append).await.must("append");
}

async fn next_partition(bed: &Testbed) {
    let mut connection = PgConnection::connect(&bed.database_url()).await.must("connect");
    let jump = sqlx::query(include_str!("sql/next_partition.sql"));
    jump.execute(&mut connection).await.must("go to the next partition");
}

async fn droppable(bed: &Testbed) -> i64 {
    let (_, status) = bed.relay().status().await;
    status["droppable_partitions"].as_i64().must("read the droppable partitions")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_keeps_the_outbox_until_it_is_forgotten_and_continues_only_after_a_rebase() {
    let bed = Testbed::new("forgotten").await;
    let follower = bed.follow();
    let old = bed.relay().variable("ANNALS_RELAY__RELAY__DEPLOYMENT", "old");
    let old = old.topic_prefix(&format!("{}-old.", bed.name())).in_directory("old");
    let name = format!("old@{}-old.", bed.name());
    append(&bed).await;
    let mut relay = RelayProcess::start(&old);
    relay.event("publishing").await;
    bed.until_copied().await;
    let running = old.run(&["forget", &name, "--reason", "a test"]).await.unwrap_err();
    assert!(running.contains(&format!("relays of deployment {name} run: a")), "{running}");
    assert!(relay.terminate().await.success());

    next_partition(&bed).await;
    append(&bed).await;
    let mut live = RelayProcess::start(&bed.relay());
    follower.until_count(20).await;
    live.event("publishing").await;
    assert!(live.terminate().await.success());
    let status = bed.relay().must_run(&["status"]).await;
    assert!(status.contains(&format!("{name} keeps 1 full partitions of the outbox")), "{status}");
    assert_eq!(droppable(&bed).await, 0);
    let only_said =
        bed.relay().must_run(&["forget", &name, "--dry-run", "--reason", "a test"]).await;
    assert!(only_said.contains("nothing was changed"), "{only_said}");
    assert_eq!(droppable(&bed).await, 0);
    let said = bed.relay().must_run(&["forget", &name, "--reason", "a test"]).await;
    assert!(said.contains("is forgotten: 8 checkpoints"), "{said}");
    assert_eq!(droppable(&bed).await, 1);
    let unknown = bed.relay().run(&["forget", "other", "--reason", "a test"]).await.unwrap_err();
    assert!(unknown.contains("there is no deployment other"), "{unknown}");
    let actions = sqlx::query(include_str!("sql/actions.sql")).fetch_all(bed.store().pool()).await;
    let actions = actions.must("read the recorded actions");
    let actions = actions.iter().map(|action| [action.get("verb"), action.get("reason")]);
    assert_eq!(actions.collect::<Vec<[String; 2]>>(), [["forget", "a test"]]);

    relay.restart();
    relay.event("outage_began").await;
    relay.kill().await;
    old.must_run(&["rebase", "--reason", "a test"]).await;
    relay.restart();
    live.restart();
    append(&bed).await;
    follower.until_count(30).await;
    until("the rest is published", async || old.status().await.1["lag"]["events"] == 0).await;
    assert!(relay.terminate().await.success());
    assert!(live.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
    let (code, said) = old.run_for_code(&["audit"]).await;
    assert!(code == 0 && said.contains("30 published"), "{said}");
}
