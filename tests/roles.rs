//! Recorded events are never changed, and each role can do its own work and nothing else. Tables
//! and functions come from the catalog: a new one without an expectation is a failure.

use annals_store::{Append, ExpectedVersion, Follow, Read, Store};
use annals_testkit::{Must, RelayProcess, Testbed, account, check, deposited, opened};
use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use std::pin::pin;

const ROLES: [&str; 5] = ["annals_append", "annals_read", "annals_relay", "annals_admin", "public"];

/// The rights of each role on a table: select, insert, update, delete, truncate.
fn allowed_on_table(role: &str, table: &str) -> &'static str {
    match (role, table) {
        ("public", _) | ("annals_relay", "snapshots") => "",
        ("annals_append", "snapshots") => "siud",
        ("annals_admin", "snapshots") => "sd",
        ("annals_read", "snapshots") => "s",
        ("annals_append", "projections") => "siud",
        (_, "personal_keys" | "personal_wrapping" | "event_log") if role != "annals_relay" => "s",
        (_, "projections" | "projection_status" | "projection_skips") if role != "annals_relay" => {
            "s"
        }
        ("annals_admin", "streams" | "events" | "outbox" | "schemas" | "tags") => "sud",
        (
            _,
            "identity" | "adoptions" | "streams" | "events" | "removed_events" | "archived_events"
            | "all_events" | "outbox" | "outbox_dropped" | "schemas" | "tags" | "migrations",
        )
        | ("annals_admin", "admin_log") => "s",
        ("annals_relay", "relay_checkpoints" | "relay_topics" | "relay_schema_ids") => "siu",
        (_, table) if table.starts_with("relay_") && role != "annals_append" => "s",
        _ => "",
    }
}

fn may_call(role: &str, routine: &str) -> bool {
    match routine {
        "append"
        | "append_and_commit"
        | "append_each"
        | "append_each_and_commit"
        | "append_tagged"
        | "append_tagged_and_commit"
        | "register_schema" => role == "annals_append",
        "projection_schema"
        | "projection_lock_appends"
        | "projection_create"
        | "projection_show"
        | "projection_switch"
        | "projection_drop" => role == "annals_append",
        "personal_key_create" | "personal_fence" | "personal_destroy" => role == "annals_append",
        "personal_rotated" | "personal_rewrap" | "stream_close" | "stream_reopen"
        | "stream_truncate" | "stream_archive" | "stream_restore" => role == "annals_admin",
        "projection_skip" => ["annals_append", "annals_admin"].contains(&role),
        "is_covered" | "causal_tree" => {
            ["annals_append", "annals_read", "annals_admin"].contains(&role)
        }
        "outbox_extend" => ["annals_append", "annals_relay"].contains(&role),
        "position_at"
        | "shard_of"
        | "shard_count"
        | "outbox_partition_positions"
        | "system_identifier"
        | "incarnation"
        | "oldest_client"
        | "is_visible_at"
        | "late_events" => role != "public",
        "outbox_drop_published" => role == "annals_relay",
        "administer"
        | "adopt"
        | "relay_forget"
        | "relay_reshard"
        | "relay_deliver"
        | "relay_rebase"
        | "relay_skip_published"
        | "relay_begin_replay"
        | "relay_renew_replay"
        | "relay_end_replay"
        | "relay_release_topics" => role == "annals_admin",
        "relay_retry" | "relay_skip" | "relay_record_ends" => {
            ["annals_relay", "annals_admin"].contains(&role)
        }
        "relay_lock"
        | "relay_lock_stopped"
        | "relay_expire_sessions"
        | "relay_admit_write"
        | "relay_begin_generation"
        | "relay_checkpoint_now" => false,
        routine if routine.starts_with("relay_") => role == "annals_relay",
        _ => false,
    }
}

async fn connect(bed: &Testbed) -> PgConnection {
    PgConnection::connect(&bed.database_url()).await.must("connect")
}

/// The same database, as one of the roles.
fn url_as(bed: &Testbed, role: &str) -> String {
    format!("{}?options=-c%20role%3D{role}", bed.database_url())
}

