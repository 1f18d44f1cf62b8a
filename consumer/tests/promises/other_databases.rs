//! A projection in another database than PostgreSQL: the example of documents without transactions.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annals_consumer::{
    BatchToApply, DatabaseError, DeliveredEvent, FailurePolicy, LastApplied, PartitionProgress,
    Projection, ProjectionDatabase, RunError, RunProgress, RunTotals,
};
use annals_testkit::{TopicBed, in_time};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::store::Documents;
use crate::bed;
use crate::book;
use crate::events::{OrderEvent, placed};
use crate::logs;

#[path = "../../examples/documents/store.rs"]
mod store;

const STREAMS: i64 = 10;

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Sum {
    events: i64,
    amount: i64,
}

fn add(sum: &mut Sum, event: &DeliveredEvent<OrderEvent>) {
    sum.events += 1;
    sum.amount += event.data.amount();
}

type Sums = Documents<Sum, OrderEvent>;

fn sums(documents: &Sums) -> (i64, i64, i64) {
    let orders = (0..STREAMS).filter_map(|n| documents.read(&format!("order-{n}")).unwrap());
    orders.fold((0, 0, 0), |(streams, events, amount), document| {
        (streams + 1, events + document.state.events, amount + document.state.amount)
    })
}

async fn run_to_the_end(
    bed: &TopicBed,
    projection: &Projection,
    database: impl ProjectionDatabase<OrderEvent>,
) -> Result<RunTotals, RunError> {
    let runner = projection.runner_on(database, bed.settings(), bed.schemas());
    in_time(runner.run_until(&CancellationToken::new(), book::to_the_end)).await
}

fn projection(topic: &str) -> Projection {
    let few = NonZeroUsize::new(7).unwrap();
    Projection::new("sums", &[topic]).unwrap().batch_events_max(few)
}

/// Documents whose every second batch fails.
struct Failing {
    documents: Sums,
    place: Place,
    end: End,
    applies: usize,
}

/// Where a batch fails.
#[derive(Debug, Clone, Copy)]
enum Place {
    BeforeDocuments,
    BeforeOffsets,
    BehindOffsets,
}

/// What the process sees of the failure.
#[derive(Debug, Clone)]
enum End {
    /// It does not know the outcome, and repeats the call.
    Unknown,
    /// It ends: it is told so, and its call is not answered.
    Crash(Arc<Notify>),
}

impl Failing {
    async fn fail(&mut self, batch: &BatchToApply<'_, OrderEvent>) -> Result<(), DatabaseError> {
        match self.place {
            Place::BeforeDocuments => {}
            Place::BeforeOffsets => self.documents.write_documents(batch).unwrap(),
            Place::BehindOffsets => self.documents.apply(batch).await?,
        }
        match &self.end {
            End::Unknown => Err(DatabaseError::Unavailable("the answer is lost".into())),
            End::Crash(crashed) => {
                crashed.notify_one();
                std::future::pending().await
            }
        }
    }
}

impl ProjectionDatabase<OrderEvent> for Failing {
    async fn record_partitions(&mut self, topic: &str, count: i32) -> Result<i32, DatabaseError> {
        self.documents.record_partitions(topic, count).await
    }

    async fn own(
        &mut self,
        partitions: &[(Arc<str>, i32)],
    ) -> Result<Vec<PartitionProgress>, DatabaseError> {
        self.documents.own(partitions).await
    }

    async fn last_applied(
        &mut self,
        streams: &[&str],
    ) -> Result<Vec<(String, LastApplied)>, DatabaseError> {
        self.documents.last_applied(streams).await
    }

    async fn apply(&mut self, batch: &BatchToApply<'_, OrderEvent>) -> Result<(), DatabaseError> {
        self.applies += 1;
        if self.applies.is_multiple_of(2) {
            self.fail(batch).await
        } else {
            self.documents.apply(batch).await
        }
    }
}

/// Three batches at least: the second one fails.
fn three_batches(progress: &RunProgress<'_>) -> ControlFlow<()> {
    let is_enough = progress.totals.batches > 2;
    if is_enough { ControlFlow::Break(()) } else { book::to_the_end(progress) }
}

const PLACES: [Place; 3] = [Place::BeforeDocuments, Place::BeforeOffsets, Place::BehindOffsets];

async fn open() -> (TopicBed, String, PathBuf) {
    let bed = bed().await;
    let topic = bed.create_topic(2).await;
    bed.write(&topic, &book::orders(&bed, STREAMS, 0..8)).await;
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&bed.name);
    (bed, topic, directory)
}

fn documents(directory: &Path) -> Sums {
    Documents::open(directory, add).unwrap()
}

