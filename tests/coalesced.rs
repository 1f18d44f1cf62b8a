//! Appends that go to the server in one call have the outcomes of the same appends one after the
//! other, also while other transactions hold locks, callers drop their futures, and connections
//! break.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use annals_store::{
    Append, AppendError, Appended, Coalescing, EventId, ExpectedVersion, NewEvent, Refusal, Store,
    StoreOptions, StreamName, Version,
};
use annals_testkit::{Dice, Must, Testbed, account, closed, deposited, dropped_after};
use futures_util::future::{join_all, try_join_all};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

use crate::sequential_model::{CARRIED_MAX, Contradiction, Observation, Observed, contradictions};

const TASKS: usize = 24;
const APPENDS_OF_A_TASK: usize = 40;
const STREAMS: usize = 4;

/// One task that appends at random, and remembers its observations.
struct Task {
    store: Store,
    clock: Arc<AtomicU64>,
    dice: Dice,
    observations: Vec<Observation>,
    /// The last observation of this task about each stream.
    versions: Vec<Option<Version>>,
    /// An append to repeat.
    last: Option<(StreamName, ExpectedVersion, Vec<NewEvent>)>,
}

impl Task {
    fn new(store: &Store, clock: &Arc<AtomicU64>, dice: Dice) -> Self {
        let (store, clock) = (store.clone(), Arc::clone(clock));
        let versions = vec![None; STREAMS];
        Self { store, clock, dice, observations: Vec::new(), versions, last: None }
    }

    async fn run(mut self) -> Vec<Observation> {
        for _ in 0..APPENDS_OF_A_TASK {
            self.append().await;
        }
        self.observations
    }

    async fn append(&mut self) {
        let number = self.dice.below(STREAMS);
        let (stream, expected, events) = match self.last.take() {
            Some(last) if self.dice.below(8) == 0 => last,
            _ => (account(number), self.expected(number), self.events()),
        };
        let append = Append::to(&stream, expected, events.clone())
            .with_conflict_events(u16::try_from(CARRIED_MAX).must("count events"));
        let started = self.clock.fetch_add(1, Ordering::SeqCst);
        let result = match self.dice.below(20) {
            0 => dropped_after(1 + self.dice.below(3), self.store.append(&append)).await,
            _ => Some(self.store.append(&append).await),
        };
        let ended = self.clock.fetch_add(1, Ordering::SeqCst);
        let outcome = result.map_or(Observed::Unknown, |result| observed(&stream, result));
        self.versions[number] = match &outcome {
            Observed::Recorded { versions, .. } => versions.last().copied().and_then(Version::new),
            Observed::Conflict { actual, .. } => actual.and_then(Version::new),
            Observed::Refused | Observed::Unknown => self.versions[number],
        };
        let ids = events.iter().map(|event| event.id().get()).collect();
        let of = stream.to_string();
        self.observations.push(Observation { stream: of, expected, ids, started, ended, outcome });
        self.last = Some((stream, expected, events));
    }

    fn events(&mut self) -> Vec<NewEvent> {
        (0..=self.dice.below(3)).map(|number| deposited(i64::try_from(number).unwrap())).collect()
    }

    fn expected(&mut self, stream: usize) -> ExpectedVersion {
        match self.dice.below(6) {
            0 => ExpectedVersion::Any,
            1 => ExpectedVersion::StreamExists,
            2 => ExpectedVersion::NoStream,
            _ => self.versions[stream].into(),
        }
    }
}

fn observed(stream: &StreamName, result: Result<Appended, AppendError>) -> Observed {
    match result {
        Ok(Appended { events, repeated, .. }) => {
            let numbers = events.iter().map(|(version, at)| (version.get(), at.get()));
            let (versions, positions) = numbers.unzip();
            Observed::Recorded { versions, positions, repeated }
        }
        Err(error) if error.conflict_of(stream).is_some() => {
            let conflict = error.conflict_of(stream).must("find the conflict");
            let events = conflict.events.iter().map(|event| event.id.get()).collect();
            Observed::Conflict { actual: conflict.actual.map(Version::get), events }
        }
        Err(AppendError::Refused(_)) => Observed::Refused,
        Err(_) => Observed::Unknown,
    }
}

