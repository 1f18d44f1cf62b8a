//! A decision is recorded under the state it was made on, on a real store and in memory alike: a
//! lost race decides again, tries are bounded, a command is recorded once.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use annals_store::{
    Append, AppendError, CommandId, Decide, DecideError, EventStore, ExpectedVersion, NewEvent,
    Read, Refusal, Store, StoreOptions, StreamName, Version,
};
use annals_testkit::{
    Account, AccountClosed, AccountEvent, AccountOpened, FaultyLink, MoneyDeposited, Must, Testbed,
    account, deposited, opened,
};
use futures_util::TryStreamExt;
use tokio::sync::Barrier;
use uuid::Uuid;

/// The refusals of these tests' accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Declined {
    NotOpen,
    Closed,
    Overdraft { cents: i64 },
}

fn deposit(cents: i64) -> AccountEvent {
    MoneyDeposited { sequence: 0, cents, note: String::new() }.into()
}

impl std::fmt::Display for Declined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Declined {}

fn change(account: &Account, cents: i64) -> Result<Vec<AccountEvent>, Declined> {
    match account {
        Account { owner: None, .. } => Err(Declined::NotOpen),
        Account { closed: true, .. } => Err(Declined::Closed),
        Account { cents: balance, .. } if balance + cents < 0 => {
            Err(Declined::Overdraft { cents: *balance })
        }
        Account { .. } => Ok(vec![deposit(cents)]),
    }
}

fn transfer(
    (from, to): &(Account, Account),
    cents: i64,
) -> Result<(Vec<AccountEvent>, Vec<AccountEvent>), Declined> {
    Ok((change(from, -cents)?, change(to, cents)?))
}

async fn open(store: &impl EventStore, stream: &StreamName, cents: i64) {
    let events = [opened("ann"), deposited(cents)];
    let append = Append::to(stream, ExpectedVersion::NoStream, events);
    store.append(&append).await.must("open an account");
}

async fn cents(store: &impl EventStore, stream: &StreamName) -> i64 {
    store.load::<Account>(stream).await.must("load").state.cents
}

fn version(number: i64) -> Option<Version> {
    Version::new(number)
}

fn command(number: u128) -> CommandId {
    CommandId::from(Uuid::from_u128(number))
}

fn tries(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).must("make a number of tries")
}

/// Another append that comes first, made when the decision runs for the n-th time: the decision
/// itself cannot wait, so that it runs on a thread of its own.
pub(crate) fn append_now(store: &impl EventStore, stream: &StreamName, event: NewEvent) {
    let (store, append) = (store.clone(), Append::to(stream, ExpectedVersion::Any, [event]));
    tokio::task::block_in_place(|| {
        tokio::runtime::Handle::current().block_on(async {
            EventStore::append(&store, &append).await.must("append first");
        });
    });
}

macro_rules! on_both_stores {
    ($($test:ident),+ $(,)?) => {
        mod on_postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let bed = annals_testkit::Testbed::new(stringify!($test)).await;
                    super::$test(bed.store().clone()).await;
                }
            )+
        }
        mod in_memory {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test(annals_store::MemoryStore::new()).await;
                }
            )+
        }
    };
}
on_both_stores!(
    a_decision_is_recorded_under_the_state_it_was_made_on,
    a_refused_decision_records_nothing,
    a_decision_without_events_records_nothing,
    a_lost_race_decides_again_on_the_new_events,
    more_new_events_than_a_conflict_carries_are_read,
    tries_are_bounded_and_the_end_names_the_conflict,
    many_tasks_on_one_aggregate_lose_no_decision,
    a_transfer_is_decided_again_if_one_side_changes,
    a_transfer_to_a_closed_account_records_neither_side,
    transfers_in_a_circle_keep_the_sum,
    a_stream_without_events_is_checked,
    a_repeated_command_gets_the_original_answer_after_the_state_has_moved_on,
    a_repeated_command_that_would_decide_otherwise_gets_the_original_answer,
    a_repeated_transfer_gets_the_original_answer,
    concurrent_repeats_of_a_command_record_it_once,
    a_command_id_of_another_stream_is_refused,
    a_refused_command_is_decided_again,
    a_command_causes_its_events,
    an_aggregate_is_loaded_as_of_a_version_a_time_and_a_position,
    several_aggregates_of_any_number_are_decided_together,
    a_stream_that_is_named_twice_and_events_of_no_stream_are_refused,
);

