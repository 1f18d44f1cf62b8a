//! Each page is one indexed query, however large the tables are: the plans are asserted on filled tables, for the
//! generic plan that PostgreSQL falls back to after some executions.

use annals_testkit::{Must, Testbed};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// A statement, its arguments, and the index that must lead to its rows.
const PLANS: [(&str, &str, &str, &str); 18] = [
    (
        "read_stream",
        include_str!("../sql/read_stream.sql"),
        "'filler-7', 3, 500, null, null",
        "events_stream_version",
    ),
    (
        "read_stream_backwards",
        include_str!("../sql/read_stream_backwards.sql"),
        "'filler-7', 30, 500, null, null",
        "events_stream_version",
    ),
    (
        "read_category",
        include_str!("../sql/read_category.sql"),
        "'filler', 40000, 500, null, null",
        "events_category",
    ),
    (
        "read_category_backwards",
        include_str!("../sql/read_category_backwards.sql"),
        "'filler', 40000, 500, '{Filled}', null",
        "events_category",
    ),
    (
        "read_all",
        include_str!("../sql/read_all.sql"),
        "null, 40000, 500, null, null",
        "events_pkey",
    ),
    (
        "read_all_backwards",
        include_str!("../sql/read_all_backwards.sql"),
        "null, 40000, 500, null, null",
        "events_pkey",
    ),
    (
        "read_correlation",
        include_str!("../sql/read_correlation.sql"),
        "'00000000-0000-0000-0000-000000000007', 0, 500, null, null",
        "events_correlation",
    ),
    (
        "read_correlation_backwards",
        include_str!("../sql/read_correlation_backwards.sql"),
        "'00000000-0000-0000-0000-000000000007', 90000, 500, null, null",
        "events_correlation",
    ),
    (
        "read_causation",
        include_str!("../sql/read_causation.sql"),
        "'00000000-0000-0000-0000-000000000007', 0, 500, null, null",
        "events_causation",
    ),
    (
        "read_causation_backwards",
        include_str!("../sql/read_causation_backwards.sql"),
        "'00000000-0000-0000-0000-000000000007', 90000, 500, null, null",
        "events_causation",
    ),
    ("stream_version", include_str!("../sql/stream_version.sql"), "'filler-7'", "streams_pkey"),
    ("streams", include_str!("../sql/streams.sql"), "'filler', '', 1000", "streams_pkey"),
    (
        "follow_live",
        include_str!("../sql/follow_live.sql"),
        "pg_current_snapshot(), pg_current_snapshot(), 0, 500, null, null",
        "outbox_0000000_xid_idx",
    ),
    (
        "outbox_live",
        include_str!("../sql/outbox_live.sql"),
        "pg_current_snapshot(), pg_current_snapshot(), '{1,2,3}', 0, 500",
        "outbox_0000000_xid_idx",
    ),
    (
        "outbox_page",
        include_str!("../sql/outbox_page.sql"),
        "'3:3:', pg_current_snapshot(), '{1,2,3}', 40000, 45000",
        "events_pkey",
    ),
    (
        "outbox_window_start",
        include_str!("../sql/outbox_window_start.sql"),
        "pg_current_snapshot(), 100, 90000",
        "outbox_0000000_xid_idx",
    ),
    (
        "follow_page_all",
        include_str!("../sql/follow_page_all.sql"),
        "'3:3:', pg_current_snapshot(), 40000, 500, null, null, 90000",
        "events_pkey",
    ),
    (
        "follow_page_category",
        include_str!("../sql/follow_page_category.sql"),
        "'3:3:', pg_current_snapshot(), 40000, 500, 'filler', null, 90000",
        "events_category",
    ),
];

#[tokio::test]
async fn every_page_is_read_by_its_index() {
    let bed = Testbed::new("plans").await;
    let mut connection = PgConnection::connect(&bed.database_url()).await.must("connect");
    sqlx::raw_sql(include_str!("sql/fill.sql"))
        .execute(&mut connection)
        .await
        .must("fill the tables");
    for (name, statement, arguments, index) in PLANS {
        let plan = plan(&mut connection, name, statement, arguments).await;
        assert!(plan.contains(index), "{name} is not read by {index}:\n{plan}");
        for dear in ["Seq Scan on events", "Seq Scan on outbox_0000000", "Seq Scan on streams"] {
            assert!(!plan.contains(dear), "{name} reads a whole table:\n{plan}");
        }
        // The rows of a page come in order from their index, so that the rest is never looked at. Where only a page's
        // worth can be found, it may be sorted.
        let is_bounded = ["read_stream", "follow_live", "outbox_live", "outbox_page"]
            .iter()
            .any(|bounded| name.starts_with(bounded));
        assert!(is_bounded || !plan.contains("Sort"), "{name} sorts what it reads:\n{plan}");
    }
}

/// The generic plan: the one without the arguments' values.
async fn plan(
    connection: &mut PgConnection,
    name: &str,
    statement: &str,
    arguments: &str,
) -> String {
    let prepare =
        format!("set plan_cache_mode = force_generic_plan; prepare {name} as {statement}");
    sqlx::raw_sql(AssertSqlSafe(prepare))
        .execute(&mut *connection)
        .await
        .must("prepare a statement");
    let explain = AssertSqlSafe(format!("explain (costs off) execute {name} ({arguments})"));
    let lines: Vec<String> = sqlx::query_scalar(explain)
        .persistent(false)
        .fetch_all(&mut *connection)
        .await
        .must("explain a statement");
    lines.join("\n")
}
