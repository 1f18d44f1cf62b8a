//! Settings of a role, a database or a server do not change what Annals does: the level of
//! isolation, the meaning and appearance of values, time limits, collations. Those of a URL reach
//! the server.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::pin::pin;

use annals_store::{
    Append, AppendError, Error, ExpectedVersion, Follow, MigrationError, Projection, Read,
    RecordedEvent, SchemaName, Store, StoreOptions, Version,
};
use annals_testkit::{
    DEADLINE, Must, RelayProcess, Testbed, account, check, deposited, execute_at, in_time, opened,
    until,
};
use futures_util::{TryStreamExt, future};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use uuid::Uuid;

const WRITERS: usize = 16;
const APPENDS: usize = 8;

/// Gives the database of a test bed all the settings.
async fn make_hostile(bed: &Testbed, isolation: &str) {
    let isolation = format!("set annals_tests.isolation = '{isolation}'; ");
    execute_at(&bed.database_url(), &(isolation + include_str!("sql/hostile_settings.sql"))).await;
}

async fn connect(bed: &Testbed, options: StoreOptions) -> Store {
    options.connect(&bed.database_url()).await.must("connect")
}

/// Tasks that all append to one stream.
async fn append_at_once(store: &Store, options: &str) {
    let writers = (0..WRITERS).map(|_| {
        let store = store.clone();
        async move {
            for number in (0..).take(APPENDS) {
                let append = Append::to(&account("hot"), ExpectedVersion::Any, [deposited(number)]);
                store.append(&append).await.must("append");
            }
        }
    });
    future::join_all(writers.map(tokio::spawn))
        .await
        .into_iter()
        .for_each(|task| task.must(options));
}

/// An append of each kind.
async fn append_all_kinds(store: &Store) {
    let [one, other] = ["one", "other"].map(account);
    let first = Append::to(&one, ExpectedVersion::NoStream, [opened("ann"), deposited(1)]).and_to(
        &other,
        ExpectedVersion::NoStream,
        [opened("bob")],
    );
    let appended = store.append(&first).await.must("append to two streams");
    let repeated = store.append(&first).await.must("repeat an append");
    assert_eq!((repeated.repeated, &repeated.events), (true, &appended.events));
    let late = Append::to(&one, ExpectedVersion::Exactly(Version::FIRST), [deposited(2)]);
    let refused = store.append(&late.with_conflict_events(10)).await.err().must("be refused");
    let conflict = refused.conflict_of(&one).must("meet a conflict");
    assert_eq!(conflict.events.len(), 1);
    let mut transaction = store.pool().begin().await.must("begin");
    let inside = Append::to(&other, ExpectedVersion::StreamExists, [deposited(3)]);
    store.append_in(&mut transaction, &inside).await.must("append in a transaction");
    transaction.commit().await.must("commit");
}

/// The numbers of events that reads and a follower have.
async fn read(store: &Store, events: usize) {
    let all: Vec<_> = store.read(Read::all()).try_collect().await.must("read");
    let hot: Vec<_> =
        store.read_stream(&account("hot"), Version::FIRST).try_collect().await.must("read");
    assert_eq!(all.len(), events);
    assert!(
        hot.iter()
            .map(|event| event.version.get())
            .zip(0..)
            .all(|(version, number)| version == number)
    );
    let mut log = pin!(store.follow(Follow::all()));
    for _ in 0..events {
        tokio::time::timeout(DEADLINE, log.try_next()).await.must("wait").must("follow");
    }
}

async fn everything_works(label: &str, isolation: &str) {
    let bed = Testbed::new(label).await;
    make_hostile(&bed, isolation).await;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay());
    let store = connect(&bed, StoreOptions::default()).await;
    let alone = connect(&bed, StoreOptions::default().without_coalescing()).await;
    append_all_kinds(&store).await;
    append_at_once(&store, "coalesced").await;
    append_at_once(&alone, "alone").await;
    let recorded = bed.recorded().await;
    assert_eq!(recorded.len(), 4 + 2 * WRITERS * APPENDS);
    read(&store, recorded.len()).await;
    follower.caught_up(&recorded).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_repeatable_read_and_hostile_settings_everything_works() {
    everything_works("settings_rr", "repeatable read").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_serializable_and_hostile_settings_everything_works() {
    everything_works("settings_ser", "serializable").await;
}

/// A directory with the socket of a server that listens on TCP alone.
struct SocketDirectory {
    path: PathBuf,
    port: u16,
}

impl SocketDirectory {
    fn before(url: &str) -> Self {
        let options: PgConnectOptions = url.parse().must("read a URL");
        let port = options.get_port();
        let path = std::env::temp_dir().join(format!("annals-{}", Uuid::new_v4().simple()));
        std::fs::create_dir_all(&path).must("make a directory");
        let listener = UnixListener::bind(path.join(format!(".s.PGSQL.{port}"))).must("listen");
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, port));
            }
        });
        Self { path, port }
    }
}

