//! Every process migrates when it starts: one does the work, the others wait for it, and none waits
//! for ever, also through a pooler that gives each transaction another connection.

use std::sync::Arc;

use annals_store::{
    Append, Error, ExpectedVersion, MigrationError, SchemaName, Store, StoreOptions,
};
use annals_testkit::{DEADLINE, Must, RelayProcess, Testbed, account, opened};
use tokio::sync::Barrier;

use crate::audit_log::annals;

const STARTING: usize = 10;
const SCHEMA: &str = "ledger";

/// A handle with a pool of its own, as in a process that starts, on a schema that does not exist
/// yet.
async fn starting(bed: &Testbed) -> Store {
    let schema = SchemaName::new(SCHEMA).must("name a schema");
    let options = StoreOptions::default().schema(schema).without_notifications();
    options.connect(&bed.database_url()).await.must("connect")
}

async fn advisory_locks(bed: &Testbed) -> i64 {
    let locks = sqlx::query_scalar(include_str!("sql/advisory_locks.sql"));
    locks.fetch_one(bed.store().pool()).await.must("look at locks")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ten_that_start_at_once_one_migrates_and_none_leaves_a_lock() {
    let bed = Testbed::new("start_at_once").await;
    let start = Arc::new(Barrier::new(STARTING));
    let mut migrating = Vec::new();
    for _ in 0..STARTING {
        let (store, start) = (starting(&bed).await, Arc::clone(&start));
        migrating.push(tokio::spawn(async move {
            start.wait().await;
            store.migrate().await.map(|()| store)
        }));
    }
    let mut stores = Vec::new();
    for migrated in migrating {
        let migrated = tokio::time::timeout(DEADLINE, migrated).await.must("wait for a migration");
        stores.push(migrated.must("migrate").must("migrate"));
    }
    assert_eq!(advisory_locks(&bed).await, 0, "a lock was left behind");
    for (number, store) in stores.iter().enumerate() {
        let append = Append::to(&account(number), ExpectedVersion::NoStream, [opened("ann")]);
        store.append(&append).await.must("append after the migration");
    }
}

#[tokio::test]
async fn a_migration_that_fails_says_why_and_keeps_nobody_waiting() {
    let bed = Testbed::new("migration_fails").await;
    let changed = sqlx::raw_sql(include_str!("sql/change_migration.sql"));
    changed.execute(bed.store().pool()).await.must("pretend that a migration was edited");
    // Both stay alive, with the locks of their connections.
    for store in [bed.store(), &bed.another_store().await] {
        let refused = tokio::time::timeout(DEADLINE, store.migrate()).await.must("be answered");
        let refused = refused.unwrap_err();
        assert!(
            matches!(refused, Error::Migrate(MigrationError::Changed { number: 2 })),
            "{refused:?}"
        );
        assert!(!refused.is_retryable());
    }
    assert_eq!(advisory_locks(&bed).await, 0, "a lock was left behind");
}

#[tokio::test]
async fn a_later_version_is_accepted_while_this_one_can_work_with_it_and_refused_after() {
    let bed = Testbed::new("later_version").await;
    let later = sqlx::raw_sql(include_str!("sql/later_migration.sql"));
    later.execute(bed.store().pool()).await.must("pretend that a later version migrated");
    // A rolling upgrade, or the return to the version before.
    bed.store().migrate().await.must("start beside a later version");
    bed.store().check().await.must("check");
    let append = Append::to(&account("a"), ExpectedVersion::NoStream, [opened("ann")]);
    bed.store().append(&append).await.must("append beside a later version");

    let incompatible = sqlx::raw_sql(include_str!("sql/incompatible_migration.sql"));
    incompatible.execute(bed.store().pool()).await.must("pretend that it changed the tables");
    for refused in [bed.store().migrate().await, bed.store().check().await] {
        let refused = refused.unwrap_err();
        assert!(
            matches!(refused, Error::Migrate(MigrationError::OfALaterVersion { number: 999 })),
            "{refused:?}"
        );
    }
    let mut relay = RelayProcess::start(&bed.relay());
    relay.event_with("halted", &[("cause", "store")]).await;
    assert!(!relay.ended().await.success());
    assert!(!relay.has_event("publishing"));
    let output = annals(&bed, &["log"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("migration 999"), "{said}");
}

#[tokio::test]
async fn a_check_names_missing_tables_and_creates_none() {
    let bed = Testbed::new("check").await;
    bed.store().check().await.must("check");
    let store = starting(&bed).await;
    let missing = store.check().await.unwrap_err();
    assert!(
        matches!(missing, Error::Migrate(MigrationError::Missing { number: 1 })),
        "{missing:?}"
    );
    assert!(store.check().await.is_err(), "the check created the tables");
    store.migrate().await.must("migrate");
    store.check().await.must("check");
}

#[tokio::test]
async fn vacuum_is_set_for_tables_to_which_rows_are_only_added() {
    let bed = Testbed::new("vacuum_options").await;
    let mut found = Vec::new();
    for is_events in [true, false] {
        let options = sqlx::query_scalar(include_str!("sql/vacuum_options.sql")).bind(is_events);
        let options: Vec<String> = options.fetch_all(bed.store().pool()).await.must("read options");
        found.push(options);
    }
    let events = [
        "autovacuum_freeze_min_age=0",
        "autovacuum_vacuum_insert_scale_factor=0",
        "autovacuum_vacuum_insert_threshold=1000000",
    ];
    let outbox = ["autovacuum_vacuum_insert_threshold=-1"];
    assert_eq!(found, [events.as_slice(), outbox.as_slice()]);
}
