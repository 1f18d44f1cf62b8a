//! Appends that go to the server in one call have the outcomes of the same appends one after the
//! other, also while other transactions hold locks, callers drop their futures, and connections
//! break.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annals_store::{
    Append, AppendError, Appended, Coalescing, EventId, ExpectedVersion, Metadata, NewEvent, Read,
    Refusal, Store, StoreOptions, StreamName, Version,
};
use annals_testkit::{
    AccountEvent, Dice, Must, Testbed, account, closed, deposited, deposited_for, deposited_large,
    dropped_after, until,
};
use futures_util::TryStreamExt;
use futures_util::future::{Either, join_all, select, try_join_all};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres, Transaction};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::sequential_model::{CARRIED_MAX, Contradiction, Observation, Observed, contradictions};

const TASKS: usize = 24;
const APPENDS_OF_A_TASK: usize = 40;

/// What the tasks append.
#[derive(Debug, Clone, Copy)]
struct Appends {
    streams: usize,
    events_max: usize,
    /// One append in so many is a repeat, and another one is to any stream, under any expectation;
    /// the other appends of a task are to streams of its own, under the versions that they have.
    rare: Option<usize>,
}

/// Many appends to each stream in a call, most of them under an expectation that can fail.
const CROWDED: Appends = Appends { streams: 4, events_max: 3, rare: None };
/// Most calls have one event for each of several existing streams, and nothing to refuse.
const SPREAD: Appends = Appends { streams: 72, events_max: 1, rare: Some(20) };

/// One task that appends at random, and remembers its observations.
struct Task {
    store: Store,
    number: usize,
    appends: Appends,
    clock: Arc<AtomicU64>,
    dice: Dice,
    observations: Vec<Observation>,
    /// The last observation of this task about each stream.
    versions: Vec<Option<Version>>,
    /// An append to repeat, with the number of its stream.
    last: Option<(usize, ExpectedVersion, Vec<NewEvent>)>,
}

impl Task {
    async fn run(mut self) -> Vec<Observation> {
        for _ in 0..APPENDS_OF_A_TASK {
            self.append().await;
        }
        self.observations
    }

    async fn append(&mut self) {
        let repeated = self.appends.rare.unwrap_or(8);
        let (number, expected, events) = match self.last.take() {
            Some(last) if self.dice.below(repeated) == 0 => last,
            _ => self.next(),
        };
        let stream = account(number);
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
        self.last = Some((number, expected, events));
    }

    /// The number of a stream, and what to append to it.
    fn next(&mut self) -> (usize, ExpectedVersion, Vec<NewEvent>) {
        let Appends { streams, rare, .. } = self.appends;
        match rare {
            Some(rare) if self.dice.below(rare) > 0 => {
                let own = self.number + TASKS * self.dice.below(streams / TASKS);
                (own, self.versions[own].into(), self.events())
            }
            Some(_) | None => {
                let any = self.dice.below(streams);
                (any, self.expected(any), self.events())
            }
        }
    }

    fn events(&mut self) -> Vec<NewEvent> {
        if self.appends.rare.is_some_and(|rare| self.dice.below(3 * rare) == 0) {
            return vec![closed()];
        }
        let events = 1 + self.dice.below(self.appends.events_max);
        (0..events).map(|number| deposited(i64::try_from(number).unwrap())).collect()
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
        // Nothing is written.
        Err(AppendError::Refused(_) | AppendError::Failed(_)) => Observed::Refused,
        Err(_) => Observed::Unknown,
    }
}

/// Runs all tasks at once; returns their observations.
async fn run_tasks(store: &Store, appends: Appends, dice: &mut Dice) -> Vec<Observation> {
    let created = match appends.rare {
        Some(_) => create_streams(store, appends.streams).await,
        None => Vec::new(),
    };
    let clock = Arc::new(AtomicU64::new(0));
    let tasks = (0..TASKS).map(|number| {
        let task = Task {
            store: store.clone(),
            number,
            appends,
            clock: Arc::clone(&clock),
            dice: dice.split(),
            observations: Vec::new(),
            versions: vec![(!created.is_empty()).then_some(Version::FIRST); appends.streams],
            last: None,
        };
        tokio::spawn(task.run())
    });
    let observed = try_join_all(tasks.collect::<Vec<_>>()).await.must("append");
    observed.into_iter().flatten().chain(created).collect()
}