#[tokio::test]
async fn each_role_has_exactly_its_rights_on_every_table() {
    let bed = Testbed::new("rights").await;
    let mut connection = connect(&bed).await;
    let rows = sqlx::query(include_str!("sql/table_rights.sql")).bind(ROLES);
    let rows = rows.fetch_all(&mut connection).await.must("read the catalog");
    assert!(rows.len() > ROLES.len() * 9, "tables are missing from the catalog");
    for row in rows {
        let (table, role, rights): (String, String, String) =
            (row.get("table"), row.get("role"), row.get("rights"));
        assert_eq!(rights, allowed_on_table(&role, &table), "{role} on {table}");
    }
}

/// One partition for the positions that are drawn, and sixteen ahead.
#[tokio::test]
async fn an_appender_cannot_fill_the_database_with_partitions() {
    let bed = Testbed::new("partitions").await;
    let mut appender = PgConnection::connect(&url_as(&bed, "annals_append")).await.must("connect");
    for _ in 0..2 {
        let query = sqlx::query_scalar(include_str!("sql/outbox_extend_far.sql"));
        let partitions: i64 = query.fetch_one(&mut appender).await.must("extend the outbox");
        assert_eq!(partitions, 17);
    }
}

#[tokio::test]
async fn no_role_draws_or_sets_a_number_or_makes_anything_in_the_schema() {
    let bed = Testbed::new("sequences").await;
    let mut connection = connect(&bed).await;
    let rows = sqlx::query(include_str!("sql/sequence_rights.sql")).bind(ROLES);
    let rows = rows.fetch_all(&mut connection).await.must("read the catalog");
    assert!(rows.len() >= ROLES.len() * 3, "sequences are missing from the catalog");
    for row in rows {
        let (name, role, may): (String, String, bool) =
            (row.get("name"), row.get("role"), row.get("may"));
        assert!(!may, "{role} may change {name}");
    }
}

#[tokio::test]
async fn each_role_can_call_exactly_its_functions() {
    let bed = Testbed::new("routines").await;
    let mut connection = connect(&bed).await;
    let rows = sqlx::query(include_str!("sql/routine_rights.sql")).bind(ROLES);
    let rows = rows.fetch_all(&mut connection).await.must("read the catalog");
    assert!(rows.len() > ROLES.len() * 10, "routines are missing from the catalog");
    for row in rows {
        let (routine, role, may): (String, String, bool) =
            (row.get("routine"), row.get("role"), row.get("may"));
        assert_eq!(may, may_call(&role, &routine), "{role} calls {routine}");
        let (definer, search_path): (bool, bool) =
            (row.get("is_definer"), row.get("has_search_path"));
        assert!(
            !definer || search_path,
            "{routine} runs as its owner with the caller's search_path"
        );
    }
}

const CHANGES: [&str; 15] = [
    "update annals.events set version = 7",
    "delete from annals.events",
    "truncate annals.events",
    "update annals.outbox set shard = 0",
    "delete from annals.outbox",
    "truncate annals.outbox",
    "delete from annals.outbox_0000000",
    "truncate annals.outbox_0000000",
    "delete from annals.outbox_dropped",
    "update annals.schemas set definition = ''",
    "delete from annals.schemas",
    "truncate annals.schemas",
    "update annals.admin_log set reason = 'none'",
    "delete from annals.admin_log",
    "truncate annals.admin_log",
];

/// Runs statements in a transaction that is rolled back.
async fn try_out(
    connection: &mut PgConnection,
    setup: &str,
    change: &'static str,
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await.must("begin");
    let setup = AssertSqlSafe(setup.to_owned());
    sqlx::raw_sql(setup).execute(&mut *transaction).await.must("set the role");
    let changed = sqlx::raw_sql(change).execute(&mut *transaction).await;
    transaction.rollback().await.must("roll back");
    changed.map(drop)
}

