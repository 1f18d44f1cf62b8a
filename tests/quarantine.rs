//! An event that cannot be published is quarantined, with the events that must wait for it, and
//! everything else is published; no event is skipped without an operator's command.

use annals_store::{Append, EventId, ExpectedVersion, NewEvent, StreamName};
use annals_testkit::{
    CATEGORY, Dice, Follower, Isolation, Load, LoadOptions, Must, Pace, RelayProcess, Testbed,
    Violation, account, add_partitions, administer, check, closed, configure_topic, create_topic,
    delete_topic, deposited, deposited_large, http_get, opened, read_topic, topics, until,
};
use sqlx::Row;

/// Below the size of a large event, and above that of a transaction of small ones.
const SMALL: &str = "3000";
const LARGE: &str = "1000000";
const PRODUCERS_OPENED: &str = "annals_relay_producers_opened_total";
const REGISTRY_REQUESTS: &str = "annals_relay_registry_requests_total{outcome=\"found\"}";
/// More than a relay needs whose pages are full.
const REFUSED_BYTES_MAX: u64 = 100 * 1024 * 1024;

async fn append(bed: &Testbed, stream: &StreamName, events: impl IntoIterator<Item = NewEvent>) {
    let events = events.into_iter().map(|event| event.for_category(stream.category()));
    let append = Append::to(stream, ExpectedVersion::Any, events);
    bed.store().append(&append).await.must("append");
}

async fn limit(bed: &Testbed, bytes: &str) {
    let brokers = &bed.environment().kafka;
    configure_topic(brokers, &bed.topic(CATEGORY), "max.message.bytes", bytes).await;
}

fn ledger() -> StreamName {
    StreamName::new("ledger-1").must("name a stream")
}

