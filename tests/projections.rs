//! A projection in the database of the store applies each event exactly once, under one runner at a
//! time, after any crash; it stops at an event that it refuses; a new version is built beside the
//! old one, and one switch shows it.

use std::error::Error as StdError;
use std::num::NonZeroUsize;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use annals_store::{
    Append, Appended, ExpectedVersion, Follow, Projection, ProjectionError, ProjectionFailure,
    ProjectionRunner, ProjectionStatus, RecordedEvent, Store, StreamName,
};
use annals_testkit::{
    AccountEvent, DEADLINE, Dice, FaultyLink, Load, LoadOptions, Must, Pace, Pooler, Testbed,
    account, deposited,
};
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::forked::Pair;

const NAME: &str = "balances";
/// A lease that does not expire in a test, and is not renewed in it.
pub(crate) const LONG: Duration = Duration::from_secs(3_600);
const SHORT: Duration = Duration::from_millis(600);

/// The actions of a test on a projection.
#[derive(Debug)]
pub(crate) struct Script {
    /// Refuses deposits of this amount.
    refused_cents: Option<i64>,
    /// Pauses before it returns, while no permit is there; closed: never.
    pub(crate) gate: Semaphore,
    /// Batches that were begun.
    begun: AtomicUsize,
}

impl Script {
    pub(crate) fn plain() -> Arc<Self> {
        let gate = Semaphore::new(0);
        gate.close();
        Arc::new(Self { refused_cents: None, gate, begun: AtomicUsize::new(0) })
    }

    pub(crate) fn refusing(cents: i64) -> Arc<Self> {
        let mut script = Arc::into_inner(Self::plain()).must("have the only handle");
        script.refused_cents = Some(cents);
        Arc::new(script)
    }

    /// Multiplies the amount of a deposit, unless it is refused.
    fn scale(&self, event: &mut AccountEvent, factor: i64) -> Result<(), String> {
        let AccountEvent::MoneyDeposited(deposited) = event else { return Ok(()) };
        if self.refused_cents == Some(deposited.cents) {
            return Err(format!("{} cents are refused", deposited.cents));
        }
        deposited.cents *= factor;
        Ok(())
    }

    pub(crate) fn gated() -> Arc<Self> {
        let mut script = Arc::into_inner(Self::plain()).must("have the only handle");
        script.gate = Semaphore::new(0);
        Arc::new(script)
    }
}

/// What a handler needs of an event, from the log or from the topic.
pub(crate) struct AppliedEvent<'a> {
    pub(crate) stream: &'a str,
    pub(crate) version: i64,
    pub(crate) event_id: Uuid,
}

/// Applies an event to the balance of its account.
pub(crate) async fn add_to_balance(
    connection: &mut PgConnection,
    applied: &AppliedEvent<'_>,
    event: &AccountEvent,
) -> Result<(), sqlx::Error> {
    let cents = match event {
        AccountEvent::MoneyDeposited(deposited) => deposited.cents,
        AccountEvent::AccountOpened(_) | AccountEvent::AccountClosed(_) => 0,
    };
    let apply = sqlx::query(include_str!("sql/balance_apply.sql"))
        .bind(applied.stream)
        .bind(applied.version)
        .bind(applied.event_id)
        .bind(cents);
    apply.execute(connection).await.map(drop)
}

/// The balances of accounts, and the events that made them, in the order of their application.
/// Version 2 counts in tenths of a cent.
pub(crate) struct Balances {
    version: u32,
    script: Arc<Script>,
}

impl Projection for Balances {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn events(&self) -> Follow {
        Follow::events_of::<AccountEvent>()
    }

    fn tables(&self) -> &'static str {
        include_str!("sql/balances.sql")
    }

    async fn apply(
        &self,
        events: &[RecordedEvent],
        connection: &mut PgConnection,
    ) -> Result<(), Box<dyn StdError + Send + Sync>> {
        self.script.begun.fetch_add(1, Ordering::SeqCst);
        let factor = if self.version == 1 { 1 } else { 10 };
        for event in events {
            let mut data: AccountEvent = event.decode()?;
            self.script.scale(&mut data, factor)?;
            let (version, event_id) = (event.version.get(), event.id.get());
            let applied = AppliedEvent { stream: event.stream.as_str(), version, event_id };
            add_to_balance(connection, &applied, &data).await?;
        }
        if let Ok(permit) = self.script.gate.acquire().await {
            permit.forget();
        }
        Ok(())
    }
}

