//! A relay that alone cannot reach Kafka leaves its shards to those that can, and takes part again when it can.

use annals_testkit::{Dice, Load, LoadOptions, RelayProcess, Testbed, TwoDoors, check};

const LOAD: LoadOptions = LoadOptions { writers: 3, streams: 24, ahead_events_max: 2_000 };
const ALL_SHARDS: &str = "0,1,2,3,4,5,6,7";
const EVENTS: usize = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shards_of_a_relay_that_alone_is_cut_off_from_kafka_are_published_by_another() {
    let kafka = TwoDoors::linked("").await;
    let bed = Testbed::on("cut_off", kafka.environment().clone()).await;
    let mut dice = Dice::of_this_run();
    let follower = bed.follow();
    let mut first = RelayProcess::start(&bed.relay().impatient().kafka(&kafka.other()));
    first.logged(ALL_SHARDS).await;
    let mut second = RelayProcess::start(&bed.relay().impatient().instance("b"));
    second.logged("\"4,5,6,7\"").await;
    first.logged("\"0,1,2,3\"").await;
    let load = Load::start(bed.store(), &LOAD, &mut dice, &follower.counter());
    follower.until_count(EVENTS).await;
    first.turn_page();
    second.turn_page();

    // It keeps its lease: it is the database's to end, and that it can reach.
    kafka.link().cut();
    second.logged(ALL_SHARDS).await;
    follower.until_count(follower.count() + EVENTS).await;
    assert!(first.has_logged("giving the shards up"));
    assert!(!first.has_logged("the lease was over"));
    second.turn_page();

    kafka.link().mend();
    first.goes_on_after("kafka").await;
    // It came last, and gets the upper half.
    first.logged("\"4,5,6,7\"").await;
    second.logged("\"0,1,2,3\"").await;
    let attempts = load.stop().await;
    follower.caught_up(&bed.recorded().await).await;
    assert!(first.terminate().await.success());
    assert!(second.terminate().await.success());
    assert_eq!(check(&bed.history(attempts).await), []);
}