async fn forward(mut client: UnixStream, port: u16) {
    let mut server = TcpStream::connect(("127.0.0.1", port)).await.must("connect");
    drop(copy_bidirectional(&mut client, &mut server).await);
}

impl Drop for SocketDirectory {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.path));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn socket_name_and_options_of_a_url_reach_the_server_from_store_and_relay() {
    let bed = Testbed::new("url").await;
    let socket = SocketDirectory::before(&bed.database_url());
    let (path, port, name) = (socket.path.display().to_string(), socket.port, bed.name());
    let options = "options=-c%20compute_query_id%3Don";
    let of_store = format!(
        "postgres://annals:annals@{}:{port}/{name}?application_name=shop&{options}",
        path.replace('/', "%2F")
    );
    let of_relay = format!(
        "postgres://annals:annals@nowhere.invalid:{port}/{name}?host={path}&application_name=shop_relay&{options}"
    );
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay().database(&of_relay));
    let store = Store::connect(&of_store).await.must("connect through a socket");
    append_all_kinds(&store).await;
    follower.until_count(4).await;
    for name in ["shop", "shop_relay"] {
        until("a session has its name and its option", async || {
            let query = sqlx::query_scalar(include_str!("sql/has_session_with_option.sql"));
            query.bind(name).fetch_one(bed.store().pool()).await.must("look at the sessions")
        })
        .await;
    }
    assert!(relay.terminate().await.success());
}

#[tokio::test]
async fn a_store_is_migrated_under_hostile_settings() {
    let bed = Testbed::new("settings_migrate").await;
    make_hostile(&bed, "serializable").await;
    let store = connect(&bed, ledger()).await;
    store.migrate().await.must("migrate");
    append_all_kinds(&store).await;
}

fn ledger() -> StoreOptions {
    StoreOptions::default().schema(SchemaName::new("ledger").must("name a schema"))
}

#[tokio::test]
async fn a_migration_waits_for_another_one_whatever_limits_of_time_there_are() {
    let bed = Testbed::new("settings_wait").await;
    let mut other = PgConnection::connect(&bed.database_url()).await.must("connect");
    let lock = sqlx::query(include_str!("sql/lock_migrations_of_ledger.sql"));
    lock.execute(&mut other).await.must("lock migrations");
    let limits = "options=-c%20lock_timeout%3D50%20-c%20statement_timeout%3D1500";
    let store = ledger().connect(&format!("{}?{limits}", bed.database_url())).await;
    let store = store.must("connect");
    let migrating = tokio::spawn(async move { store.migrate().await });
    until("the migration waits for longer than the limits", async || {
        assert!(!migrating.is_finished(), "it ended");
        let has_waited = sqlx::query_scalar(include_str!("sql/has_waited.sql")).bind(1_600);
        has_waited.fetch_one(&mut other).await.must("look at the locks")
    })
    .await;
    other.close().await.must("end the session that has the lock");
    in_time(migrating).await.must("migrate").must("migrate");
}

/// A projection that takes its time for each event.
struct Slow;

impl Projection for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn version(&self) -> u32 {
        1
    }

    fn events(&self) -> Follow {
        Follow::all()
    }

    fn tables(&self) -> &'static str {
        include_str!("sql/balances.sql")
    }

    async fn apply(
        &self,
        events: &[RecordedEvent],
        connection: &mut PgConnection,
    ) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let count = i32::try_from(events.len())?;
        let sleep = sqlx::query(include_str!("sql/sleep_for_each.sql")).bind(count);
        sleep.execute(connection).await?;
        Ok(())
    }
}

#[tokio::test]
async fn a_limit_of_time_that_is_exceeded_ends_no_projection_and_no_follower_for_good() {
    let bed = Testbed::new("settings_limit").await;
    // Events that cannot be applied together within the limit.
    let append = Append::to(&account("a"), ExpectedVersion::NoStream, (0..10).map(deposited));
    let appended = bed.store().append(&append).await.must("append");
    let url = format!("{}?options=-c%20statement_timeout%3D700", bed.database_url());
    let limited = StoreOptions::default().without_notifications().connect(&url).await;
    let limited = limited.must("connect");
    let runner = limited.project(Slow);
    let running = tokio::spawn(runner.run(std::future::pending()));
    bed.store().wait_for("slow", appended.positions(), DEADLINE).await.must("apply the events");

    let mut transaction = bed.store().pool().begin().await.must("begin");
    let lock = sqlx::raw_sql(include_str!("sql/lock_events.sql"));
    lock.execute(&mut *transaction).await.must("lock the events");
    for _ in 0..2 {
        let refused = pin!(limited.follow(Follow::all())).try_next().await.unwrap_err();
        assert!(matches!(refused, Error::Database { .. }) && refused.is_retryable(), "{refused:?}");
    }
    assert!(!running.is_finished(), "the projection ended: {:?}", running.await);
    transaction.rollback().await.must("unlock the events");
    let append = Append::to(&account("a"), ExpectedVersion::Any, [deposited(10)]);
    let appended = bed.store().append(&append).await.must("append");
    bed.store().wait_for("slow", appended.positions(), DEADLINE).await.must("continue");
    running.abort();
}