async fn a_decision_is_recorded_under_the_state_it_was_made_on(store: impl EventStore) {
    let stream = account("a");
    open(&store, &stream, 10).await;
    let decided =
        store.decide(&stream, |account: &Account| change(account, -7)).await.must("decide");
    assert_eq!((decided.state.cents, decided.tries), (3, 1));
    let versions: Vec<_> = decided.appended.events.iter().map(|(version, _)| *version).collect();
    assert_eq!(versions, [version(2).must("make a version")]);
    let loaded = store.load::<Account>(&stream).await.must("load");
    assert_eq!((loaded.state, loaded.version), (decided.state, version(2)));
}

async fn a_refused_decision_records_nothing(store: impl EventStore) {
    let stream = account("a");
    let decide = async |cents| {
        store.decide(&stream, move |account: &Account| change(account, cents)).await.must_not()
    };
    assert_eq!(decide(1).await, Declined::NotOpen);
    open(&store, &stream, 10).await;
    assert_eq!(decide(-11).await, Declined::Overdraft { cents: 10 });
    let loaded = store.load::<Account>(&stream).await.must("load");
    assert_eq!(loaded.version, version(1));
}

async fn a_decision_without_events_records_nothing(store: impl EventStore) {
    let stream = account("a");
    let decided = store
        .decide(&stream, |_: &Account| Ok::<_, Declined>(Vec::new()))
        .await
        .must("decide nothing");
    assert_eq!((decided.appended.events, decided.tries), (Vec::new(), 0));
    assert_eq!(store.stream_versions(&[stream]).await.must("read a version"), [None]);
}

async fn a_lost_race_decides_again_on_the_new_events(store: impl EventStore) {
    let stream = account("a");
    open(&store, &stream, 10).await;
    let mut seen = Vec::new();
    let decided = store
        .decide(&stream, |account: &Account| {
            seen.push(account.cents);
            if seen.len() == 1 {
                append_now(&store, &stream, deposited(5));
            }
            change(account, -12)
        })
        .await;
    // The first state has only 10 cents: the domain refuses before there is a conflict.
    assert_eq!(decided.must_not(), Declined::Overdraft { cents: 10 });
    seen.clear();
    let decided = store
        .decide(&stream, |account: &Account| {
            seen.push(account.cents);
            if seen.len() == 1 {
                append_now(&store, &stream, deposited(5));
            }
            change(account, -15)
        })
        .await
        .must("decide again");
    assert_eq!((seen, decided.state.cents, decided.tries), (vec![15, 20], 5, 2));
}

async fn more_new_events_than_a_conflict_carries_are_read(store: impl EventStore) {
    let stream = account("a");
    open(&store, &stream, 0).await;
    let mut seen = Vec::new();
    let decided = store
        .decide(&stream, |account: &Account| {
            seen.push(account.cents);
            if seen.len() == 1 {
                (0..200).for_each(|_| append_now(&store, &stream, deposited(1)));
            }
            change(account, 1)
        })
        .await
        .must("decide again");
    assert_eq!((seen, decided.state.cents, decided.tries), (vec![0, 200], 201, 2));
}

async fn tries_are_bounded_and_the_end_names_the_conflict(store: impl EventStore) {
    let stream = account("a");
    open(&store, &stream, 0).await;
    let mut decisions = 0;
    let ended = store
        .decide(Decide::on(&stream).tries_max(tries(3)), |account: &Account| {
            decisions += 1;
            append_now(&store, &stream, deposited(1));
            change(account, 1)
        })
        .await;
    let Err(DecideError::Contended { tries, conflicts }) = ended else { panic!("{ended:?}") };
    assert_eq!((decisions, tries), (3, 3));
    let conflicts: Vec<_> =
        conflicts.iter().map(|conflict| (&conflict.stream, conflict.actual)).collect();
    assert_eq!(conflicts, [(&stream, version(4))]);
    assert_eq!(cents(&store, &stream).await, 3);
}