/// Runs all tasks at once; returns their observations.
async fn run_tasks(store: &Store, dice: &mut Dice) -> Vec<Observation> {
    let clock = Arc::new(AtomicU64::new(0));
    let tasks = (0..TASKS).map(|_| tokio::spawn(Task::new(store, &clock, dice.split()).run()));
    let observed = try_join_all(tasks.collect::<Vec<_>>()).await.must("append");
    observed.into_iter().flatten().collect()
}

async fn transactions(bed: &Testbed) -> i64 {
    let count = sqlx::query_scalar(include_str!("sql/transactions_of_events.sql"));
    count.fetch_one(bed.store().pool()).await.must("count transactions")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_of_many_tasks_have_the_outcomes_of_a_sequence() {
    let bed = Testbed::new("coalesced").await;
    let mut dice = Dice::of_this_run();
    let observations = run_tasks(&bed.another_store().await, &mut dice).await;
    let recorded = bed.recorded().await;
    assert_eq!(contradictions(&observations, &recorded), [].into());
    let is_refused = |one: &&Observation| matches!(one.outcome, Observed::Conflict { .. });
    assert!(observations.iter().filter(is_refused).count() > 0, "nothing was refused");
    let writes = observations
        .iter()
        .filter(|one| matches!(one.outcome, Observed::Recorded { repeated: false, .. }));
    let (writes, transactions) = (writes.count(), transactions(&bed).await);
    assert!(
        transactions < i64::try_from(writes).unwrap(),
        "{writes} appends in {transactions} transactions"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_are_those_of_a_sequence_while_connections_are_lost_and_streams_are_locked() {
    let bed = Testbed::new("coalesced_crashes").await;
    let mut dice = Dice::of_this_run();
    let store = bed.another_store().await;
    let appending = run_tasks(&store, &mut dice);
    let disturbing = async {
        let mut own = PgConnection::connect(&bed.database_url()).await.must("connect");
        for number in 0..10 {
            let mut transaction = own.begin().await.must("begin");
            let append =
                Append::to(&account(number % STREAMS), ExpectedVersion::Any, [deposited(0)]);
            bed.store().append_in(&mut transaction, &append).await.must("append");
            let end = sqlx::query(include_str!("sql/end_other_sessions.sql"));
            end.execute(&mut *transaction).await.must("end sessions");
            transaction.rollback().await.must("roll back");
        }
    };
    let (observations, ()) = tokio::join!(appending, disturbing);
    let recorded = bed.recorded().await;
    assert_eq!(contradictions(&observations, &recorded), [].into());
}

/// A bug, as a replacement in a function of the store, and the finding of the model.
struct Bug {
    function: &'static str,
    right: &'static str,
    wrong: &'static str,
    found: Contradiction,
}

const BUGS: [Bug; 3] = [
    // The results of a call are given to other appends of it.
    Bug {
        function: "append_each_and_commit",
        right: "commit;",
        wrong: "positions := (select array_agg(p.p order by p.place desc)
            from unnest(positions) with ordinality p (p, place)); commit;",
        found: Contradiction::NotAsRecorded,
    },
    // An append does not see the earlier ones of its call.
    Bug {
        function: "append_each",
        right: "expected[i] = current[stream]",
        wrong: "expected[i] = (
            select coalesce(max(e.version), -1) from annals.events e where e.stream = streams[stream]
        )",
        found: Contradiction::UnexpectedVersion,
    },
    // The results arrive before a commit that fails.
    Bug {
        function: "append_each_and_commit",
        right: "commit;",
        wrong: "rollback;",
        found: Contradiction::NotAsRecorded,
    },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_bugs_are_found() {
    for bug in BUGS {
        let bed = Testbed::new("coalesced_bug").await;
        plant(&bed, &bug).await;
        let observations = run_tasks(&bed.another_store().await, &mut Dice::of_this_run()).await;
        let found = contradictions(&observations, &bed.recorded().await);
        assert!(found.contains(&bug.found), "{}: {found:?}", bug.wrong);
    }
}

async fn plant(bed: &Testbed, bug: &Bug) {
    let definition = sqlx::query_scalar(include_str!("sql/function_definition.sql"));
    let definition: String =
        definition.bind(bug.function).fetch_one(bed.store().pool()).await.must("read a function");
    assert!(definition.contains(bug.right), "{} has no {:?}", bug.function, bug.right);
    let planted = definition.replace(bug.right, bug.wrong);
    sqlx::raw_sql(AssertSqlSafe(planted)).execute(bed.store().pool()).await.must("plant a bug");
}

fn one(stream: &StreamName) -> Append {
    Append::to(stream, ExpectedVersion::Any, [deposited(1)])
}

#[tokio::test]
async fn a_stream_that_another_transaction_locks_delays_only_its_own_appends() {
    let bed = Testbed::new("coalesced_locks").await;
    let store = bed.another_store().await;
    for number in 0..20 {
        store.append(&one(&account(number))).await.must("append");
    }
    let mut connection = PgConnection::connect(&bed.database_url()).await.must("connect");
    let mut stranger = connection.begin().await.must("begin");
    // One that exists, and one that this transaction creates.
    for number in [0, 100] {
        bed.store().append_in(&mut stranger, &one(&account(number))).await.must("append");
    }
    let locked: Vec<_> = [0, 100, 0, 100, 0].map(|number| one(&account(number))).into();
    let locked = locked.into_iter().map(|append| {
        let store = store.clone();
        tokio::spawn(async move { store.append(&append).await })
    });
    let locked: Vec<_> = locked.collect();
    let free: Vec<_> = (1..20).map(|number| one(&account(number))).collect();
    for _ in 0..5 {
        let results = join_all(free.iter().map(|append| store.append(append))).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }
    bed.until_waiting_for_a_lock().await;
    assert!(locked.iter().all(|task| !task.is_finished()));
    stranger.commit().await.must("commit");
    let results = try_join_all(locked).await.must("append");
    let versions = results.into_iter().map(|result| result.must("append").events[0].0.get());
    assert_eq!(versions.collect::<Vec<_>>(), [2, 1, 3, 2, 4], "each stream in the order of calls");
}

/// Appends; drops each third append after so many polls.
async fn append_or_drop(
    store: &Store,
    append: &Append,
    number: usize,
    polls: usize,
) -> Option<Result<Appended, AppendError>> {
    if number % 3 == 1 {
        return dropped_after(polls, Box::pin(store.append(append))).await;
    }
    Some(store.append(append).await)
}

#[tokio::test]
async fn a_dropped_caller_changes_nothing_for_the_others() {
    let bed = Testbed::new("coalesced_drops").await;
    let store = bed.another_store().await;
    store.append(&one(&account(0))).await.must("append");
    for polls in 1..8 {
        let appends: Vec<_> = (0..30).map(|number| one(&account(number % 3))).collect();
        let each = appends.iter().enumerate();
        let each = each.map(|(number, append)| append_or_drop(&store, append, number, polls));
        let results = join_all(each).await;
        for (number, result) in results.iter().enumerate().filter(|(number, _)| number % 3 != 1) {
            assert!(matches!(result, Some(Ok(_))), "{number}: {result:?}");
        }
        for append in &appends {
            store.append(append).await.must("append, perhaps again");
        }
    }
    assert_eq!(bed.recorded().await.len(), 1 + 7 * 30);
}

#[tokio::test]
async fn an_error_of_one_append_is_only_its_own() {
    let bed = Testbed::new("coalesced_errors").await;
    let store = bed.another_store().await;
    let constraint = include_str!("sql/refuse_closed_accounts.sql");
    sqlx::raw_sql(constraint).execute(store.pool()).await.must("add a constraint");
    let appends: Vec<_> = (0..30)
        .map(|number| {
            let event = if number % 10 == 7 { closed() } else { deposited(1) };
            Append::to(&account(number), ExpectedVersion::NoStream, [event])
        })
        .collect();
    let results = join_all(appends.iter().map(|append| store.append(append))).await;
    for (number, result) in results.iter().enumerate() {
        let is_right = match number % 10 {
            7 => matches!(result, Err(AppendError::Failed(_))),
            _ => result.is_ok(),
        };
        assert!(is_right, "{number}: {result:?}");
    }
    assert_eq!(bed.recorded().await.len(), 27);
}

#[tokio::test]
async fn the_same_events_at_once_are_recorded_once() {
    let bed = Testbed::new("coalesced_repeats").await;
    let store = bed.another_store().await;
    let appends: Vec<_> = (0..10).map(|number| one(&account(number % 2))).collect();
    let all = appends.iter().chain(&appends).chain(&appends);
    let results = join_all(all.map(|append| store.append(append))).await;
    let results = results.into_iter().map(|result| result.must("append"));
    let results: Vec<Appended> = results.collect();
    assert_eq!(results.iter().filter(|appended| !appended.repeated).count(), 10);
    for (number, appended) in results.iter().enumerate() {
        assert_eq!(appended.events, results[number % 10].events);
    }
    // The same id for another event is refused, also in one call.
    let id = EventId::from(Uuid::now_v7());
    let [left, right] = [1, 2].map(|cents| deposited(cents).with_id(id));
    let left = Append::to(&account("left"), ExpectedVersion::Any, [left]);
    let right = Append::to(&account("right"), ExpectedVersion::Any, [right]);
    let (busy, left, right) =
        tokio::join!(store.append(&appends[0]), store.append(&left), store.append(&right));
    busy.must("append");
    let refused: Vec<_> = [left, right].into_iter().filter_map(Result::err).collect();
    let [AppendError::Refused(refusals)] = refused.as_slice() else { panic!("{refused:?}") };
    assert!(matches!(refusals[0], Refusal::IdTaken { .. }), "{refusals:?}");
}

#[tokio::test]
async fn closing_finishes_what_is_queued_and_refuses_what_comes_later() {
    let bed = Testbed::new("coalesced_close").await;
    let store = bed.another_store().await;
    let appends: Vec<_> = (0..20).map(|number| one(&account(number))).collect();
    let appending = join_all(appends.iter().map(|append| store.append(append)));
    let (results, ()) = tokio::join!(appending, store.close());
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let late = store.append(&one(&account("late"))).await;
    assert!(matches!(late, Err(AppendError::Closed)), "{late:?}");
    assert_eq!(bed.recorded().await.len(), 20);
}

#[tokio::test]
async fn a_runtime_that_shuts_down_drops_the_appends_in_the_queue() {
    let bed = Testbed::new("coalesced_shutdown").await;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().must("make a runtime");
    let coalescing = Coalescing::default().direct_max(0).calls_max(NonZeroUsize::MIN);
    let options = StoreOptions::default().coalescing(coalescing).without_notifications();
    let url = bed.database_url();
    let store = runtime.spawn(async move { options.connect(&url).await.must("connect") });
    let store = store.await.must("run");
    let append = |number: usize| {
        let store = store.clone();
        runtime.spawn(async move { store.append(&one(&account(number))).await })
    };
    append(0).await.must("run").must("append");
    let mut connection = PgConnection::connect(&bed.database_url()).await.must("connect");
    let mut stranger = connection.begin().await.must("begin");
    let lock = sqlx::raw_sql(include_str!("sql/lock_events.sql"));
    lock.execute(&mut *stranger).await.must("lock the events");
    let called = append(1);
    bed.until_waiting_for_a_lock().await;
    let queued = append(2);
    // The one worker has polled the append before this task.
    runtime.spawn(async {}).await.must("run");
    tokio::task::spawn_blocking(move || drop(runtime)).await.must("shut the runtime down");
    for task in [called, queued] {
        assert!(task.await.is_err_and(|error| error.is_cancelled()));
    }
    stranger.rollback().await.must("roll back");
    let appended = bed.store().append(&one(&account(2))).await.must("append");
    assert_eq!(appended.events[0].0.get(), 0, "the queued append was not sent");
}

#[tokio::test]
async fn a_full_queue_refuses_an_append_at_once() {
    let bed = Testbed::new("coalesced_full").await;
    let coalescing = Coalescing::default().queue_events_max(NonZeroUsize::new(5).unwrap());
    let options = StoreOptions::default().coalescing(coalescing).without_notifications();
    let store = options.connect(&bed.database_url()).await.must("connect");
    store.append(&one(&account(0))).await.must("append");
    let appends: Vec<_> = (0..50).map(|number| one(&account(number))).collect();
    let results = join_all(appends.iter().map(|append| store.append(append))).await;
    let full = results.iter().filter_map(|result| result.as_ref().err());
    let full: Vec<_> = full.collect();
    assert!(!full.is_empty());
    assert!(full.iter().all(|error| matches!(error, AppendError::QueueFull { .. })), "{full:?}");
    assert!(full.iter().all(|error| error.is_retryable()));
    assert_eq!(bed.recorded().await.len(), 1 + 50 - full.len());
}