pub(crate) fn balances(script: &Arc<Script>) -> Balances {
    Balances { version: 1, script: Arc::clone(script) }
}

/// A runner in the background. Dropping it is a crash: its future is dropped wherever it is.
pub(crate) struct Running(JoinHandle<()>);

impl Running {
    pub(crate) fn start(store: &Store, projection: impl Projection, lease: Duration) -> Self {
        Self::run(store.project(projection).lease(lease))
    }

    fn run(runner: ProjectionRunner<impl Projection>) -> Self {
        Self(tokio::spawn(async move {
            runner.run(std::future::pending()).await.must("run the projection");
        }))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn append(store: &Store, id: &str, cents: impl IntoIterator<Item = i64>) -> Appended {
    let events = cents.into_iter().map(deposited);
    store.append(&Append::to(&account(id), ExpectedVersion::Any, events)).await.must("append")
}

async fn execute(store: &Store, statement: &str) {
    let statement = AssertSqlSafe(statement.to_owned());
    sqlx::raw_sql(statement).execute(store.pool()).await.must("change the database");
}

/// The balance that readers see.
async fn balance(store: &Store, id: &str) -> i64 {
    let query = sqlx::query_scalar(include_str!("sql/balance.sql")).bind(account(id).to_string());
    query.fetch_one(store.pool()).await.must("read a balance")
}

/// Stream and version of each applied event, in the order of application.
async fn applied(store: &Store) -> Vec<(String, i64)> {
    let query = sqlx::query_as(include_str!("sql/balance_events.sql"));
    query.fetch_all(store.pool()).await.must("read the applied events")
}

async fn wait_for(store: &Store, appended: &Appended) {
    store.wait_for(NAME, appended.positions(), DEADLINE).await.must("see the append");
}

async fn status(store: &Store, version: u32) -> ProjectionStatus {
    let status = store.projection_status(NAME).await.must("read the status");
    status.into_iter().find(|of| of.version == version).must("find the version")
}

/// Returns when a question about the status of a version is answered with yes.
pub(crate) async fn until(store: &Store, version: u32, is_so: impl Fn(&ProjectionStatus) -> bool) {
    let asked = async || {
        let found = store.projection_status(NAME).await.must("read the status");
        found.iter().any(|of| of.version == version && is_so(of))
    };
    annals_testkit::until("the status of the projection", asked).await;
}

pub(crate) async fn until_begun(script: &Script, batches: usize) {
    let begun = async || script.begun.load(Ordering::SeqCst) >= batches;
    annals_testkit::until("so many batches begin", begun).await;
}

pub(crate) async fn failure(store: &Store) -> ProjectionFailure {
    until(store, 1, |status| status.failure.is_some()).await;
    status(store, 1).await.failure.must("be stopped")
}

/// Asserts that each recorded event is applied once, and each stream in order.
pub(crate) async fn check_exactly_once(bed: &Testbed) {
    let applied = applied(bed.store()).await;
    let mut recorded: Vec<_> =
        bed.recorded().await.into_iter().map(|event| (event.stream, event.version)).collect();
    let mut sorted = applied.clone();
    sorted.sort();
    recorded.sort();
    assert_eq!(sorted, recorded, "each event once");
    let mut last = std::collections::HashMap::new();
    for (stream, version) in applied {
        let before = last.insert(stream.clone(), version).unwrap_or(-1);
        assert_eq!(version, before + 1, "the order of {stream}");
    }
}

#[tokio::test]
async fn events_are_applied_and_an_append_is_waited_for() {
    let bed = Testbed::new("projected").await;
    let store = bed.store();
    append(store, "a", 1..=3).await;
    let second = append(store, "a", [4]).await;
    // A projection that is not registered yet is waited for.
    let start = async { Running::start(store, balances(&Script::plain()), LONG) };
    let ((), _running) = tokio::join!(wait_for(store, &second), start);
    assert_eq!(balance(store, "a").await, 10);
    // One that it does not follow is not waited for.
    let ledger = StreamName::new("ledger-1").unwrap();
    let other = Append::to(&ledger, ExpectedVersion::Any, [deposited(1).for_category("ledger")]);
    let other = store.append(&other).await.must("append");
    wait_for(store, &other).await;
    // Its progress passes over it.
    until(store, 1, |status| status.position == status.log_position).await;
    let status = status(store, 1).await;
    assert_eq!((status.events, status.lag_since, status.is_active), (4, None, true));
    assert!(status.owner.is_some());
}

#[tokio::test]
async fn waiting_ends_at_the_deadline_and_says_how_far_the_projection_has_come() {
    let bed = Testbed::new("deadline").await;
    let store = bed.store();
    let unknown = store.wait_for(NAME, [], Duration::ZERO).await.unwrap_err();
    assert!(matches!(unknown, ProjectionError::Unknown { .. }), "{unknown:?}");
    let running = Running::start(store, balances(&Script::refusing(5)), LONG);
    let first = append(store, "a", [1]).await;
    wait_for(store, &first).await;
    let second = append(store, "a", [5]).await;
    failure(store).await;
    let late = store.wait_for(NAME, second.positions(), Duration::from_millis(5)).await;
    let Err(ProjectionError::Behind { reached, failed_event, .. }) = late else {
        panic!("not behind: {late:?}")
    };
    let positions: Vec<_> = first.positions().collect();
    assert_eq!(vec![reached], positions);
    assert!(failed_event.is_some());
    drop(running);
    // A position without an event is not seen.
    let nowhere = annals_store::Position::new(1_000_000).unwrap();
    let late = store.wait_for(NAME, [nowhere], Duration::ZERO).await;
    assert!(matches!(late, Err(ProjectionError::Behind { .. })), "{late:?}");
}

/// Runners of two processes that crash again and again, and whose sessions are ended, while
/// writers append.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runners_that_crash_under_load_apply_each_event_exactly_once_and_in_order() {
    const LOAD: LoadOptions =
        LoadOptions { writers: 4, streams: 10, ahead_events_max: 1_000_000, pace: Pace::Full };
    let bed = Testbed::new("exactly_once").await;
    let mut dice = Dice::of_this_run();
    let (_sender, idle) = watch::channel(0);
    let load = Load::start(bed.store(), &LOAD, &mut dice, &idle);
    let runners = [bed.another_store().await, bed.another_store().await];
    let mut running =
        runners.each_ref().map(|store| Running::start(store, balances(&Script::plain()), SHORT));
    for round in 1..=10 {
        load.until_acknowledged(200 * round).await;
        let one = dice.below(2);
        if round % 3 == 0 {
            let end = sqlx::query(include_str!("sql/end_projecting_sessions.sql"));
            end.execute(bed.store().pool()).await.must("end the sessions of the runners");
        } else {
            running[one] = Running::start(&runners[one], balances(&Script::plain()), SHORT);
        }
    }
    load.stop().await;
    let recorded = bed.recorded().await.len();
    until(bed.store(), 1, |status| status.events == u64::try_from(recorded).unwrap()).await;
    check_exactly_once(&bed).await;
}

/// The database's URL for a process of the test below.
const DATABASE_URL: &str = "ANNALS_TEST_RUNNER_DATABASE_URL";

/// A process of the test below: this program, running only this, until it is killed.
#[tokio::test]
#[ignore = "is run by the test below it"]
async fn a_process_that_runs_the_projection() {
    let Ok(url) = std::env::var(DATABASE_URL) else { return };
    let store = Store::connect(&url).await.must("connect");
    let runner = store.project(balances(&Script::plain())).lease(SHORT).batch_events_max(BATCH);
    runner.run(std::future::pending()).await.must("run the projection");
}

/// Small batches, so that a process is killed between two of them, or in one.
const BATCH: NonZeroUsize = NonZeroUsize::new(7).unwrap();

fn start_process(bed: &Testbed) -> Child {
    let program = std::env::current_exe().must("find this program");
    Command::new(program)
        .args(["projections::a_process_that_runs_the_projection", "--exact", "--ignored"])
        .env(DATABASE_URL, bed.database_url())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .must("start a process")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_are_killed_apply_each_event_exactly_once_and_in_order() {
    let bed = Testbed::new("killed").await;
    let streams = ["a", "b", "c", "d"];
    let mut interrupted = 0;
    for round in 0..4 {
        for id in streams {
            append(bed.store(), id, 1..=500).await;
        }
        let mut process = start_process(&bed);
        // By the read model, not by the progress: both must be there together.
        until(bed.store(), 1, |_| true).await;
        let before = usize::try_from(round * 2_000).must("count");
        let begins = async || applied(bed.store()).await.len() > before;
        annals_testkit::until("a batch of this round", begins).await;
        // SIGKILL, wherever the process is.
        process.kill().await.must("kill the process");
        let events = status(bed.store(), 1).await.events;
        interrupted += u32::from(events < (round + 1) * 2_000);
        let _rest = start_process(&bed);
        until(bed.store(), 1, |status| status.events == (round + 1) * 2_000).await;
    }
    assert!(interrupted > 0, "each process had done its work before it was killed");
    check_exactly_once(&bed).await;
    for id in streams {
        assert_eq!(balance(bed.store(), id).await, 4 * 500 * 501 / 2);
    }
}

#[tokio::test]
async fn a_runner_that_lost_its_lease_cannot_commit_and_the_new_owner_continues() {
    let bed = Testbed::new("fenced").await;
    let store = bed.store();
    let (slow, quick) = (Script::gated(), Script::plain());
    append(store, "a", 1..=3).await;
    let _first = Running::start(store, balances(&slow), LONG);
    until_begun(&slow, 1).await;
    let other = bed.another_store().await;
    let _second = Running::start(&other, balances(&quick), Duration::from_secs(2));
    // The first one hangs for longer than its lease.
    execute(store, "update annals.projections set lease_until = clock_timestamp()").await;
    bed.until_waiting_for_a_lock().await;
    slow.gate.add_permits(1);
    until(store, 1, |status| status.events == 3).await;
    append(store, "a", [4]).await;
    until(store, 1, |status| status.events == 4).await;
    assert_eq!(slow.begun.load(Ordering::SeqCst), 1, "the first one is not the owner");
    assert!(quick.begun.load(Ordering::SeqCst) >= 2);
    assert_eq!(balance(store, "a").await, 10);
    check_exactly_once(&bed).await;
}

/// Its connections lead to the promoted standby without breaking: they end at a pooler. That
/// standby has the lease, and an event that the runner has applied to the old primary only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_behind_a_pooler_applies_again_what_a_promoted_standby_has_not_applied() {
    let pair = Pair::new("projected_fork").await;
    let primary = pair.bed.store();
    let (link, near) = FaultyLink::before(&pair.bed.database_url()).await;
    let pooler = Pooler::before(&near).await;
    let store = Store::connect(&pooler.url(&near)).await.must("connect through a pooler");
    let script = Script::gated();
    let _running = Running::start(&store, balances(&script), LONG);
    append(primary, "a", [1]).await;
    until_begun(&script, 1).await;
    script.gate.add_permits(1);
    until(primary, 1, |status| status.events == 1).await;
    append(primary, "a", [2]).await;
    until_begun(&script, 2).await;
    let mut standby = pair.until_replicated(2).await;
    Pair::cut_off(&mut standby).await;
    script.gate.close();
    until(primary, 1, |status| status.events == 2).await;

    sqlx::query(include_str!("sql/promote.sql")).execute(&mut standby).await.must("promote");
    link.lead_to(&pair.standby.postgres_address());
    link.cut();
    link.mend();
    let promoted = Store::connect(&pair.standby_url()).await.must("connect");
    let appended = append(&promoted, "a", [3]).await;
    wait_for(&promoted, &appended).await;
    let expected: Vec<_> = (0..3).map(|version| (account("a").to_string(), version)).collect();
    assert_eq!(applied(&promoted).await, expected);
}

#[tokio::test]
async fn one_runner_at_a_time_has_the_lease_and_another_takes_over_when_it_ends() {
    let bed = Testbed::new("takes_over").await;
    let store = bed.store();
    let scripts = [Script::plain(), Script::plain()];
    append(store, "a", [1]).await;
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let first = store.project(balances(&scripts[0])).lease(LONG).run(async {
        drop(ended.await);
    });
    let first = tokio::spawn(first);
    until(store, 1, |status| status.events == 1).await;
    // It looks for the lease ten times in this time, and then has to keep it.
    let lease = Duration::from_secs(30);
    let _second = Running::start(&bed.another_store().await, balances(&scripts[1]), lease);
    append(store, "a", [2]).await;
    until(store, 1, |status| status.events == 2).await;
    assert_eq!(scripts[1].begun.load(Ordering::SeqCst), 0);
    // A clean end releases the lease, which would be valid for an hour.
    end.send(()).unwrap();
    first.await.must("join").must("end cleanly");
    append(store, "a", [3]).await;
    until(store, 1, |status| status.events == 3).await;
    assert_eq!(scripts[1].begun.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_refused_event_stops_the_projection_until_it_is_skipped_and_is_named_with_its_error() {
    let bed = Testbed::new("refused_event").await;
    let store = bed.store();
    let script = Script::refusing(3);
    append(store, "a", 1..=2).await;
    let behind = append(store, "b", 3..=4).await;
    let _running = Running::start(store, balances(&script), LONG);
    let _other = Running::start(store, Other("others", 1), LONG);
    let failed = failure(store).await;
    assert_eq!((failed.stream.as_str(), failed.version.get()), ("account-b", 0));
    assert_eq!(
        (failed.event_type.as_str(), failed.error.as_str()),
        ("MoneyDeposited", "3 cents are refused")
    );
    // The events before it are applied, those behind it are not.
    let stopped = status(store, 1).await;
    assert_eq!((stopped.events, stopped.lag_since), (2, behind.recorded_at));
    assert!(stopped.position < stopped.log_position, "{stopped:?}");
    until(store, 1, |status| status.failure.as_ref().is_some_and(|failed| failed.attempts >= 6))
        .await;
    check_pause(store).await;
    // Other projections go on.
    let positions = behind.positions();
    store.wait_for("others", positions, DEADLINE).await.must("see the events behind it");

    let wrong = annals_store::EventId::generate();
    store.skip_projection_event(NAME, wrong, "wrong").await.unwrap_err();
    store.skip_projection_event(NAME, failed.event_id, " ").await.unwrap_err();
    store.skip_projection_event(NAME, failed.event_id, "a test deposit").await.must("skip");
    until(store, 1, |status| status.events == 3 && status.failure.is_none()).await;
    assert_eq!(balance(store, "b").await, 4);
    let skips = sqlx::query_as(include_str!("sql/projection_skips.sql"));
    let skips: Vec<(String, String)> = skips.fetch_all(store.pool()).await.must("read the skips");
    assert_eq!(skips, [(failed.event_id.to_string(), "a test deposit".to_owned())]);
    // After a restart, too, and at the end of the log.
    let last = append(store, "b", [3]).await;
    let failed = failure(store).await;
    store.skip_projection_event(NAME, failed.event_id, "again").await.must("skip");
    wait_for(store, &last).await;
    assert_eq!(status(store, 1).await.failure, None);
}

/// Asserts that each pause between attempts is twice as long as the one before, from 50 to 100 ms
/// on.
async fn check_pause(store: &Store) {
    let query = sqlx::query_as(include_str!("sql/projection_pause.sql")).bind(NAME);
    let (seconds, attempts): (f64, i32) = query.fetch_one(store.pool()).await.must("read a pause");
    let shortest = 0.05 * (f64::from(attempts).exp2() - 1.0);
    assert!(seconds > shortest - 0.001, "{seconds} s for {attempts} attempts");
}

#[tokio::test]
async fn an_event_that_cannot_be_read_stops_the_projection_too() {
    let bed = Testbed::new("unreadable_event").await;
    let store = bed.store();
    append(store, "a", 1..=3).await;
    execute(
        store,
        "select annals.administer('test'); update annals.events set fingerprint = 7 where version = 1",
    )
    .await;
    let _running = Running::start(store, balances(&Script::plain()), LONG);
    let failed = failure(store).await;
    assert_eq!((failed.stream.as_str(), failed.version.get()), ("account-a", 1));
    store.skip_projection_event(NAME, failed.event_id, "damaged").await.must("skip");
    until(store, 1, |status| status.events == 2 && status.failure.is_none()).await;
    assert_eq!(balance(store, "a").await, 4);
}

#[tokio::test]
async fn a_deadlock_or_a_lost_connection_is_no_failure_of_an_event() {
    let bed = Testbed::new("interrupted").await;
    let store = bed.store();
    let script = Script::gated();
    append(store, "a", [1]).await;
    let _running = Running::start(store, balances(&script), LONG);
    until_begun(&script, 1).await;
    let end = sqlx::query(include_str!("sql/end_projecting_sessions.sql"));
    end.execute(store.pool()).await.must("end the session of the runner");
    script.gate.add_permits(2);
    until(store, 1, |status| status.events == 1).await;
    assert_eq!(status(store, 1).await.failure, None);
    assert_eq!(balance(store, "a").await, 1);
}

/// Pays in a cent, again and again, until it is over; their number.
async fn pay_cents(store: Store, is_over: Arc<AtomicBool>) -> i64 {
    let mut cents = 0;
    while !is_over.load(Ordering::SeqCst) {
        append(&store, "a", [1]).await;
        cents += 1;
    }
    cents
}

/// Reads the balance, again and again, until it is over: each read succeeds, and never sees an
/// earlier state than the one before. Returns how often another version was shown.
async fn read_balance(store: Store, is_over: Arc<AtomicBool>) -> u32 {
    let (mut versions, mut last, mut is_tenfold) = (0, 0, false);
    while !is_over.load(Ordering::SeqCst) {
        let read = balance(&store, "a").await;
        // The balance is far from a tenth and from ten times of what it was.
        let shown = read > 1_000_000;
        let cents = if shown { read / 10 } else { read };
        assert!(cents >= last, "{last} cents, then {cents}");
        versions += u32::from(shown != is_tenfold);
        (last, is_tenfold) = (cents, shown);
    }
    versions
}

/// Asserts the progress of version 2 behind its first batch of 500 events.
async fn check_progress(store: &Store) {
    until(store, 2, |status| status.events == 500).await;
    let built = status(store, 2).await;
    let left = built.log_position.get() - built.position.get();
    assert_eq!((left, built.lag_since.is_some()), (700, true));
    let rate = built.events_per_second.must("have a rate");
    let time_left = built.time_left.must("have a time").as_secs_f64();
    assert!(rate > 0.0 && (rate * time_left - 700.0).abs() < 1.0, "{rate}/s, {time_left} s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_version_is_built_beside_the_old_one_and_one_switch_shows_it_and_back() {
    let bed = Testbed::new("blue_green").await;
    let store = bed.store();
    append(store, "a", 1..=1_200).await;
    let _blue = Running::start(store, balances(&Script::plain()), LONG);
    until(store, 1, |status| status.events == 1_200).await;
    let sum: i64 = (1..=1_200).sum();

    // Held before its second batch ends, it is behind: readers see the old one.
    let script = Script::gated();
    let second = store.project(Balances { version: 2, script: Arc::clone(&script) }).lease(LONG);
    let green = Running::run(second.batch_events_max(NonZeroUsize::new(500).unwrap()));
    script.gate.add_permits(1);
    check_progress(store).await;
    let early = store.switch_projection(NAME, 2, Duration::ZERO).await.unwrap_err();
    assert!(matches!(early, ProjectionError::Behind { .. }), "{early:?}");
    assert_eq!(balance(store, "a").await, sum);
    script.gate.close();

    // While events and readers come, both are live, and the way back is the same.
    let is_over = Arc::new(AtomicBool::new(false));
    let paying = tokio::spawn(pay_cents(store.clone(), Arc::clone(&is_over)));
    let reading = tokio::spawn(read_balance(bed.another_store().await, Arc::clone(&is_over)));
    for version in [2, 1, 2, 1, 2] {
        store.switch_projection(NAME, version, DEADLINE).await.must("switch");
        let [one, two] = [status(store, 1).await, status(store, 2).await];
        assert_eq!((one.is_active, two.is_active), (version == 1, version == 2));
        let seen = append(store, "b", [1]).await;
        wait_for(store, &seen).await;
    }
    is_over.store(true, Ordering::SeqCst);
    let paid = paying.await.must("pay");
    assert!(reading.await.must("read") > 0, "no switch was seen");
    let last = append(store, "a", [1]).await;
    wait_for(store, &last).await;
    assert_eq!(balance(store, "a").await, 10 * (sum + paid + 1));
    store.switch_projection(NAME, 1, DEADLINE).await.must("switch back");
    assert_eq!(balance(store, "a").await, sum + paid + 1);
    store.drop_projection(NAME, 1).await.unwrap_err();
    drop(green);
    store.drop_projection(NAME, 2).await.must("delete the second version");
    assert_eq!(store.projection_status(NAME).await.must("read the status").len(), 1);
    store.switch_projection(NAME, 2, Duration::ZERO).await.unwrap_err();
}

/// Applies nothing: with an illegal name, with other events, or beside a stopped projection.
pub(crate) struct Other(&'static str, u32);

impl Projection for Other {
    fn name(&self) -> &'static str {
        self.0
    }

    fn version(&self) -> u32 {
        self.1
    }

    fn events(&self) -> Follow {
        Follow::all()
    }

    fn tables(&self) -> &'static str {
        "create table nothing (position bigint)"
    }

    async fn apply(
        &self,
        _events: &[RecordedEvent],
        _connection: &mut PgConnection,
    ) -> Result<(), Box<dyn StdError + Send + Sync>> {
        Ok(())
    }
}

#[tokio::test]
async fn illegal_names_and_another_set_of_events_under_a_version_are_refused() {
    let bed = Testbed::new("illegal").await;
    for (name, version) in
        [("", 1), ("Balances", 1), ("a b", 1), ("annals", 1), ("public", 1), ("a", 0)]
    {
        let refused = bed.store().project(Other(name, version)).run(std::future::pending()).await;
        assert!(matches!(refused, Err(ProjectionError::Illegal { .. })), "{name:?}: {refused:?}");
    }
    let running = Running::start(bed.store(), balances(&Script::plain()), LONG);
    until(bed.store(), 1, |_| true).await;
    drop(running);
    let refused = bed.store().project(Other(NAME, 1)).run(std::future::pending()).await;
    assert!(matches!(refused, Err(ProjectionError::OtherEvents { .. })), "{refused:?}");
}

async fn append_inline(store: &Store, cents: i64) -> Result<Appended, ProjectionError> {
    let append = Append::to(&account("a"), ExpectedVersion::Any, [deposited(cents)]);
    store.append_inline(&append, &balances(&Script::refusing(13))).await
}

#[tokio::test]
async fn an_inline_projection_is_applied_in_the_transaction_of_the_append() {
    let bed = Testbed::new("inline").await;
    let store = bed.store();
    let running = Running::start(store, balances(&Script::plain()), LONG);
    append(store, "a", 1..=600).await;
    let first = append_inline(store, 1).await.must("append");
    until(store, 1, |_| true).await;
    wait_for(store, &first).await;
    drop(running);
    // These are applied by the change of the mode.
    append(store, "a", 1..=700).await;
    let inline = store.project(balances(&Script::plain()));
    inline.make_inline(DEADLINE).await.must("make it inline");
    let sum: i64 = (1..=600).sum::<i64>() + 1 + (1..=700).sum::<i64>();
    assert_eq!(balance(store, "a").await, sum);

    // A runner applies nothing now.
    let script = Script::plain();
    let _idle = Running::start(store, balances(&script), SHORT);
    let append = Append::to(&account("a"), ExpectedVersion::Any, [deposited(10)]);
    let appended = store.append_inline(&append, &balances(&script)).await.must("append");
    assert_eq!(balance(store, "a").await, sum + 10, "at once");
    // A repetition applies nothing.
    let repeated = store.append_inline(&append, &balances(&script)).await.must("append again");
    assert!(repeated.repeated);
    assert_eq!(balance(store, "a").await, sum + 10);
    wait_for(store, &appended).await;

    // An event that the projection refuses is not recorded.
    let refused = append_inline(store, 13).await.unwrap_err();
    assert!(matches!(refused, ProjectionError::Refused { .. }), "{refused:?}");
    assert_eq!(bed.recorded().await.len(), 1_302);

    let followed = store.project(balances(&Script::plain()));
    followed.make_followed(DEADLINE).await.must("make it followed");
    let last = append_inline(store, 100).await.must("append");
    wait_for(store, &last).await;
    assert_eq!(balance(store, "a").await, sum + 110);
    check_exactly_once(&bed).await;
}

async fn write_inline(store: Store, stream: StreamName, ended: watch::Receiver<bool>) {
    let plain = balances(&Script::plain());
    while !*ended.borrow() {
        let append = Append::to(&stream, ExpectedVersion::Any, [deposited(1)]);
        store.append_inline(&append, &plain).await.must("append");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_change_to_inline_and_back_under_load_applies_each_event_exactly_once() {
    let bed = Testbed::new("change_mode").await;
    let (end, ended) = watch::channel(false);
    let write = |number| write_inline(bed.store().clone(), account(number), ended.clone());
    let writers: Vec<_> = (0..4).map(|number| tokio::spawn(write(number))).collect();
    let _running = Running::start(bed.store(), balances(&Script::plain()), SHORT);
    for _ in 0..3 {
        until(bed.store(), 1, |status| status.events > 100).await;
        let runner = bed.store().project(balances(&Script::plain()));
        runner.make_inline(DEADLINE).await.must("make it inline");
        let before = bed.recorded().await.len();
        let recorded = async || bed.recorded().await.len() >= before + 50;
        annals_testkit::until("50 events more", recorded).await;
        let runner = bed.store().project(balances(&Script::plain()));
        runner.make_followed(DEADLINE).await.must("make it followed");
    }
    end.send_replace(true);
    for writer in writers {
        writer.await.must("join");
    }
    let runner = bed.store().project(balances(&Script::plain()));
    runner.make_inline(DEADLINE).await.must("apply the rest");
    check_exactly_once(&bed).await;
}

#[tokio::test]
async fn a_lease_and_a_pause_last_no_longer_after_the_clock_of_the_database_was_set_back() {
    let bed = Testbed::new("clock_set_back").await;
    let store = bed.store();
    let first = Running::start(store, balances(&Script::plain()), SHORT);
    let appended = append(store, "a", [1]).await;
    wait_for(store, &appended).await;
    drop(first);
    // A clock that was a day ahead wrote it.
    let ahead = "update annals.projections set lease_until = lease_until + interval '1 day'";
    execute(store, ahead).await;
    let _second = Running::start(store, balances(&Script::refusing(5)), SHORT);
    let appended = append(store, "a", [2]).await;
    wait_for(store, &appended).await;

    append(store, "a", [5]).await;
    let attempts = failure(store).await.attempts;
    let ahead = "update annals.projections set retry_at = retry_at + interval '1 day'";
    execute(store, ahead).await;
    let is_later = |of: &ProjectionStatus| {
        of.failure.as_ref().is_some_and(|failure| failure.attempts > attempts)
    };
    until(store, 1, is_later).await;
}