#[tokio::test]
async fn nobody_changes_what_is_recorded_neither_owner_nor_superuser_nor_replication() {
    let bed = Testbed::new("insert_only").await;
    let append = Append::to(&account("a"), ExpectedVersion::Any, [opened("ann")]);
    bed.store().append(&append).await.must("append");
    let mut connection = connect(&bed).await;
    let before = bed.fingerprint().await;
    let everybody = ["none", "annals_admin", "annals_owner"];
    let setups = everybody.iter().flat_map(|role| {
        ["origin", "replica"].map(|replication| {
            format!("set local session_replication_role = {replication}; set local role {role}")
        })
    });
    for setup in setups {
        for change in CHANGES {
            let refused = try_out(&mut connection, &setup, change).await.unwrap_err();
            let code = refused.as_database_error().must("be refused by the server").code();
            assert_eq!(code.as_deref(), Some("42501"), "{setup}; {change}: {refused}");
        }
    }
    assert_eq!(bed.fingerprint().await, before);
}

#[tokio::test]
async fn administration_may_change_what_is_recorded_for_one_transaction_and_is_logged_for_ever() {
    const ADMINISTER: &str =
        "set local role annals_admin; select annals.administer('a court told us to')";
    let bed = Testbed::new("administer").await;
    let append = Append::to(&account("a"), ExpectedVersion::Any, [opened("ann")]);
    bed.store().append(&append).await.must("append");
    let mut connection = connect(&bed).await;
    try_out(&mut connection, ADMINISTER, "delete from annals.events").await.must("administer");
    let log_too = "set local role annals_owner; delete from annals.admin_log";
    try_out(&mut connection, ADMINISTER, log_too).await.unwrap_err();

    let mut transaction = connection.begin().await.must("begin");
    sqlx::raw_sql(ADMINISTER).execute(&mut *transaction).await.must("administer");
    sqlx::raw_sql("delete from annals.events").execute(&mut *transaction).await.must("delete");
    transaction.commit().await.must("commit");
    assert_eq!(bed.recorded().await, []);
    let reasons = sqlx::query_scalar("select reason from annals.admin_log");
    let reasons: Vec<String> = reasons.fetch_all(&mut connection).await.must("read the log");
    assert_eq!(reasons, ["a court told us to"]);
    // The next transaction may not.
    try_out(&mut connection, "set local role annals_admin", "delete from annals.events")
        .await
        .unwrap_err();
}

#[tokio::test]
async fn administration_without_a_reason_is_refused() {
    let bed = Testbed::new("no_reason").await;
    let mut connection = connect(&bed).await;
    for reason in ["''", "'  '", "null"] {
        let administer = AssertSqlSafe(format!("select annals.administer({reason})"));
        sqlx::raw_sql(administer).execute(&mut connection).await.map(drop).unwrap_err();
    }
}

#[tokio::test]
async fn writer_reader_and_relay_do_their_work_with_their_own_rights_only() {
    let bed = Testbed::new("own_rights").await;
    let follower = bed.follow();
    let url = url_as(&bed, "annals_relay");
    let mut relay = RelayProcess::start(&bed.relay().variable("ANNALS_DATABASE_URL", &url));
    let writer = Store::connect(&url_as(&bed, "annals_append")).await.must("connect");
    let append =
        Append::to(&account("a"), ExpectedVersion::NoStream, [opened("ann"), deposited(1)]);
    writer.append(&append).await.must("append with the right to append only");
    let mut transaction = writer.pool().begin().await.must("begin");
    let inside = Append::to(&account("a"), ExpectedVersion::Any, [deposited(2)]);
    writer.append_in(&mut transaction, &inside).await.must("append in a transaction");
    transaction.commit().await.must("commit");
    follower.until_count(3).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);

    let reader = Store::connect(&url_as(&bed, "annals_read")).await.must("connect");
    let read: Vec<_> = reader.read(Read::all()).try_collect().await.must("read");
    assert_eq!(read.len(), 3);
    let mut log = pin!(reader.follow(Follow::all()));
    assert!(log.try_next().await.must("follow").is_some());
    reader.append(&append).await.unwrap_err();
}
