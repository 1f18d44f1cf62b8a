//! The number of shards changes only while everything is published and no relay runs, and costs
//! nothing then.

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{
    Dice, Load, LoadOptions, Must, Pace, RelayProcess, Testbed, account, check, deposited, opened,
};

const STREAMS: usize = 30;
const LOAD: LoadOptions =
    LoadOptions { writers: 4, streams: 40, ahead_events_max: 4_000, pace: Pace::Full };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_become_more_and_fewer_and_nobody_misses_or_repeats_an_event() {
    let bed = Testbed::new("resharded").await;
    let mut dice = Dice::of_this_run();
    let follower = bed.follow();
    let mut attempts = Vec::new();
    for (shards, numbers) in [(8, "0,1,2,3,4,5,6,7"), (3, "0,1,2"), (11, "0,1,2,3,4,5,6,7,8,9,10")]
    {
        if shards != 8 {
            let said = bed.relay().run(&["reshard", &shards.to_string()]).await;
            assert_eq!(said, Ok(format!("the installation has {shards} shards from now on\n")));
        }
        let mut relay = RelayProcess::start(&bed.relay());
        relay.publishes(numbers).await;
        let load = Load::start(bed.store(), &LOAD, &mut dice, &follower.counter());
        load.until_acknowledged(600).await;
        attempts.extend(load.stop().await);
        follower.caught_up(&bed.recorded().await).await;
        // It ends once the checkpoints of everything are copied.
        assert!(relay.terminate().await.success());
    }
    assert_eq!(check(&bed.history(attempts).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_refused_while_a_relay_runs_or_something_waits_to_be_published() {
    let bed = Testbed::new("reshard_refused").await;
    let follower = bed.follow();
    let mut relay =
        RelayProcess::start(&bed.relay().variable("ANNALS_RELAY__RELAY__BATCH_EVENTS_MAX", "5"));
    let append = Append::to(&account("a"), ExpectedVersion::Any, [opened("ann"), deposited(1)]);
    bed.store().append(&append).await.must("append");
    follower.until_count(2).await;
    let refused = bed.relay().run(&["reshard", "4"]).await.unwrap_err();
    assert!(refused.contains(" run: a. Stop them"), "{refused}");
    assert!(relay.terminate().await.success());
    let append = Append::to(&account("a"), ExpectedVersion::Any, [deposited(2)]);
    bed.store().append(&append).await.must("append");
    let refused = bed.relay().run(&["reshard", "4"]).await.unwrap_err();
    assert!(refused.contains("has not published everything of shard"), "{refused}");
    assert!(refused.contains("annals-relay status"), "{refused}");
    let refused = bed.relay().run(&["reshard", "0"]).await.unwrap_err();
    assert!(refused.contains("1 to 1024"), "{refused}");
    // A window of several batches: the last checkpoints of most shards are inside it.
    let opened = || [opened("bob")];
    let several = (0..STREAMS).fold(Append::default(), |append, number| {
        append.and_to(&account(number), ExpectedVersion::Any, opened())
    });
    bed.store().append(&several).await.must("append");
    relay.restart();
    follower.until_count(3 + STREAMS).await;
    assert!(relay.terminate().await.success());
    assert!(bed.relay().run(&["reshard", "4"]).await.is_ok());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}