async fn many_tasks_on_one_aggregate_lose_no_decision(store: impl EventStore) {
    // Clones of one store take turns: none is contended.
    let [recorded, decisions] = contend(&store, &vec![store.clone(); 16]).await;
    assert_eq!(recorded, decisions);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_processes_on_one_aggregate_lose_no_decision() {
    let bed = Testbed::new("many_processes").await;
    let mut stores = Vec::new();
    for _ in 0..4 {
        stores.push(bed.another_store().await);
    }
    let [recorded, decisions] = contend(bed.store(), &stores).await;
    assert!(recorded > decisions / 2, "{recorded} of {decisions} decisions were recorded");
}

/// Tasks that decide on one aggregate, one for each store; how many decisions were recorded, of how
/// many.
async fn contend<S: EventStore>(store: &S, stores: &[S]) -> [i64; 2] {
    const DECISIONS: i64 = 10;
    let stream = account("a");
    open(store, &stream, 0).await;
    let start = Arc::new(Barrier::new(stores.len()));
    let contended = Arc::new(AtomicU32::new(0));
    let tasks: Vec<_> = stores
        .iter()
        .map(|store| {
            let (store, stream) = (store.clone(), stream.clone());
            let (start, contended) = (Arc::clone(&start), Arc::clone(&contended));
            tokio::spawn(async move {
                start.wait().await;
                for _ in 0..DECISIONS {
                    let add = |account: &Account| change(account, 1);
                    let ended = unless_contended(store.decide(&stream, add).await);
                    contended.fetch_add(u32::from(ended.is_none()), Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.must("decide");
    }
    let decisions = i64::try_from(stores.len()).must("count") * DECISIONS;
    let recorded = decisions - i64::from(contended.load(Ordering::Relaxed));
    let loaded = store.load::<Account>(&stream).await.must("load");
    assert_eq!((loaded.state.cents, loaded.version), (recorded, version(recorded + 1)));
    [recorded, decisions]
}

async fn a_transfer_is_decided_again_if_one_side_changes(store: impl EventStore) {
    let [from, to] = ["from", "to"].map(account);
    open(&store, &from, 10).await;
    open(&store, &to, 1).await;
    let mut seen = Vec::new();
    let decided = store
        .decide((&from, &to), |states: &(Account, Account)| {
            seen.push((states.0.cents, states.1.cents));
            if seen.len() == 1 {
                append_now(&store, &to, deposited(100));
            }
            transfer(states, 4)
        })
        .await
        .must("transfer");
    assert_eq!(seen, [(10, 1), (10, 101)]);
    assert_eq!((decided.state.0.cents, decided.state.1.cents), (6, 105));
    assert_eq!((cents(&store, &from).await, cents(&store, &to).await), (6, 105));
    assert_eq!((decided.appended.events.len(), decided.tries), (2, 2));
}

async fn a_transfer_to_a_closed_account_records_neither_side(store: impl EventStore) {
    let [from, to] = ["from", "to"].map(account);
    open(&store, &from, 10).await;
    open(&store, &to, 1).await;
    let mut is_first = true;
    let refused = store
        .decide((&from, &to), |states: &(Account, Account)| {
            if std::mem::take(&mut is_first) {
                append_now(&store, &to, annals_testkit::closed());
            }
            transfer(states, 4)
        })
        .await;
    assert_eq!(refused.must_not(), Declined::Closed);
    assert_eq!((cents(&store, &from).await, cents(&store, &to).await), (10, 1));
}

async fn transfers_in_a_circle_keep_the_sum(store: impl EventStore) {
    let accounts = ["a", "b", "c"].map(account);
    for stream in &accounts {
        open(&store, stream, 100).await;
    }
    let start = Arc::new(Barrier::new(6));
    let tasks: Vec<_> = (0..6)
        .map(|task| {
            let (store, start) = (store.clone(), Arc::clone(&start));
            let (from, to) = (accounts[task % 3].clone(), accounts[(task + 1) % 3].clone());
            tokio::spawn(async move {
                start.wait().await;
                for _ in 0..10 {
                    let transfer = |states: &(Account, Account)| transfer(states, 30);
                    drop(unless_contended(store.decide((&from, &to), transfer).await));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.must("transfer");
    }
    let mut sum = 0;
    for stream in &accounts {
        let balance = cents(&store, stream).await;
        assert!(balance >= 0, "{stream} has {balance}");
        sum += balance;
    }
    assert_eq!(sum, 300);
}

/// Moves a cent from one stream to another, again and again.
async fn move_cents(store: Store, [from, to]: [StreamName; 2], moves: u32) {
    for _ in 0..moves {
        let append = Append::to(&from, ExpectedVersion::Any, [deposited(-1)]);
        let append = append.and_to(&to, ExpectedVersion::Any, [deposited(1)]);
        store.append(&append).await.must("move a cent");
    }
}

/// A decision that is refused has no append, whose conflict would tell of a mixed state.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_states_of_two_streams_are_of_one_moment() {
    const MOVES: u32 = 300;
    let bed = Testbed::new("streams_moment").await;
    let store = bed.store();
    let streams = ["from", "to"].map(account);
    for stream in &streams {
        open(store, stream, 1_000).await;
    }
    let elsewhere = bed.another_store().await;
    let moving = tokio::spawn(move_cents(elsewhere, streams.clone(), MOVES));
    let mut seen = Vec::new();
    while seen.last() != Some(&(1_000 - i64::from(MOVES))) {
        let decided = store
            .decide((&streams[0], &streams[1]), |(from, to): &(Account, Account)| {
                Err::<(Vec<AccountEvent>, Vec<AccountEvent>), _>((from.cents, to.cents))
            })
            .await;
        let (from, to) = decided.must_not();
        assert_eq!(from + to, 2_000, "{from} and {to} cents are of two moments");
        seen.push(from);
    }
    moving.await.must("move cents");
    seen.dedup();
    assert!(seen.len() > 2, "no decision was made between two moves");
}

async fn a_stream_without_events_is_checked(store: impl EventStore) {
    let [from, to] = ["from", "to"].map(account);
    open(&store, &from, 10).await;
    let mut seen = Vec::new();
    store
        .decide((&from, &to), |(from, to): &(Account, Account)| {
            seen.push(to.owner.clone());
            if seen.len() == 1 {
                append_now(&store, &self::account("to"), opened("bob"));
            }
            Ok::<_, Declined>((change(from, 1)?, Vec::new()))
        })
        .await
        .must("decide");
    assert_eq!(seen, [None, Some("bob".to_owned())]);
}

async fn a_repeated_command_gets_the_original_answer_after_the_state_has_moved_on(
    store: impl EventStore,
) {
    let stream = account("a");
    open(&store, &stream, 10).await;
    let withdraw = || Decide::on(&stream).command(command(1));
    let decision = |account: &Account| change(account, -8);
    let original = store.decide(withdraw(), decision).await.must("withdraw");
    assert_eq!((original.state.cents, original.appended.repeated), (2, false));
    // Now the domain would refuse.
    let repeated = store.decide(withdraw(), decision).await.must("withdraw again");
    assert!(repeated.appended.repeated);
    assert_eq!(repeated.appended.events, original.appended.events);
    assert_eq!(repeated.appended.recorded_at, original.appended.recorded_at);
    assert_eq!(repeated.state, original.state);
    // Also if it would accept again, and record a second time.
    store.append(&Append::to(&stream, ExpectedVersion::Any, [deposited(50)])).await.must("append");
    let repeated = store.decide(withdraw(), decision).await.must("withdraw again");
    assert_eq!(
        (&repeated.appended.events, repeated.state),
        (&original.appended.events, original.state)
    );
    assert_eq!(cents(&store, &stream).await, 52);
}

async fn a_repeated_command_that_would_decide_otherwise_gets_the_original_answer(
    store: impl EventStore,
) {
    let stream = account("a");
    open(&store, &stream, 10).await;
    // Takes half of the balance in two events, the rest in one, and nothing from an empty account.
    let half = |account: &Account| -> Result<Vec<AccountEvent>, Declined> {
        Ok(match account.cents {
            0 => Vec::new(),
            1..8 => vec![deposit(-account.cents)],
            cents => vec![deposit(-cents / 4), deposit(-cents / 4)],
        })
    };
    let request = || Decide::on(&stream).command(command(1));
    let original = store.decide(request(), half).await.must("decide");
    assert_eq!((original.appended.events.len(), original.state.cents), (2, 6));
    let moves = [deposited(0), deposited(-1), deposited(-5), deposited(40)];
    for event in moves {
        let move_on = Append::to(&stream, ExpectedVersion::Any, [event]);
        store.append(&move_on).await.must("append");
        let repeated = store.decide(request(), half).await.must("decide again");
        assert!(repeated.appended.repeated);
        assert_eq!(repeated.appended.events, original.appended.events);
        assert_eq!(repeated.state, original.state);
    }
}

async fn a_repeated_transfer_gets_the_original_answer(store: impl EventStore) {
    let [from, to] = ["from", "to"].map(account);
    open(&store, &from, 10).await;
    open(&store, &to, 1).await;
    let request = || Decide::on((&from, &to)).command(command(1));
    let decision = |states: &(Account, Account)| transfer(states, 9);
    let original = store.decide(request(), decision).await.must("transfer");
    let close = |_: &Account| Ok::<_, Declined>(vec![AccountClosed { reason: None }.into()]);
    store.decide(&to, close).await.must("close");
    let repeated = store.decide(request(), decision).await.must("transfer again");
    assert_eq!(
        (&repeated.appended.events, repeated.state),
        (&original.appended.events, original.state)
    );
    assert_eq!((cents(&store, &from).await, cents(&store, &to).await), (1, 10));
}

async fn concurrent_repeats_of_a_command_record_it_once(store: impl EventStore) {
    const TASKS: usize = 8;
    let stream = account("a");
    open(&store, &stream, 10).await;
    let start = Arc::new(Barrier::new(TASKS));
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (store, stream, start) = (store.clone(), stream.clone(), Arc::clone(&start));
            tokio::spawn(async move {
                start.wait().await;
                let request = Decide::on(&stream).command(command(1));
                let decision = |account: &Account| change(account, -8);
                store.decide(request, decision).await.must("withdraw")
            })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.must("withdraw"));
    }
    assert_eq!(answers.iter().filter(|answer| !answer.appended.repeated).count(), 1);
    assert!(answers.iter().all(|answer| answer.appended.events == answers[0].appended.events));
    assert!(answers.iter().all(|answer| answer.state.cents == 2));
    assert_eq!(cents(&store, &stream).await, 2);
}

async fn a_command_id_of_another_stream_is_refused(store: impl EventStore) {
    let [one, other] = ["one", "other"].map(account);
    open(&store, &one, 10).await;
    open(&store, &other, 10).await;
    let withdraw = async |stream: &StreamName, cents: i64| {
        let request = Decide::on(stream).command(command(1));
        store.decide(request, move |account: &Account| change(account, -cents)).await
    };
    withdraw(&one, 5).await.must("withdraw");
    // Accepted by the domain, and refused by it: the id is the error in both cases.
    for cents in [5, 500] {
        let refused = withdraw(&other, cents).await;
        let Err(DecideError::Append(AppendError::Refused(refusals))) = refused else {
            panic!("{refused:?}")
        };
        let is_taken = |refusal: &Refusal| {
            matches!(refusal, Refusal::IdTaken { stream, differs, .. }
                if stream == one.as_str() && differs.contains(&"stream".to_owned()))
        };
        assert!(refusals.iter().any(is_taken), "{refusals:?}");
    }
    assert_eq!(cents(&store, &other).await, 10);
}

async fn a_refused_command_is_decided_again(store: impl EventStore) {
    let stream = account("a");
    let request = || Decide::on(&stream).command(command(1));
    let decision = |account: &Account| change(account, 5);
    let refused = store.decide(request(), decision).await;
    assert_eq!(refused.must_not(), Declined::NotOpen);
    open(&store, &stream, 1).await;
    let decided = store.decide(request(), decision).await.must("deposit");
    assert_eq!((decided.state.cents, decided.appended.repeated), (6, false));
}

async fn a_command_causes_its_events(store: impl EventStore) {
    let stream = account("a");
    open(&store, &stream, 1).await;
    let decision = |_: &Account| Ok::<_, Declined>(vec![deposit(5), deposit(6)]);
    let request = Decide::on(&stream).command(command(7));
    store.decide(request, decision).await.must("deposit");
    let read = store.read(Read::causation(command(7).get()));
    let events: Vec<_> = read.try_collect().await.must("read");
    let ids: Vec<_> = events.iter().map(|event| event.id).collect();
    assert_eq!(ids, [0, 1].map(|number| command(7).event_id(number)));
}

async fn an_aggregate_is_loaded_as_of_a_version_a_time_and_a_position(store: impl EventStore) {
    let stream = account("a");
    let mut times = Vec::new();
    for cents in 1..=200 {
        let append = Append::to(&stream, ExpectedVersion::Any, [deposited(cents)]);
        let appended = store.append(&append).await.must("append");
        times.push((appended.events[0], appended.recorded_at.must("have a time")));
    }
    let sum = |events: i64| events * (events + 1) / 2;
    for events in [1_i64, 2, 99, 100, 101, 199, 200] {
        let ((version, position), time) = times[usize::try_from(events - 1).must("index")];
        let at_version = store.load_at::<Account>(&stream, version).await.must("load");
        assert_eq!((at_version.state.cents, at_version.version), (sum(events), Some(version)));
        let at_position = store.load_at::<Account>(&stream, position).await.must("load");
        assert_eq!(at_position, at_version);
        let at_time = store.load_at::<Account>(&stream, time).await.must("load");
        let of_that_time = times.iter().filter(|(_, other)| *other <= time).count();
        let of_that_time = i64::try_from(of_that_time).must("count");
        assert_eq!(
            (at_time.state.cents, at_time.version),
            (sum(of_that_time), Version::new(of_that_time - 1))
        );
        let after = store.load_after::<Account>(&stream, version).await.must("load");
        assert_eq!((after.state.cents, after.version), (sum(200) - sum(events), Version::new(199)));
    }
    let beyond = store.load_at::<Account>(&stream, Version::new(500).must("number")).await;
    assert_eq!(beyond.must("load").version, Version::new(199));
    let before = times[0].1.checked_sub(jiff::SignedDuration::from_secs(60)).must("subtract");
    let none = store.load_at::<Account>(&stream, before).await.must("load");
    assert_eq!((none.state, none.version, none.removed), (Account::default(), None, 0));
}

async fn several_aggregates_of_any_number_are_decided_together(store: impl EventStore) {
    let accounts: Vec<_> = (0..5).map(account).collect();
    let decided = store
        .decide(accounts.as_slice(), |states: &Vec<Account>| {
            let open = |_| vec![AccountOpened { owner: "ann".to_owned() }.into()];
            Ok::<_, Declined>(states.iter().map(open).collect())
        })
        .await
        .must("open all");
    assert!(decided.state.iter().all(|account| account.owner.is_some()));
    let versions = store.stream_versions(&accounts).await.must("read versions");
    assert_eq!(versions, [version(0); 5]);
}

/// The pool checks a connection that was just returned: that answer is not the one to lose.
fn until_idle(store: &Store) {
    let idle = async {
        while store.pool().num_idle() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(idle));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_whose_answer_is_lost_is_recorded_once() {
    const DECISIONS: i64 = 10;
    let bed = Testbed::new("decide_lost").await;
    let (link, _) = FaultyLink::before(&bed.database_url()).await;
    let options = StoreOptions::default().connections_max(1).without_notifications();
    let store = options.connect(&link.url(&bed.database_url())).await.must("connect");
    let stream = account("a");
    open(&store, &stream, 10).await;
    let mut lost = 0;
    for number in 1..=DECISIONS {
        let on = Decide::on(&stream);
        let on = if number % 2 == 0 { on.command(Uuid::now_v7()) } else { on };
        let decision = |account: &Account| {
            until_idle(&store);
            link.lose_next_answer();
            change(account, 1)
        };
        let decided = store.decide(on, decision).await.must("decide");
        assert_eq!(decided.state.cents, 10 + number);
        lost += i64::from(decided.appended.repeated);
    }
    assert!(lost > 0, "no answer to an append was lost");
    let loaded = store.load::<Account>(&stream).await.must("load");
    assert_eq!((loaded.state.cents, loaded.version), (10 + DECISIONS, version(DECISIONS + 1)));
}

/// The result of a decision that was recorded or refused.
fn unless_contended<T>(ended: Result<T, DecideError<Declined>>) -> Option<Result<T, Declined>> {
    match ended {
        Ok(decided) => Some(Ok(decided)),
        Err(DecideError::Refused(refused)) => Some(Err(refused)),
        Err(DecideError::Contended { .. }) => None,
        Err(error) => panic!("{error:?}"),
    }
}

async fn a_stream_that_is_named_twice_and_events_of_no_stream_are_refused(store: impl EventStore) {
    let stream = account("a");
    open(&store, &stream, 10).await;
    let twice = store.decide((&stream, &stream), |states| transfer(states, 1)).await;
    let one = std::slice::from_ref(&stream);
    let two_lists = |_: &Vec<Account>| Ok::<_, Declined>(vec![vec![deposit(1)], vec![deposit(2)]]);
    let more = store.decide(one, two_lists).await;
    for refused in [twice.map(drop), more.map(drop)] {
        let Err(DecideError::Append(AppendError::Refused(refusals))) = refused else {
            panic!("{refused:?}")
        };
        assert!(matches!(refusals.as_slice(), [Refusal::Limit { .. }]), "{refusals:?}");
    }
    assert_eq!(cents(&store, &stream).await, 10);
}

/// The refusal of a decision.
trait Refused<E> {
    fn must_not(self) -> E;
}

impl<T: std::fmt::Debug, E: std::fmt::Debug> Refused<E> for Result<T, DecideError<E>> {
    fn must_not(self) -> E {
        match self {
            Err(DecideError::Refused(refused)) => refused,
            other => panic!("not refused: {other:?}"),
        }
    }
}
