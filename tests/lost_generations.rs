//! A database is restored to a state before its deployment was rebased: it has forgotten the later
//! generation, whose checkpoints Kafka has. The relay halts, since the checkpoints of its own
//! generation are too old; a rebase begins a generation that never existed.

use annals_store::{Append, ExpectedVersion, Store};
use annals_testkit::{Must, PrivateStack, RelayProcess, Testbed, account, check, deposited};

async fn append(store: &Store, numbers: std::ops::Range<i64>) {
    let append = Append::to(&account("a"), ExpectedVersion::Any, numbers.map(deposited));
    store.append(&append).await.must("append");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_has_forgotten_a_rebase_repeats_nothing() {
    let stack = PrivateStack::postgres("15").await;
    let bed = Testbed::on("forgotten_rebase", stack.environment().clone()).await;
    let follower = bed.follow();
    let settings = bed.relay();
    let mut relay = RelayProcess::start(&settings);
    append(bed.store(), 0..2).await;
    follower.until_count(2).await;
    bed.until_copied().await;
    assert!(relay.terminate().await.success());
    append(bed.store(), 2..4).await;
    let kept = stack.snapshot().await;
    settings.must_run(&["rebase", "--reason", "a test"]).await;
    relay.restart();
    follower.until_count(4).await;
    assert!(relay.terminate().await.success());

    // It has every event, and has forgotten the second generation.
    stack.restore(&kept).await;
    let said = settings.run(&["run"]).await.expect_err("the relay runs");
    assert!(said.contains("generation 2") && said.contains("annals-relay rebase"), "{said}");
    settings.must_run(&["rebase", "--reason", "another test"]).await;
    let status = settings.must_run(&["status"]).await;
    assert!(status.contains("generation 3"), "{status}");
    relay.restart();
    append(bed.store(), 4..5).await;
    follower.until_count(5).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);

    // Nor do other commands that begin a generation use a number again.
    relay.turn_page();
    let kept = stack.snapshot().await;
    settings.must_run(&["reshard", "4"]).await;
    relay.restart();
    relay.publishes("0,1,2,3").await;
    assert!(relay.terminate().await.success());
    stack.restore(&kept).await;
    settings.must_run(&["reshard", "16"]).await;
    let status = settings.must_run(&["status"]).await;
    assert!(status.contains("generation 5"), "{status}");
}