/// A test bed whose topic exists and accepts small events only.
async fn narrow(label: &str) -> (Testbed, Follower, RelayProcess) {
    let bed = Testbed::new(label).await;
    let follower = bed.follow();
    let relay = RelayProcess::start(&bed.relay());
    append(&bed, &account("first"), [opened("ann")]).await;
    follower.until_count(1).await;
    limit(&bed, SMALL).await;
    (bed, follower, relay)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_too_large_holds_its_stream_and_goes_on_when_it_is_tried_again() {
    let (bed, follower, mut relay) = narrow("too_large").await;
    append(&bed, &account("a"), [deposited_large(1)]).await;
    relay.quarantines("account-a").await;
    append(&bed, &account("a"), [deposited(2)]).await;
    append(&bed, &account("b"), [deposited(3)]).await;
    follower.until_count(2).await;
    let seen: Vec<String> = follower.seen().into_iter().map(|event| event.stream).collect();
    assert_eq!(seen, ["account-first", "account-b"]);

    let list = bed.relay().must_run(&["quarantine", "list"]).await;
    assert!(list.contains("account-a") && list.contains("record"), "{list}");
    let shown = bed.relay().must_run(&["quarantine", "show", "account-a"]).await;
    assert!(shown.contains("\"sequence\": 1") && shown.contains("MoneyDeposited"), "{shown}");
    assert!(shown.contains("behind it   1 events"), "{shown}");
    let status = bed.relay().must_run(&["status"]).await;
    assert!(status.contains("1 streams or categories are quarantined"), "{status}");
    let address = relay.http().await;
    let is_measured = async || {
        let served = http_get(address, "/metrics", "").await;
        served.metric("annals_relay_quarantined{cause=\"record\",kind=\"stream\"}") == Some(1.0)
            && served.metric("annals_relay_quarantined_seconds") > Some(0.0)
    };
    until("the entry is measured", is_measured).await;
    // Retried too early, it is quarantined again.
    relay.turn_page();
    bed.relay().must_run(&["quarantine", "retry", "account-a"]).await;
    relay.quarantines("account-a").await;
    let list = bed.relay().must_run(&["quarantine", "list"]).await;
    assert!(list.contains("   2  "), "the second try is counted: {list}");

    limit(&bed, LARGE).await;
    bed.relay().must_run(&["quarantine", "retry", "account-a", "--reason", "limit raised"]).await;
    follower.until_count(4).await;
    relay.event("quarantine_ended").await;
    let list = bed.relay().must_run(&["quarantine", "list"]).await;
    assert!(list.contains("nothing is quarantined"), "{list}");
    append(&bed, &account("a"), [deposited(4)]).await;
    follower.until_count(5).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_events_that_are_refused_together_only_the_bad_ones_hold_their_streams() {
    let (bed, follower, mut relay) = narrow("refused_together").await;
    let mut together = Append::default();
    for number in 0..60 {
        let event = if number % 20 == 7 { deposited_large(number) } else { deposited(number) };
        together = together.and_to(&account(number), ExpectedVersion::NoStream, [event]);
    }
    bed.store().append(&together).await.must("append");
    follower.until_count(58).await;
    for number in [7, 27, 47] {
        relay.quarantines(&format!("account-{number}")).await;
    }
    let list = bed.relay().must_run(&["quarantine", "list"]).await;
    assert_eq!(list.lines().count(), 4, "{list}");
    limit(&bed, LARGE).await;
    bed.relay().must_run(&["quarantine", "release"]).await;
    follower.until_count(61).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_skipped_with_a_reason_only_and_its_stream_goes_on_behind_it() {
    let (bed, follower, mut relay) = narrow("skipped").await;
    let bad = deposited_large(1);
    let id = bad.id();
    append(&bed, &account("a"), [deposited(0), bad, deposited(2)]).await;
    relay.quarantines("account-a").await;
    let shown = bed.relay().must_run(&["quarantine", "show", "account-a"]).await;
    let position = shown.lines().find_map(|line| line.strip_prefix("position")).must("a position");
    let position = position.trim();
    let arguments = |position, reason| {
        ["quarantine", "skip", "account-a", "--position", position, "--reason", reason]
    };
    let settings = bed.relay();
    let refused = settings.run(&arguments(position, " ")).await.unwrap_err();
    assert!(refused.contains("--reason must not be empty"), "{refused}");
    let refused = settings.run(&arguments("1", "a mistake")).await.unwrap_err();
    assert!(refused.contains("`annals-relay quarantine show account-a`"), "{refused}");
    settings.must_run(&arguments(position, "a test record")).await;
    follower.until_count(3).await;
    relay.event("quarantine_ended").await;

    let actions = sqlx::query(include_str!("sql/actions.sql")).fetch_all(bed.store().pool()).await;
    let actions = actions.must("read the recorded actions");
    let [action] = &actions[..] else { panic!("{} actions", actions.len()) };
    assert_eq!(action.get::<String, _>("verb"), "skip");
    assert_eq!(action.get::<i64, _>("position").to_string(), position);
    assert_eq!(action.get::<String, _>("reason"), "a test record");
    assert!(!action.get::<String, _>("done_by").is_empty());
    // Also for a relay that comes later.
    relay.kill().await;
    relay.restart();
    append(&bed, &account("a"), [deposited(3)]).await;
    follower.until_count(4).await;
    assert!(relay.terminate().await.success());
    let violations = check(&bed.history(Vec::new()).await);
    let is_it = |violation: &Violation| match violation {
        Violation::Lost { id: lost, .. } => *lost == id.get(),
        Violation::Gap { .. } => true,
        _ => false,
    };
    assert!(violations.iter().all(is_it), "{violations:?}");
    assert!(violations.iter().any(|violation| matches!(violation, Violation::Lost { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_survives_crashes_under_load_also_while_it_is_released() {
    const LOAD: LoadOptions =
        LoadOptions { writers: 4, streams: 12, ahead_events_max: 20_000, pace: Pace::Bursts };
    const CRASHES: usize = 6;
    let (bed, follower, relay) = narrow("held_crashes").await;
    let mut dice = Dice::of_this_run();
    let mut relays = [relay, RelayProcess::start(&bed.relay().instance("b"))];
    let load = Load::start(bed.store(), &LOAD, &mut dice, &follower.counter());
    follower.until_count(500).await;
    let bad = ["account-0", "account-1", "account-7", "account-x"];
    for stream in bad {
        append(&bed, &StreamName::new(stream).must("name a stream"), [deposited_large(0)]).await;
    }
    let settings = bed.relay();
    let is_held = |list: &str| bad.iter().all(|stream| list.contains(&format!("{stream} ")));
    while !is_held(&settings.must_run(&["quarantine", "list"]).await) {
        follower.until_count(follower.count() + 100).await;
    }
    for crash in 0..CRASHES {
        if crash == 2 {
            limit(&bed, LARGE).await;
        }
        if crash >= 2 {
            settings.must_run(&["quarantine", "release"]).await;
        }
        follower.until_count(follower.count() + dice.below(400)).await;
        let [first, second] = &mut relays;
        let relay = if crash % 2 == 0 { first } else { second };
        relay.kill().await;
        relay.restart();
    }
    let attempts = load.stop().await;
    settings.must_run(&["quarantine", "release"]).await;
    follower.caught_up(&bed.recorded().await).await;
    assert_eq!(check(&bed.history(attempts).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_that_kafka_refuses_holds_the_stream() {
    let (bed, follower, mut relay) = narrow("refused_time").await;
    assert!(relay.terminate().await.success());
    let brokers = &bed.environment().kafka;
    let topic = bed.topic(CATEGORY);
    configure_topic(brokers, &topic, "message.timestamp.after.max.ms", "60000").await;
    let late = deposited(1);
    let id: EventId = late.id();
    append(&bed, &account("a"), [late]).await;
    append(&bed, &account("b"), [deposited(2)]).await;
    let mut change = bed.store().pool().begin().await.must("begin");
    administer(&mut change).await;
    sqlx::query(include_str!("sql/recorded_in_the_future.sql"))
        .bind(id.get())
        .execute(&mut *change)
        .await
        .must("change an event");
    change.commit().await.must("commit");
    relay.restart();
    relay.quarantines_for("record", "account-a").await;
    follower.until_count(2).await;
    configure_topic(brokers, &topic, "message.timestamp.after.max.ms", "86400000").await;
    bed.relay().must_run(&["quarantine", "retry", "account-a"]).await;
    follower.until_count(3).await;
    assert_eq!(check(&bed.history(Vec::new()).await), []);

    // Many of them hold their category, once: others do not wait for each of them.
    limit(&bed, LARGE).await;
    configure_topic(brokers, &topic, "message.timestamp.after.max.ms", "60000").await;
    relay.turn_page();
    let fill = sqlx::query(include_str!("sql/fill_in_the_future.sql")).bind("account-first");
    fill.execute(bed.store().pool()).await.must("fill");
    relay.quarantines_for("record", CATEGORY).await;
    append(&bed, &ledger(), [deposited(1)]).await;
    let ledgers = Follower::start(brokers, &[&bed.topic("ledger")]);
    ledgers.until_count(1).await;
    assert_eq!(relay.times("quarantined"), 1);
    let opened = relay.metric(PRODUCERS_OPENED).await;
    assert!(opened < 20.0, "{opened} producers were opened");
    assert!(relay.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_the_registry_does_not_have_holds_the_streams_that_use_it() {
    let bed = Testbed::new("schema_held").await;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay());
    append(&bed, &account("a"), [opened("ann")]).await;
    follower.until_count(1).await;
    assert!(relay.terminate().await.success());

    let strict = bed.relay().variable("ANNALS_RELAY__REGISTRY__AUTO_REGISTER", "false");
    let mut relay = RelayProcess::start(&strict);
    append(&bed, &account("a"), [closed(), opened("ann")]).await;
    append(&bed, &account("c"), [closed()]).await;
    append(&bed, &account("b"), [opened("bob")]).await;
    relay.quarantines("account-a").await;
    relay.quarantines("account-c").await;
    follower.until_count(2).await;
    assert!(relay.terminate().await.success());

    let mut relay = RelayProcess::start(&bed.relay());
    append(&bed, &account("b"), [opened("bob")]).await;
    follower.until_count(3).await;
    bed.relay().must_run(&["quarantine", "release", "--reason", "schemas may be registered"]).await;
    follower.until_count(6).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_schema_of_many_streams_holds_their_category_in_bounded_memory() {
    let bed = Testbed::new("schema_many").await;
    let brokers = &bed.environment().kafka;
    let ledger = ledger();
    let follower = Follower::start(brokers, &[&bed.topic("ledger")]);
    let mut relay = RelayProcess::start(&bed.relay());
    append(&bed, &account("a"), [opened("ann")]).await;
    append(&bed, &ledger, [deposited(0)]).await;
    follower.until_count(1).await;
    assert!(relay.terminate().await.success());

    // A transaction that nobody ends, as an orphaned prepared one.
    let mut orphan = bed.store().pool().begin().await.must("begin");
    let id = sqlx::query(include_str!("sql/take_transaction_id.sql"));
    id.execute(&mut *orphan).await.must("take a transaction id");
    let fill = include_str!("sql/fill_unregistered.sql");
    sqlx::raw_sql(fill).execute(bed.store().pool()).await.must("fill");
    // All shards but one are quiet, and positions are far apart.
    let jump = sqlx::raw_sql(include_str!("sql/next_partition.sql"));
    jump.execute(bed.store().pool()).await.must("go to the next partition");
    append(&bed, &ledger, [deposited(1)]).await;
    let strict = bed.relay().variable("ANNALS_RELAY__REGISTRY__AUTO_REGISTER", "false");
    let mut relay = RelayProcess::start(&strict);
    relay.quarantines_for("schema", CATEGORY).await;
    follower.until_count(2).await;
    assert!(!relay.has_event("outage_began"), "a page took too long");
    let bytes = relay.peak_bytes();
    assert!((1..REFUSED_BYTES_MAX).contains(&bytes), "{bytes} bytes");
    assert!(relay.terminate().await.success());
    orphan.rollback().await.must("roll back");

    // When they are released, no statement goes through all of them: it would take too long, and
    // would be tried again for ever.
    bed.relay().must_run(&["quarantine", "release"]).await;
    let slowly = include_str!("sql/read_slowly.sql");
    sqlx::raw_sql(slowly).execute(bed.store().pool()).await.must("have rows read slowly");
    append(&bed, &ledger, [deposited(2)]).await;
    let mut relay = RelayProcess::start(&bed.relay());
    follower.until_count(3).await;
    let accounts = bed.follow();
    accounts.until_count(2).await;
    assert!(relay.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_category_without_a_topic_is_held_and_goes_on_by_itself_once_it_has_one() {
    let bed = Testbed::new("no_topic").await;
    let brokers = &bed.environment().kafka;
    let ledger = ledger();
    let topics = [bed.topic(CATEGORY), bed.topic("ledger")];
    create_topic(brokers, &topics[1], 4).await;
    let made = RelayProcess::start(&bed.relay());
    made.event("publishing").await;
    let mut made = made;
    assert!(made.terminate().await.success());

    let settings = bed.relay().variable("ANNALS_RELAY__TOPICS__CREATE", "false");
    let mut relay = RelayProcess::start(&settings);
    append(&bed, &account("a"), [opened("ann"), deposited(1)]).await;
    let line = relay.quarantines("account").await;
    assert!(line.contains("kafka-topics.sh"), "{line}");
    append(&bed, &ledger, [deposited(1)]).await;
    let ledgers = Follower::start(brokers, &[&topics[1]]);
    ledgers.until_count(1).await;
    append(&bed, &account("a"), [deposited(2)]).await;
    // A relay that takes over knows of it, too.
    relay.kill().await;
    relay.restart();
    append(&bed, &ledger, [deposited(2)]).await;
    ledgers.until_count(2).await;
    let list = settings.must_run(&["quarantine", "list"]).await;
    assert!(list.contains("category") && list.contains("topic"), "{list}");

    create_topic(brokers, &topics[0], 4).await;
    let follower = bed.follow();
    follower.until_count(3).await;
    append(&bed, &account("a"), [deposited(3)]).await;
    follower.until_count(4).await;
    assert!(relay.terminate().await.success());
    let versions: Vec<i64> = follower.seen().iter().map(|event| event.version.get()).collect();
    assert_eq!(versions, [0, 1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_are_added_to_topics_move_no_stream_and_are_said() {
    let bed = Testbed::new("more_partitions").await;
    let brokers = &bed.environment().kafka;
    let claims = bed.topic("own-claims");
    let settings = bed.relay().variable("ANNALS_RELAY__TOPICS__CLAIMS", &claims);
    let mut relay = RelayProcess::start(&settings);
    let streams: Vec<StreamName> = (0..20).map(account).collect();
    let append_all = async || {
        for stream in &streams {
            append(&bed, stream, [deposited(1)]).await;
        }
    };
    append_all().await;
    let follower = bed.follow();
    follower.until_count(20).await;
    let topic = bed.topic(CATEGORY);
    add_partitions(brokers, &topic, 8).await;
    let own = [topics(brokers, &bed.topic("test-checkpoints-")), vec![claims]].concat();
    assert_eq!(own.len(), 2, "{own:?}");
    for of_relay in own {
        add_partitions(brokers, &of_relay, 70).await;
    }
    append_all().await;
    follower.until_count(40).await;
    let at_risk = [("setting", "replication.factor"), ("found", "1")];
    relay.event_with("topic_at_risk", &at_risk).await;
    relay.kill().await;
    relay.restart();
    append_all().await;
    relay.event("partitions_added").await;
    let follower = bed.follow();
    follower.until_count(60).await;
    assert!(!relay.has_event("quarantined"));
    assert!(relay.terminate().await.success());
    let records = read_topic(brokers, &topic, Isolation::Committed).await;
    assert!(records.iter().all(|record| record.partition < 4), "the first partitions are used");
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_lost_its_records_is_held_and_said_until_an_operator_lets_it_go_on() {
    let bed = Testbed::new("deleted_topic").await;
    let brokers = &bed.environment().kafka;
    let (topic, other) = (bed.topic(CATEGORY), bed.topic("ledger"));
    let ledger = ledger();
    let mut relay = RelayProcess::start(&bed.relay());
    append(&bed, &account("a"), (0..100).map(deposited)).await;
    let follower = bed.follow();
    follower.until_count(100).await;
    drop(follower);
    bed.until_ends_recorded(&topic, 100).await;
    for round in 1..=2 {
        relay.turn_page();
        if round == 2 {
            // An empty one is created in its place.
            assert!(relay.terminate().await.success());
            delete_topic(brokers, &topic).await;
            create_topic(brokers, &topic, 4).await;
            relay.restart();
        } else {
            delete_topic(brokers, &topic).await;
        }
        append(&bed, &account("a"), [deposited(100)]).await;
        relay.event_with("topic_lost", &[("topic", &topic)]).await;
        relay.quarantines(CATEGORY).await;
        append(&bed, &ledger, [deposited(round)]).await;
        let ledgers = Follower::start(brokers, &[&other]);
        ledgers.until_count(usize::try_from(round).must("count")).await;
        assert_eq!(annals_testkit::topics(brokers, &topic).len() == 1, round == 2);
        let forget = include_str!("sql/forget_topic.sql");
        sqlx::query(forget).bind(&topic).execute(bed.store().pool()).await.must("forget the topic");
        let follower = bed.follow();
        follower.until_count(1).await;
        bed.until_ends_recorded(&topic, 1).await;
    }
    let follower = bed.follow();
    follower.until_count(1).await;
    assert_eq!(follower.seen()[0].version.get(), 101);
    assert!(relay.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_refused_streams_of_a_category_quarantine_the_category() {
    const STREAMS: usize = 40;
    let bed = Testbed::new("quarantine_many").await;
    let brokers = &bed.environment().kafka;
    create_topic(brokers, &bed.topic(CATEGORY), 4).await;
    limit(&bed, SMALL).await;
    let other = ledger();
    // It is frozen for a while, and keeps its lease.
    let settings = bed.relay().variable("ANNALS_RELAY__RELAY__LEASE_MS", "600000");
    let mut relay = RelayProcess::start(&settings);
    let follower = Follower::start(brokers, &[&bed.topic("ledger")]);
    append(&bed, &other, [deposited(0)]).await;
    follower.until_count(1).await;
    relay.freeze().await;
    for number in 0..STREAMS {
        append(&bed, &account(number), [deposited_large(0)]).await;
    }
    relay.thaw().await;
    relay.quarantines_for("record", CATEGORY).await;
    // They are found together: producers were not made anew for each of them.
    let opened = relay.metric(PRODUCERS_OPENED).await;
    assert!(opened < 20.0, "{opened} producers for {STREAMS} streams");
    // What the failed batches lacked is not looked up again for the others.
    let asked = relay.metric(REGISTRY_REQUESTS).await;
    append(&bed, &other, [deposited(1)]).await;
    follower.until_count(2).await;
    let asked = relay.metric(REGISTRY_REQUESTS).await - asked;
    assert!(asked.abs() < 0.5, "{asked} schemas were looked up again");

    limit(&bed, LARGE).await;
    bed.relay().must_run(&["quarantine", "release"]).await;
    let accounts = bed.follow();
    accounts.until_count(STREAMS).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history_of(&[CATEGORY, "ledger"], Vec::new()).await), []);
}
