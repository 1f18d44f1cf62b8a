//! A runner that pauses between its claim of a partition and its next commit, while another one
//! takes the partition over: each fence by itself.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::mpsc;

use annals_consumer::{DeliveredEvent, Projection, RunError, RunProgress, RunTotals};
use annals_testkit::{TopicBed, in_time};
use sqlx::PgConnection;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::bed;
use crate::book;
use crate::events::OrderEvent;

type Ended = Result<RunTotals, RunError>;

/// A run that waits behind its first batch of three events, with its claim and what it has fetched.
struct PausedRun {
    run: JoinHandle<Ended>,
    wake: mpsc::Sender<()>,
}

impl PausedRun {
    async fn start(bed: &TopicBed, projection: &Projection) -> Self {
        let (paused, is_paused) = oneshot::channel();
        let (wake, woken) = mpsc::channel();
        let runner = bed.runner(projection);
        let mut pause = Some(move || {
            paused.send(()).unwrap();
            tokio::task::block_in_place(|| woken.recv().unwrap());
        });
        let hook = move |progress: &RunProgress<'_>| match pause.take() {
            Some(pause) => {
                pause();
                ControlFlow::Continue(())
            }
            None => book::to_the_end(progress),
        };
        let add = async |connection: &mut PgConnection, events: &[DeliveredEvent<OrderEvent>]| {
            book::add(connection, events).await
        };
        let run = async move { runner.run_until(&CancellationToken::new(), hook, add).await };
        let run = tokio::spawn(run);
        in_time(is_paused).await.unwrap();
        Self { run, wake }
    }

    async fn go_on(self) -> Ended {
        self.wake.send(()).unwrap();
        in_time(self.run).await.unwrap()
    }
}

/// A projection that applies three events at a time, and its topic with three events of five
/// streams.
async fn open() -> (TopicBed, String, Projection) {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    bed.write(&topic, &book::orders(&bed, 5, 0..3)).await;
    let three = NonZeroUsize::new(3).unwrap();
    let projection = bed.projection(&[&topic]).await.batch_events_max(three);
    (bed, topic, projection)
}

async fn run_to_the_end(bed: &TopicBed, projection: &Projection) -> RunTotals {
    let run = bed.runner(projection);
    in_time(run.run_until(&CancellationToken::new(), book::to_the_end, book::add)).await.unwrap()
}

fn superseded(ended: Ended) -> (i64, i64) {
    match ended {
        Err(RunError::Superseded { expected, found, .. }) => (expected.get(), found.get()),
        other => panic!("{other:?}"),
    }
}

/// Only the epoch tells the paused runner from the owner: the offsets are as it left them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runner_commits_nothing_once_another_one_owns_its_partition_and_has_applied_nothing() {
    let (bed, _topic, projection) = open().await;
    let paused = PausedRun::start(&bed, &projection).await;
    let reject = async |_connection: &mut PgConnection, _events: &[DeliveredEvent<OrderEvent>]| {
        Err(sqlx::Error::RowNotFound)
    };
    let shutdown = CancellationToken::new();
    let owner = bed.runner(&projection).run(&shutdown, reject);
    let rejected = in_time(owner).await.unwrap_err();
    assert!(matches!(rejected, RunError::Handler { .. }), "{rejected:?}");

    assert_eq!(superseded(paused.go_on().await), (3, 3));
    assert_eq!(book::sums(&bed.pool).await.1, 3);
    assert_eq!(run_to_the_end(&bed, &projection).await.events, 12);
    assert_eq!(book::sums(&bed.pool).await, book::sums_of(5, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_runner_that_was_overtaken_writes_nothing_more() {
    let (bed, _topic, projection) = open().await;
    let paused = PausedRun::start(&bed, &projection).await;
    assert_eq!(run_to_the_end(&bed, &projection).await.events, 12);
    assert_eq!(superseded(paused.go_on().await), (3, 15));
    assert_eq!(book::sums(&bed.pool).await, book::sums_of(5, 3));
}

/// The group does not know the new owner, so that only the database fences the member.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_member_of_a_group_that_was_overtaken_drops_what_it_has_fetched_and_joins_again() {
    let (bed, topic, projection) = open().await;
    let paused = PausedRun::start(&bed, &projection.clone().shared()).await;
    assert_eq!(run_to_the_end(&bed, &projection).await.events, 12);
    bed.write(&topic, &book::orders(&bed, 5, 3..4)).await;
    let totals = paused.go_on().await.unwrap();
    assert_eq!((totals.events, totals.duplicates), (3 + 5, 0));
    assert_eq!(book::sums(&bed.pool).await, book::sums_of(5, 4));
}