/// Appends an event to each stream; returns that they may be recorded.
async fn create_streams(store: &Store, streams: usize) -> Vec<Observation> {
    let create = async |number: usize| {
        let (stream, event, expected) = (account(number), deposited(0), ExpectedVersion::NoStream);
        let ids = vec![event.id().get()];
        store.append(&Append::to(&stream, expected, [event])).await.must("create a stream");
        let (stream, outcome) = (stream.to_string(), Observed::Unknown);
        Observation { stream, expected, ids, started: 0, ended: 0, outcome }
    };
    join_all((0..streams).map(create)).await
}

async fn transactions(bed: &Testbed) -> i64 {
    let count = sqlx::query_scalar(include_str!("sql/transactions_of_events.sql"));
    count.fetch_one(bed.store().pool()).await.must("count transactions")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_of_many_tasks_have_the_outcomes_of_a_sequence() {
    let bed = Testbed::new("coalesced").await;
    let mut dice = Dice::of_this_run();
    let observations = run_tasks(&bed.another_store().await, CROWDED, &mut dice).await;
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
async fn appends_that_are_refused_at_the_commit_are_never_acknowledged() {
    let bed = Testbed::new("coalesced_commits").await;
    let constraint = include_str!("sql/deferred_constraint.sql");
    sqlx::raw_sql(constraint).execute(bed.store().pool()).await.must("add a constraint");
    let mut dice = Dice::of_this_run();
    let observations = run_tasks(&bed.another_store().await, SPREAD, &mut dice).await;
    assert_eq!(contradictions(&observations, &bed.recorded().await), [].into());
    let refused = observations.iter().filter(|one| one.outcome == Observed::Refused);
    assert!(refused.count() > 0, "nothing was refused at the commit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_are_those_of_a_sequence_while_connections_are_lost_and_streams_are_locked() {
    let bed = Testbed::new("coalesced_crashes").await;
    let mut dice = Dice::of_this_run();
    // All appends go through the queue, so that one that waits for a lock was skipped by its call.
    let store = store_with(&bed, Coalescing::default().direct_max(0)).await;
    let mut appending = pin!(run_tasks(&store, CROWDED, &mut dice));
    let mut own = PgConnection::connect(&bed.database_url()).await.must("connect");
    let mut disturbances = 0;
    let observations = loop {
        if disturbances == DISTURBANCES {
            break appending.await;
        }
        let stream = account(disturbances % CROWDED.streams);
        let disturbing = pin!(disturb(&bed, &mut own, &stream));
        match select(appending.as_mut(), disturbing).await {
            Either::Left((observations, _)) => break observations,
            Either::Right(_) => disturbances += 1,
        }
    };
    assert!(disturbances > 1, "the tasks were not disturbed");
    let recorded = bed.recorded().await;
    assert_eq!(contradictions(&observations, &recorded), [].into());
}

const DISTURBANCES: usize = 15;

/// Locks a stream, and ends all other sessions when one of them waits for it.
async fn disturb(bed: &Testbed, own: &mut PgConnection, stream: &StreamName) {
    let mut transaction = own.begin().await.must("begin");
    bed.store().append_in(&mut transaction, &one(stream)).await.must("append");
    // Over a connection of its own: those of a pool were ended the last time.
    let mut watching = PgConnection::connect(&bed.database_url()).await.must("connect");
    until("an append waits for the lock", async || {
        let waiting = sqlx::query_scalar(include_str!("../testkit/sql/waiting_for_lock.sql"));
        let waiting: i64 = waiting.fetch_one(&mut watching).await.must("look at locks");
        waiting > 0
    })
    .await;
    let end = sqlx::query(include_str!("sql/end_other_sessions.sql"));
    end.execute(&mut *transaction).await.must("end sessions");
    transaction.rollback().await.must("roll back");
}

/// A bug, as a replacement in a function of the store, and the finding of the model.
struct Bug {
    appends: Appends,
    function: &'static str,
    right: &'static str,
    wrong: &'static str,
    found: Contradiction,
}

const BUGS: [Bug; 5] = [
    // The results of a call are given to other appends of it.
    Bug {
        appends: CROWDED,
        function: "append_each_and_commit",
        right: "commit;",
        wrong: "positions := (select array_agg(p.p order by p.place desc)
            from unnest(positions) with ordinality p (p, place)); commit;",
        found: Contradiction::NotAsRecorded,
    },
    // An append does not see the earlier ones of its call.
    Bug {
        appends: CROWDED,
        function: "append_each",
        right: "expected[i] = current[stream]",
        wrong: "expected[i] = (
            select coalesce(max(e.version), -1) from annals.events e where e.stream = streams[stream]
        )",
        found: Contradiction::UnexpectedVersion,
    },
    // The results arrive before a commit that fails.
    Bug {
        appends: CROWDED,
        function: "append_each_and_commit",
        right: "commit;",
        wrong: "rollback;",
        found: Contradiction::NotAsRecorded,
    },
    // The usual call does not check the expected versions.
    Bug {
        appends: SPREAD,
        function: "append_each",
        right: "g.expected = g.last",
        wrong: "true",
        found: Contradiction::UnexpectedVersion,
    },
    // Its results come in another order than the appends.
    Bug {
        appends: SPREAD,
        function: "append_each",
        right: "array_agg(w.position order by w.number)",
        wrong: "array_agg(w.position order by w.number desc)",
        found: Contradiction::NotAsRecorded,
    },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_bugs_are_found() {
    for bug in BUGS {
        let bed = Testbed::new("coalesced_bug").await;
        plant(&bed, bug.function, bug.right, bug.wrong).await;
        let store = bed.another_store().await;
        let observations = run_tasks(&store, bug.appends, &mut Dice::of_this_run()).await;
        let found = contradictions(&observations, &bed.recorded().await);
        assert!(found.contains(&bug.found), "{}: {found:?}", bug.wrong);
    }
}

async fn plant(bed: &Testbed, function: &str, right: &str, wrong: &str) {
    let definition = sqlx::query_scalar(include_str!("sql/function_definition.sql"));
    let definition: String =
        definition.bind(function).fetch_one(bed.store().pool()).await.must("read a function");
    assert!(definition.contains(right), "{function} has no {right:?}");
    let planted = definition.replace(right, wrong);
    sqlx::raw_sql(AssertSqlSafe(planted)).execute(bed.store().pool()).await.must("plant a bug");
}

/// A store whose appends all go through the queue, or as many as these options let.
async fn store_with(bed: &Testbed, coalescing: Coalescing) -> Store {
    let options = StoreOptions::default().coalescing(coalescing).without_notifications();
    options.connect(&bed.database_url()).await.must("connect")
}

fn one(stream: &StreamName) -> Append {
    Append::to(stream, ExpectedVersion::Any, [deposited(1)])
}

#[tokio::test]
async fn a_stream_that_another_transaction_locks_delays_only_its_own_appends() {
    let bed = Testbed::new("coalesced_locks").await;
    let store = store_with(&bed, Coalescing::default().direct_max(0)).await;
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
    let locked = locked.into_iter().map(|append| spawn_append(&store, append));
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
    // The same id for another event is refused, also between appends in the queue, which go in
    // different calls.
    let store = store_with(&bed, Coalescing::default().direct_max(0)).await;
    let id = EventId::from(Uuid::now_v7());
    let [left, right] = [1, 2].map(|cents| deposited(cents).with_id(id));
    let left = Append::to(&account("left"), ExpectedVersion::Any, [left]);
    let right = Append::to(&account("right"), ExpectedVersion::Any, [right]);
    let (left, right) = tokio::join!(store.append(&left), store.append(&right));
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
    let stranger = lock_events(&mut connection).await;
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

/// Locks the events, and lets calls wait for the lock.
async fn lock_events(connection: &mut PgConnection) -> Transaction<'_, Postgres> {
    let wait = sqlx::raw_sql(include_str!("sql/let_calls_wait.sql"));
    wait.execute(&mut *connection).await.must("let calls wait");
    let mut transaction = connection.begin().await.must("begin");
    let lock = sqlx::raw_sql(include_str!("sql/lock_events.sql"));
    lock.execute(&mut *transaction).await.must("lock the events");
    transaction
}

#[tokio::test]
async fn an_append_in_a_call_that_another_runtime_drops_is_interrupted() {
    let bed = Testbed::new("coalesced_interrupted").await;
    let store = store_with(&bed, Coalescing::default().direct_max(0)).await;
    store.append(&one(&account(0))).await.must("append");
    let mut connection = PgConnection::connect(&bed.database_url()).await.must("connect");
    let stranger = lock_events(&mut connection).await;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().must("make a runtime");
    let append = one(&account(1));
    let mut appending = Box::pin({
        let (store, append) = (store.clone(), append.clone());
        async move { store.append(&append).await }
    });
    // Its first poll, and so its call, is on the other runtime.
    #[expect(clippy::async_yields_async, reason = "the rest of it is polled on this runtime")]
    let appending = runtime.spawn(async move {
        assert!(futures_util::poll!(&mut appending).is_pending());
        appending
    });
    let appending = appending.await.must("begin to append");
    bed.until_waiting_for_a_lock().await;
    tokio::task::spawn_blocking(move || drop(runtime)).await.must("shut the runtime down");
    let interrupted = appending.await;
    assert!(matches!(interrupted, Err(AppendError::Interrupted)), "{interrupted:?}");
    assert!(interrupted.is_err_and(|error| error.is_retryable()));
    stranger.rollback().await.must("roll back");
    store.append(&append).await.must("append, perhaps again");
    let results = join_all((2..20).map(async |number| store.append(&one(&account(number))).await));
    assert!(results.await.iter().all(Result::is_ok));
    assert_eq!(bed.recorded().await.len(), 20);
}

#[tokio::test]
async fn an_event_id_of_a_strangers_transaction_delays_only_its_own_append() {
    let bed = Testbed::new("coalesced_stranger_id").await;
    let store = store_with(&bed, Coalescing::default().direct_max(0)).await;
    let streams = (0..20).map(|number| one(&account(number))).collect::<Vec<_>>();
    for result in join_all(streams.iter().map(|append| store.append(append))).await {
        result.must("append");
    }
    let event = deposited(1);
    let mut connection = PgConnection::connect(&bed.database_url()).await.must("connect");
    let mut stranger = connection.begin().await.must("begin");
    let taken = Append::to(&account("stranger"), ExpectedVersion::Any, [event.clone()]);
    bed.store().append_in(&mut stranger, &taken).await.must("append");
    let delayed = spawn_append(&store, Append::to(&account(0), ExpectedVersion::Any, [event]));
    // It is in the call of the others, or in one before it.
    let free: Vec<_> = (1..20).map(|number| one(&account(number))).collect();
    for result in join_all(free.iter().map(|append| store.append(append))).await {
        result.must("append to a free stream");
    }
    assert!(!delayed.is_finished());
    stranger.rollback().await.must("roll back");
    delayed.await.must("append").must("append");
    assert_eq!(bed.recorded().await.len(), 40);
}

/// An append whose event differs from all others in each part.
fn particular(stream: &StreamName, number: u32) -> Append {
    let metadata = Metadata {
        actor: Some(format!("actor {number}")),
        traceparent: Some(format!("00-{:032x}-{:016x}-01", number + 1, number + 1)),
        ..Metadata::default()
    };
    let event = deposited_for(i64::from(number), &format!("note {number}"));
    let event = event.with_metadata(metadata).with_header("number", number.to_string());
    Append::to(stream, ExpectedVersion::Any, [event])
}

/// Appends to streams at once, in calls; whether each event is recorded as it was given.
async fn are_recorded_as_given(bed: &Testbed) -> bool {
    let store = store_with(bed, Coalescing::default().direct_max(0)).await;
    let mut are_equal = true;
    // New streams at first, then existing ones.
    for round in 0..2 {
        let numbers: Vec<_> = (round * 30..(round + 1) * 30).collect();
        let appends = numbers.iter().map(|number| particular(&account(number % 30), *number));
        let appends: Vec<_> = appends.collect();
        for result in join_all(appends.iter().map(|append| store.append(append))).await {
            result.must("append");
        }
        let given: BTreeMap<_, _> = appends
            .iter()
            .flat_map(Append::events)
            .zip(&numbers)
            .map(|(event, number)| (event.id(), *number))
            .collect();
        let events: Vec<_> = store.read(Read::all()).try_collect().await.must("read");
        for event in events {
            let Some(number) = given.get(&event.id) else { continue };
            let AccountEvent::MoneyDeposited(deposit) = event.decode().must("decode") else {
                panic!("{event:?} is no deposit");
            };
            are_equal &= event.metadata.actor == Some(format!("actor {number}"))
                && event.metadata.traceparent
                    == Some(format!("00-{:032x}-{:016x}-01", number + 1, number + 1))
                && event.headers == [("number".to_owned(), number.to_string())].into()
                && deposit.sequence == i64::from(*number)
                && deposit.note == format!("note {number}");
        }
    }
    are_equal
}

#[tokio::test]
async fn events_of_a_call_keep_their_own_metadata_headers_and_payloads() {
    let bed = Testbed::new("coalesced_contents").await;
    assert!(are_recorded_as_given(&bed).await);
    assert!(transactions(&bed).await < 60, "each append made a call of its own");
    // The check finds the metadata of another event, of existing streams and of new ones.
    for right in ["w.data, w.metadata,", "e.data, e.metadata,"] {
        let bed = Testbed::new("coalesced_mixed_up").await;
        let wrong = right.replace(&right[8..], "metadata[1],");
        plant(&bed, "append_each", right, &wrong).await;
        assert!(!are_recorded_as_given(&bed).await, "{wrong} was not found");
    }
}

#[tokio::test]
async fn a_full_queue_refuses_an_append_at_once() {
    let bed = Testbed::new("coalesced_full").await;
    let by_events = Coalescing::default().queue_events_max(NonZeroUsize::new(5).unwrap());
    // Of a large event it has room for three.
    let by_bytes = Coalescing::default().queue_bytes_max(NonZeroUsize::new(90_000).unwrap());
    let mut recorded = 0;
    for (coalescing, queued_max) in [(by_events, 5), (by_bytes, 3)] {
        let store = store_with(&bed, coalescing.direct_max(0)).await;
        store.append(&one(&account(0))).await.must("append");
        let append = |number: usize| {
            Append::to(&account(number), ExpectedVersion::Any, [deposited_large(1)])
        };
        let appends: Vec<_> = (0..50).map(append).collect();
        let results = join_all(appends.iter().map(|append| store.append(append))).await;
        let full: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
        assert_eq!(full.len(), 50 - queued_max);
        let is_full = |error: &&AppendError| matches!(error, AppendError::QueueFull { .. });
        assert!(full.iter().all(is_full), "{full:?}");
        assert!(full.iter().all(|error| error.is_retryable()));
        recorded += 1 + queued_max;
    }
    assert_eq!(bed.recorded().await.len(), recorded);
}

/// A stranger's transaction that has locked streams, and appends to them.
struct Stranger {
    connections_max: u32,
    locked: usize,
    appends: usize,
    /// Streams of each append: with more than one, it makes a call of its own.
    streams: usize,
}

const STRANGERS: [Stranger; 5] = [
    Stranger { connections_max: 10, locked: 12, appends: 12, streams: 1 },
    Stranger { connections_max: 10, locked: 12, appends: 12, streams: 2 },
    Stranger { connections_max: 4, locked: 1, appends: 4, streams: 1 },
    Stranger { connections_max: 3, locked: 2, appends: 6, streams: 1 },
    Stranger { connections_max: 2, locked: 1, appends: 4, streams: 1 },
];

impl Stranger {
    /// An append that waits for it.
    fn append(&self, number: usize) -> Append {
        let append = one(&account(number % self.locked));
        (1..self.streams).fold(append, |append, other| {
            let stream = account(format!("{number}-{other}"));
            append.and_to(&stream, ExpectedVersion::Any, [deposited(1)])
        })
    }
}

fn spawn_append(store: &Store, append: Append) -> JoinHandle<Result<Appended, AppendError>> {
    let store = store.clone();
    tokio::spawn(async move { store.append(&append).await })
}

/// Far longer than an append takes.
const STRANGER_DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn locked_streams_leave_connections_for_appends_to_other_streams_and_for_reads() {
    let bed = Testbed::new("coalesced_stranger").await;
    for stranger in STRANGERS {
        let options = StoreOptions::default().connections_max(stranger.connections_max);
        let options = options.deadline(STRANGER_DEADLINE).without_notifications();
        let store = options.connect(&bed.database_url()).await.must("connect");
        store.append(&one(&account("free"))).await.must("append");
        let mut connection = PgConnection::connect(&bed.database_url()).await.must("connect");
        let mut transaction = connection.begin().await.must("begin");
        for number in 0..stranger.locked {
            let lock = one(&account(number));
            bed.store().append_in(&mut transaction, &lock).await.must("append");
        }
        let appends = (0..stranger.appends).map(|number| stranger.append(number));
        let waiting: Vec<_> = appends.map(|append| spawn_append(&store, append)).collect();
        bed.until_waiting_for_a_lock().await;
        for _ in 0..20 {
            store.append(&one(&account("free"))).await.must("append to a free stream");
            let version = store.stream_version(&account("free")).await.must("read a version");
            assert!(version.is_some());
        }
        assert!(waiting.iter().all(|task| !task.is_finished()));
        transaction.rollback().await.must("roll back");
        for result in try_join_all(waiting).await.must("append") {
            result.must("append to a stream that was locked");
        }
    }
}
