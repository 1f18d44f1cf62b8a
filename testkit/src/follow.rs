//! Consumes the relay's topics with the consumer crate that services use.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals_consumer::{Consumer, ConsumerSettings, Delivered};
use annals_store::{Error, Follow, Followed, Store};
use futures_util::TryStreamExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::history::{Consumed, Recorded};
use crate::must::Must;
use crate::until::until_counted;

/// The longest wait of a test: long enough for a busy machine, short enough to notice.
pub const DEADLINE: Duration = Duration::from_secs(240);

/// A consumer in the background, from the beginning of its topics: receives each event when a
/// service would.
#[derive(Debug)]
pub struct Follower {
    brokers: String,
    topics: Vec<String>,
    seen: Arc<Mutex<Vec<Delivered>>>,
    count: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl Follower {
    /// Follows topics, which need not exist yet.
    ///
    /// # Panics
    /// If the consumer cannot be created.
    #[must_use]
    pub fn start(brokers: &str, topics: &[&str]) -> Self {
        let settings = ConsumerSettings::new(brokers).topic_check_interval(Duration::from_secs(5));
        let consumer = Consumer::connect(settings).assign_from_beginning(topics);
        let consumer = consumer.must("follow topics");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (sender, count) = watch::channel(0);
        let task = tokio::spawn(follow(consumer, Arc::clone(&seen), sender));
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        Self { brokers: brokers.to_owned(), topics, seen, count, task }
    }

    /// Waits until `condition` holds for all events received so far, in the order in which they
    /// came.
    ///
    /// # Panics
    /// If it does not hold, and no further event comes within [`DEADLINE`]; the message names the
    /// condition by `what`, and what another consumer finds.
    pub async fn until(&self, what: &str, condition: impl Fn(&[Delivered]) -> bool) {
        match until_counted(self.count.clone(), |_| condition(&self.lock())).await {
            Some(true) => {}
            None => panic!("the follower ended before {what}"),
            Some(false) => panic!(
                "{what}: not within {DEADLINE:?}; {} events came; {}",
                self.count(),
                self.found_by_another().await
            ),
        }
    }

    /// The number of events that a new consumer finds: as many if no more were published, more if
    /// this consumer does not go on, and no end if a transaction is open.
    async fn found_by_another(&self) -> String {
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        match tokio::time::timeout(DEADLINE, consume(&self.brokers, &topics)).await {
            Ok(events) => format!("a new consumer finds {}", events.len()),
            Err(_) => "a new consumer does not find the end".to_owned(),
        }
    }

    /// Waits until so many events have come.
    ///
    /// # Panics
    /// If none comes within [`DEADLINE`] while some are missing.
    pub async fn until_count(&self, events: usize) {
        self.until(&format!("{events} events"), |seen| seen.len() >= events).await;
    }

    /// Waits until every recorded event has come; false if none comes within [`DEADLINE`] while
    /// some are missing. The checker then reports the differences.
    pub async fn caught_up(&self, recorded: &[Recorded]) -> bool {
        let wanted: HashSet<Uuid> = recorded.iter().map(|event| event.id).collect();
        let all_came = |seen: &[Delivered]| {
            let came: HashSet<Uuid> = seen.iter().map(|event| event.event_id).collect();
            wanted.is_subset(&came)
        };
        // The comparison is expensive: made only when it can succeed.
        let have_come = |count: usize| count >= wanted.len() && all_came(&self.lock());
        until_counted(self.count.clone(), have_come).await == Some(true)
    }

    /// The number of events received so far, as it changes.
    #[must_use]
    pub fn counter(&self) -> watch::Receiver<usize> {
        self.count.clone()
    }

    /// The number of events received so far.
    #[must_use]
    pub fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// The events received so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Delivered> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Delivered>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(
    mut consumer: Consumer,
    seen: Arc<Mutex<Vec<Delivered>>>,
    count: watch::Sender<usize>,
) {
    while let Some(delivered) = consumer.next().await.must("follow a topic") {
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(delivered);
        // Without the lock: a waiter for the count takes it while it reads the events.
        count.send_modify(|count| *count += 1);
    }
}

/// The next so many events of the log inside PostgreSQL, as a follower receives them; or the error
/// that ends it before.
///
/// # Errors
/// The follower's error.
///
/// # Panics
/// If they do not come within [`DEADLINE`].
pub async fn take(store: &Store, follow: Follow, events: usize) -> Result<Vec<Followed>, Error> {
    let mut taken = Vec::new();
    let mut log = pin!(store.follow(follow));
    while taken.len() < events {
        let next = tokio::time::timeout(DEADLINE, log.try_next()).await;
        let next =
            next.unwrap_or_else(|_| panic!("event {} of {events} does not come", taken.len()));
        taken.push(next?.must("follow for ever"));
    }
    Ok(taken)
}

/// Every committed event on these topics up to now, read by a fresh consumer from the beginning.
///
/// # Panics
/// If a topic cannot be read, or a record is not an event.
pub async fn consume(brokers: &str, topics: &[&str]) -> Vec<Consumed> {
    let connect = Consumer::connect(ConsumerSettings::new(brokers));
    let mut consumer = connect.read_to_end(topics).await.must("read topics");
    let records = consumer.read_remaining().await.must("read topics");
    consumer.close().await;
    records.into_iter().map(consumed).collect()
}

fn consumed(delivered: Delivered) -> Consumed {
    Consumed {
        id: delivered.event_id,
        version: delivered.version.get(),
        stream: delivered.stream,
        payload: delivered.payload,
        topic: delivered.topic.to_string(),
        partition: delivered.partition,
        offset: delivered.offset.get(),
    }
}
