//! Replicas are restarted one after the other under a steady rate of events: readers of committed
//! records receive each once, in order, and the test prints the longest pause.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_store::{Append, ExpectedVersion, NewEvent, Store};
use annals_testkit::{
    Attempt, AttemptedEvent, DEADLINE, Must, Outcome, RelayProcess, Testbed, account, check,
    deposited,
};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

const EVENTS_A_SECOND: u64 = 5_000;
const EVENTS_AN_APPEND: u64 = 25;
const STREAMS: u64 = 60;
/// The number of the store's connections.
const APPENDS_AT_ONCE: usize = 20;
/// Events between one restart and the next.
const EVENTS_BETWEEN: usize = 2_500;

/// Offers events at a steady rate, without waiting for earlier ones.
struct Offer {
    stop: watch::Sender<bool>,
    task: JoinHandle<Vec<Attempt>>,
}

impl Offer {
    fn start(store: &Store) -> Self {
        let stop = watch::Sender::new(false);
        let task = tokio::spawn(offer(store.clone(), stop.subscribe()));
        Self { stop, task }
    }

    async fn stop(self) -> Vec<Attempt> {
        self.stop.send_replace(true);
        self.task.await.must("offer events")
    }
}

async fn offer(store: Store, stop: watch::Receiver<bool>) -> Vec<Attempt> {
    let pause = Duration::from_secs(1) / u32::try_from(EVENTS_A_SECOND / EVENTS_AN_APPEND).unwrap();
    let mut ticks = tokio::time::interval(pause);
    // Missed events are appended late.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut appends, room) = (JoinSet::new(), Arc::new(Semaphore::new(APPENDS_AT_ONCE)));
    let mut number = 0;
    while !*stop.borrow() {
        ticks.tick().await;
        let permit = Arc::clone(&room).acquire_owned().await.must("wait for a connection");
        let store = store.clone();
        number += 1;
        appends.spawn(async move {
            let attempt = append(&store, number % STREAMS).await;
            drop(permit);
            attempt
        });
    }
    appends.join_all().await
}

async fn append(store: &Store, stream: u64) -> Attempt {
    let stream = account(stream);
    let events: Vec<NewEvent> = (0..EVENTS_AN_APPEND).map(|_| deposited(1)).collect();
    let ids: Vec<_> = events.iter().map(|event| event.id().get()).collect();
    let append = Append::to(&stream, ExpectedVersion::Any, events);
    let appended = store.append(&append).await.must("append");
    let versions = appended.events.iter().map(|(version, _)| Some(version.get()));
    let event = |(id, version)| AttemptedEvent { id, stream: stream.to_string(), version };
    let events = ids.into_iter().zip(versions).map(event).collect();
    Attempt { outcome: Outcome::Acknowledged, events }
}

/// The longest time without an event, from now until the count has reached an end.
async fn longest_gap(
    mut count: watch::Receiver<usize>,
    mut end: watch::Receiver<usize>,
) -> Duration {
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    while *count.borrow_and_update() < *end.borrow_and_update() {
        tokio::select! {
            _ = count.changed() => {
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
            _ = end.changed() => {}
        }
    }
    longest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_are_restarted_under_5000_events_a_second_and_every_event_comes_once_in_order()
 {
    let bed = Testbed::new("steady").await;
    let follower = bed.follow();
    let mut relays = ["a", "b", "c"].map(|name| RelayProcess::start(&bed.relay().instance(name)));
    for relay in &relays {
        relay.event("publishing").await;
    }
    let began = Instant::now();
    let offer = Offer::start(bed.store());
    follower.until_count(EVENTS_BETWEEN).await;
    let end = watch::Sender::new(usize::MAX);
    let gap = tokio::spawn(longest_gap(follower.counter(), end.subscribe()));
    for relay in &mut relays {
        assert!(relay.terminate().await.success());
        follower.until_count(follower.count() + EVENTS_BETWEEN).await;
        relay.restart();
        relay.event("publishing").await;
        follower.until_count(follower.count() + EVENTS_BETWEEN).await;
    }
    let attempts = offer.stop().await;
    let seconds = began.elapsed().as_secs_f64();
    let recorded = bed.recorded().await;
    end.send_replace(recorded.len());
    assert!(follower.caught_up(&recorded).await);
    let gap =
        tokio::time::timeout(DEADLINE, gap).await.must("see the last event").must("look for gaps");
    let events = recorded.len();
    eprintln!("{events} events in {seconds:.1} s, three restarts: the longest gap was {gap:?}");
    assert_eq!(check(&bed.history(attempts).await), []);
}