#[tokio::test]
async fn a_database_with_an_icu_collation_keeps_the_order_of_names() {
    let bed = Testbed::new("settings_icu").await;
    let name = format!("{}_icu", bed.name());
    let create = format!(
        "create database {name} template template0 encoding 'UTF8' locale_provider icu icu_locale 'und' locale 'C'"
    );
    execute_at(&bed.database_url(), &create).await;
    let url = bed.environment().url_of_database(&name);
    let store = StoreOptions::default().without_notifications().connect(&url).await.must("connect");
    store.migrate().await.must("migrate");
    // In the order of bytes; ICU has it the other way round.
    let names = ["B", "Z", "_x", "a", "b"].map(account);
    let mut append = Append::default();
    for name in &names {
        append = append.and_to(name, ExpectedVersion::NoStream, [opened("ann")]);
    }
    store.append(&append).await.must("append to several streams");
    let writers = names.iter().cycle().take(40).map(|name| {
        let (store, append) =
            (store.clone(), Append::to(name, ExpectedVersion::Any, [deposited(1)]));
        tokio::spawn(async move { store.append(&append).await })
    });
    for task in future::join_all(writers).await {
        task.must("append").must("append");
    }
    read(&store, 45).await;
    store.close().await;
    execute_at(&bed.database_url(), &format!("drop database {name}")).await;
}

#[tokio::test]
async fn a_database_that_is_not_utf8_is_refused_in_one_sentence() {
    let bed = Testbed::new("settings_latin1").await;
    let name = format!("{}_latin1", bed.name());
    let create = format!("create database {name} template template0 encoding 'LATIN1' locale 'C'");
    execute_at(&bed.database_url(), &create).await;
    let url = bed.environment().url_of_database(&name);
    let store = StoreOptions::default().without_notifications().connect(&url).await.must("connect");
    let refused = store.migrate().await.unwrap_err();
    store.close().await;
    execute_at(&bed.database_url(), &format!("drop database {name}")).await;
    let Error::Migrate(MigrationError::Encoding { found }) = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!(found, "LATIN1");
}

#[tokio::test]
async fn a_sequence_that_was_set_back_is_one_error_that_names_the_repair() {
    let bed = Testbed::new("set_back").await;
    let append = |number| Append::to(&account("a"), ExpectedVersion::Any, [deposited(number)]);
    for number in 0..3 {
        bed.store().append(&append(number)).await.must("append");
    }
    execute_at(&bed.database_url(), "select setval('annals.positions', 1)").await;
    let alone = connect(&bed, StoreOptions::default().without_coalescing()).await;
    let refused = alone.append(&append(3)).await.unwrap_err();
    let AppendError::Inconsistent { constraint, .. } = &refused else { panic!("{refused:?}") };
    assert!(constraint.ends_with("_pkey") && !refused.is_retryable(), "{constraint}");
    let mut several = Append::to(&account("a"), ExpectedVersion::Any, [deposited(3), deposited(4)]);
    several = several.and_to(&account("b"), ExpectedVersion::Any, [opened("bob")]);
    let refused = bed.store().append(&several).await.unwrap_err();
    assert!(matches!(refused, AppendError::Inconsistent { .. }), "{refused:?}");
    execute_at(
        &bed.database_url(),
        "select setval('annals.positions', (select max(position) from annals.events))",
    )
    .await;
    bed.store().append(&append(5)).await.must("append after the repair");
    assert_eq!(bed.recorded().await.len(), 4);
}

#[tokio::test]
async fn a_stream_row_that_is_missing_or_behind_its_events_changes_nothing() {
    let bed = Testbed::new("row_behind").await;
    let append = |number| Append::to(&account("a"), ExpectedVersion::Any, [deposited(number)]);
    for number in 0..3 {
        bed.store().append(&append(number)).await.must("append");
    }
    for (version, change) in [
        (3, "update annals.streams set version_min = 0"),
        (4, "delete from annals.streams"),
        (5, "delete from annals.streams"),
    ] {
        execute_at(&bed.database_url(), change).await;
        let late = Append::to(&account("a"), ExpectedVersion::NoStream, [deposited(9)]);
        let refused = bed.store().append(&late).await.unwrap_err();
        let conflict = refused.conflict_of(&account("a")).must("find the conflict");
        assert_eq!(conflict.actual.map(Version::get), Some(version - 1), "{change}");
        let appended = bed.store().append(&append(version)).await.must("append");
        assert_eq!(appended.events[0].0.get(), version, "{change}");
    }
    assert_eq!(bed.recorded().await.len(), 6);
}
