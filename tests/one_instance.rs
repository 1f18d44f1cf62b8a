//! Two relays with the name of one instance: one publishes and the other waits, names the live
//! process, and takes over once that one has ended.

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{Must, RelayProcess, Testbed, account, check, deposited};

async fn append(bed: &Testbed, sequence: i64) {
    let append = Append::to(&account("a"), ExpectedVersion::Any, [deposited(sequence)]);
    bed.store().append(&append).await.must("append");
}

/// The highest epoch of a shard: it rises with each change of owner, and with each ended session.
async fn epochs(bed: &Testbed) -> i64 {
    let epochs = sqlx::query_scalar(include_str!("sql/sessions_ended.sql"));
    epochs.fetch_one(bed.store().pool()).await.must("read the epochs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_of_one_name_waits_says_who_lives_and_takes_over_from_one_that_is_killed() {
    let bed = Testbed::new("one_instance").await;
    let follower = bed.follow();
    let settings = bed.relay().impatient();
    let mut first = RelayProcess::start(&settings);
    first.event("publishing").await;
    let second = settings.clone().in_directory("second");
    let mut second = RelayProcess::start(&second);
    let said = second.keeps_waiting_for("instance a").await;
    for part in
        ["relay a of this deployment runs already", "process ", " since ", "set relay.instance"]
    {
        assert!(said.contains(part), "{said}");
    }
    for sequence in 0..20 {
        append(&bed, sequence).await;
        follower.until_count(usize::try_from(sequence + 1).must("count")).await;
    }
    second.turn_page();
    second.event_with("outage_continues", &[("waiting_for", "instance a")]).await;
    second.event_with("outage_continues", &[("waiting_for", "instance a")]).await;
    assert_eq!(epochs(&bed).await, 1, "no session was ended");
    first.kill().await;
    second.has_waited_for("instance a").await;
    append(&bed, 20).await;
    follower.until_count(21).await;
    assert_eq!(epochs(&bed).await, 3, "one session was ended, and its shards taken");
    // The restarted first relay waits in turn.
    first.restart();
    first.keeps_waiting_for("instance a").await;
    assert!(second.terminate().await.success());
    first.has_waited_for("instance a").await;
    append(&bed, 21).await;
    follower.until_count(22).await;
    assert!(first.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_started_again_after_a_crash_does_not_wait_for_the_lease() {
    let bed = Testbed::new("crashed_instance").await;
    let follower = bed.follow();
    // Longer than this test may take.
    let settings = bed.relay().variable("ANNALS_RELAY__RELAY__LEASE_MS", "600000");
    let mut relay = RelayProcess::start(&settings);
    for sequence in 0..3 {
        append(&bed, sequence).await;
        follower.until_count(usize::try_from(sequence + 1).must("count")).await;
        relay.kill().await;
        relay.restart();
    }
    relay.event("publishing").await;
    assert!(!relay.has_event("outage_began"), "it waits for nothing");
    assert!(relay.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_waits_for_its_name_ends_when_it_is_told_to() {
    let bed = Testbed::new("waiting_instance").await;
    let settings = bed.relay().variable("ANNALS_RELAY__RELAY__LEASE_MS", "600000");
    let first = RelayProcess::start(&settings);
    first.event("publishing").await;
    let mut second = RelayProcess::start(&settings.clone().in_directory("second"));
    second.waits_for("instance a").await;
    assert!(second.terminate().await.success());
    drop(first);
}