#[tokio::test]
async fn documents_without_transactions_have_each_event_once_over_crashes_at_any_write() {
    let (bed, topic, directory) = open().await;
    for place in PLACES {
        let crashed = Arc::new(Notify::new());
        let end = End::Crash(Arc::clone(&crashed));
        let failing = Failing { documents: documents(&directory), place, end, applies: 0 };
        let projection = projection(&topic);
        tokio::select! {
            ended = run_to_the_end(&bed, &projection, failing) => panic!("{ended:?}"),
            () = crashed.notified() => {}
        }
    }
    let rest = run_to_the_end(&bed, &projection(&topic), documents(&directory)).await.unwrap();
    assert!(rest.events > 0);
    assert_eq!(sums(&documents(&directory)), book::sums_of(STREAMS, 8));
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test]
async fn documents_whose_answers_are_lost_have_each_event_once() {
    let (bed, topic, directory) = open().await;
    for place in PLACES {
        let failing =
            Failing { documents: documents(&directory), place, end: End::Unknown, applies: 0 };
        let runner = projection(&topic).runner_on(failing, bed.settings(), bed.schemas());
        in_time(runner.run_until(&CancellationToken::new(), three_batches)).await.unwrap();
    }
    run_to_the_end(&bed, &projection(&topic), documents(&directory)).await.unwrap();
    assert_eq!(sums(&documents(&directory)), book::sums_of(STREAMS, 8));
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runner_that_another_one_has_overtaken_writes_no_document() {
    let (bed, topic, directory) = open().await;
    let (paused, is_paused) = tokio::sync::oneshot::channel();
    let (wake, woken) = std::sync::mpsc::channel();
    let mut pause = Some(move || {
        paused.send(()).unwrap();
        tokio::task::block_in_place(|| woken.recv().unwrap());
    });
    let hook = move |_progress: &RunProgress<'_>| {
        pause.take().into_iter().for_each(|pause| pause());
        ControlFlow::Continue(())
    };
    let database = documents(&directory);
    let runner = projection(&topic).runner_on(database, bed.settings(), bed.schemas());
    let slow = tokio::spawn(async move { runner.run_until(&CancellationToken::new(), hook).await });
    in_time(is_paused).await.unwrap();
    run_to_the_end(&bed, &projection(&topic), documents(&directory)).await.unwrap();
    wake.send(()).unwrap();
    let error = in_time(slow).await.unwrap().unwrap_err();
    assert!(matches!(error, RunError::Superseded { .. }), "{error:?}");
    assert_eq!(sums(&documents(&directory)), book::sums_of(STREAMS, 8));
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test]
async fn refused_event_is_named_or_passed_and_added_partitions_are_read() {
    let (bed, topic, directory) = open().await;
    bed.write(&topic, &[bed.draft("order-0", 8, &placed(-1))]).await;
    let projection = projection(&topic);
    let refusing = || Refusing(documents(&directory));
    let error = run_to_the_end(&bed, &projection, refusing()).await.unwrap_err();
    let RunError::Handler { stream, version, .. } = &error else { panic!("{error:?}") };
    assert_eq!((stream.as_str(), version.get()), ("order-0", 8));
    let passing = projection.clone().rejected_events(FailurePolicy::DeadLetter);
    let totals = run_to_the_end(&bed, &passing, refusing()).await.unwrap();
    assert_eq!(totals.dead_letters, 1);
    assert_eq!(sums(&documents(&directory)), book::sums_of(STREAMS, 8));

    bed.repartition(&topic, 3).await;
    bed.write_to(&topic, 2, &[bed.draft("order-10", 0, &placed(1))]).await;
    for events in [1, 0] {
        let totals = run_to_the_end(&bed, &projection, refusing()).await.unwrap();
        assert_eq!((totals.events, totals.duplicates), (events, 0));
    }
    assert_eq!(logs::count(&["partitions_added", &topic, "recorded=2", "found=3"]), 1);
    std::fs::remove_dir_all(&directory).unwrap();
}

/// Refuses negative amounts.
struct Refusing(Sums);

impl ProjectionDatabase<OrderEvent> for Refusing {
    async fn record_partitions(&mut self, topic: &str, count: i32) -> Result<i32, DatabaseError> {
        self.0.record_partitions(topic, count).await
    }

    async fn own(
        &mut self,
        partitions: &[(Arc<str>, i32)],
    ) -> Result<Vec<PartitionProgress>, DatabaseError> {
        self.0.own(partitions).await
    }

    async fn last_applied(
        &mut self,
        streams: &[&str],
    ) -> Result<Vec<(String, LastApplied)>, DatabaseError> {
        self.0.last_applied(streams).await
    }

    async fn apply(&mut self, batch: &BatchToApply<'_, OrderEvent>) -> Result<(), DatabaseError> {
        if batch.events.iter().any(|event| event.data.amount() < 0) {
            return Err(DatabaseError::Refused("a negative amount".into()));
        }
        self.0.apply(batch).await
    }
}
