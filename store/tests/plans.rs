//! Each page is one indexed query, however large the tables are: the plans are asserted on filled
//! tables, for the generic plan that PostgreSQL falls back to after some executions, and for those
//! that it makes for given arguments.

use annals_testkit::{Must, Testbed};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// A statement, its arguments, and the index that must lead to its rows.
struct Plan {
    name: &'static str,
    statement: &'static str,
    arguments: &'static str,
    index: &'static str,
}

/// The statements behind `Read`; what follows their arguments is each combination of [`FILTERS`].
static READS: [Plan; 12] = [
    Plan {
        name: "read_stream",
        statement: include_str!("../sql/read_stream.sql"),
        arguments: "'filler-7', 3, 500",
        index: "events_stream_version",
    },
    Plan {
        name: "read_stream_backwards",
        statement: include_str!("../sql/read_stream_backwards.sql"),
        arguments: "'filler-7', 30, 500",
        index: "events_stream_version",
    },
    Plan {
        name: "read_category",
        statement: include_str!("../sql/read_category.sql"),
        arguments: "'filler', 40000, 500",
        index: "events_category",
    },
    Plan {
        name: "read_category_backwards",
        statement: include_str!("../sql/read_category_backwards.sql"),
        arguments: "'filler', 40000, 500",
        index: "events_category",
    },
    Plan {
        name: "read_all",
        statement: include_str!("../sql/read_all.sql"),
        arguments: "null, 40000, 500",
        index: "events_pkey",
    },
    Plan {
        name: "read_all_backwards",
        statement: include_str!("../sql/read_all_backwards.sql"),
        arguments: "null, 40000, 500",
        index: "events_pkey",
    },
    Plan {
        name: "read_correlation",
        statement: include_str!("../sql/read_correlation.sql"),
        arguments: "'00000000-0000-0000-0000-000000000007', 0, 500",
        index: "events_correlation",
    },
    Plan {
        name: "read_correlation_backwards",
        statement: include_str!("../sql/read_correlation_backwards.sql"),
        arguments: "'00000000-0000-0000-0000-000000000007', 90000, 500",
        index: "events_correlation",
    },
    Plan {
        name: "read_causation",
        statement: include_str!("../sql/read_causation.sql"),
        arguments: "'00000000-0000-0000-0000-000000000007', 0, 500",
        index: "events_causation",
    },
    Plan {
        name: "read_causation_backwards",
        statement: include_str!("../sql/read_causation_backwards.sql"),
        arguments: "'00000000-0000-0000-0000-000000000007', 90000, 500",
        index: "events_causation",
    },
    Plan {
        name: "read_tag",
        statement: include_str!("../sql/read_tag.sql"),
        arguments: "'tag:7', 40000, 500",
        index: "tags_pkey",
    },
    Plan {
        name: "read_tag_backwards",
        statement: include_str!("../sql/read_tag_backwards.sql"),
        arguments: "'tag:7', 40000, 500",
        index: "tags_pkey",
    },
];

/// Types, and the earliest time, of a `Read`: common and rare ones, and none.
const FILTERS: [(&str, &str); 6] = [
    ("null", "null"),
    ("'{Filled}'", "null"),
    ("'{Nothing}'", "null"),
    ("null", "'2001-01-01'"),
    ("null", "'2999-01-01'"),
    ("'{Nothing}'", "'2999-01-01'"),
];

/// The other statements.
static OTHERS: [Plan; 9] = [
    Plan {
        name: "stream_version",
        statement: include_str!("../sql/stream_version.sql"),
        arguments: "'filler-7'",
        index: "streams_pkey",
    },
    Plan {
        name: "streams",
        statement: include_str!("../sql/streams.sql"),
        arguments: "'filler', '', 1000",
        index: "streams_pkey",
    },
    Plan {
        name: "follow_page_of_positions",
        statement: include_str!("../sql/follow_page_of_positions.sql"),
        arguments: "pg_current_snapshot(), 90000, 0, pg_current_snapshot(), 100000, 0, '{7,9}', null, null, 500, 4194304",
        index: "events_pkey",
    },
    Plan {
        name: "outbox_page_of_positions",
        statement: include_str!("../sql/outbox_page_of_positions.sql"),
        arguments: "pg_current_snapshot(), 90000, 0, pg_current_snapshot(), 100000, 0, '{7,9}', '{1,2,3}'",
        index: "events_pkey",
    },
    Plan {
        name: "outbox_page_by_position",
        statement: include_str!("../sql/outbox_page_by_position.sql"),
        arguments: "pg_current_snapshot(), 90000, 0, pg_current_snapshot(), 100000, 0, 90000, 95000, '{1,2,3}'",
        index: "events_pkey",
    },
    Plan {
        name: "outbox_page_of_category",
        statement: include_str!("../sql/outbox_page_of_category.sql"),
        arguments: "pg_current_snapshot(), 90000, 0, pg_current_snapshot(), 100000, 0, 90000, 95000, 'filler', 1::smallint, 500",
        index: "events_category",
    },
    Plan {
        name: "outbox_page_of_stream",
        statement: include_str!("../sql/outbox_page_of_stream.sql"),
        arguments: "pg_current_snapshot(), 90000, 0, pg_current_snapshot(), 100000, 0, 90000, 'filler-7', 500",
        index: "events_stream_version",
    },
    Plan {
        name: "follow_page_of_all",
        statement: include_str!("../sql/follow_page_of_all.sql"),
        arguments: "'3:3:', 0, 0, pg_current_snapshot(), 90000, 0, 40000, '{Nothing}', null, 500, 4194304",
        index: "events_pkey",
    },
    Plan {
        name: "follow_page_of_category",
        statement: include_str!("../sql/follow_page_of_category.sql"),
        arguments: "'3:3:', 0, 0, pg_current_snapshot(), 90000, 0, 40000, '{Nothing}', 'filler', 500, 4194304",
        index: "events_category",
    },
];

/// Further statements on events, streams and the outbox, whose plans are only costed: names, texts,
/// arguments.
static COSTED: [(&str, &str, &str); 17] = [
    (
        "late_events",
        include_str!("../sql/late_events.sql"),
        "pg_current_snapshot(), 100, 90000, 0, 10000",
    ),
    (
        "follow_removed_events",
        include_str!("../sql/follow_removed_events.sql"),
        "pg_current_snapshot(), 90000, 0, pg_current_snapshot(), 100000, 0, 40000, 45000, 'filler'",
    ),
    (
        "follow_evidence",
        include_str!("../sql/follow_evidence.sql"),
        "pg_current_snapshot(), 90000, 0, pg_current_snapshot(), 100000, 0, 40000, 45000, null, null",
    ),
    ("log_end", include_str!("../sql/log_end.sql"), ""),
    ("position_at", include_str!("../sql/position_at.sql"), "'2001-01-01'"),
    (
        "events_by_id",
        include_str!("../sql/events_by_id.sql"),
        "'{00000000-0000-0000-0000-000000000007}'",
    ),
    (
        "missing_events",
        include_str!("../sql/missing_events.sql"),
        "'{40000}', '{00000000-0000-0000-0000-000000000007}'",
    ),
    ("removed_events", include_str!("../sql/removed_events.sql"), "40000, 45000, 'filler', false"),
    (
        "causal_tree",
        include_str!("../sql/causal_tree.sql"),
        "'00000000-0000-0000-0000-000000000007', 1000",
    ),
    ("stream_versions", include_str!("../sql/stream_versions.sql"), "'{filler-7,filler-8}'"),
    ("stream_life", include_str!("../sql/stream_life.sql"), "'filler-7'"),
    ("categories", include_str!("../sql/categories.sql"), ""),
    ("snapshot_find", include_str!("../sql/snapshot_find.sql"), "'filler-7', 7"),
    (
        "outbox_page_of_category",
        include_str!("../sql/outbox_page_of_category.sql"),
        "pg_current_snapshot(), 90000, 0, pg_current_snapshot(), 100000, 0, 40000, 45000, 'filler', 3::smallint, 500",
    ),
    (
        "outbox_page_of_stream",
        include_str!("../sql/outbox_page_of_stream.sql"),
        "pg_current_snapshot(), 90000, 0, pg_current_snapshot(), 100000, 0, 40000, 'filler-7', 500",
    ),
    (
        "projection_has_seen",
        include_str!("../sql/projection_has_seen.sql"),
        "'balances', '{40000,45000}'",
    ),
    ("personal_unfinished", include_str!("../sql/personal_unfinished.sql"), "1000"),
];

/// Lets PostgreSQL plan for the arguments given, as it does in the first executions of a statement.
const FOR_THESE: &str = "set plan_cache_mode = force_custom_plan";
/// Lets it plan for any arguments, as it does later.
const FOR_ALL: &str = "set plan_cache_mode = force_generic_plan";

#[tokio::test]
async fn every_page_is_read_by_its_index() {
    let bed = Testbed::new("plans").await;
    let mut connection = filled(&bed).await;
    for mode in [FOR_THESE, FOR_ALL] {
        sqlx::raw_sql(mode).execute(&mut connection).await.must("choose how to plan");
        for read in &READS {
            check_read(&mut connection, read).await;
        }
    }
    for other in &OTHERS {
        prepare(&mut connection, other.name, other.statement).await;
        let plan = explain(&mut connection, other.name, other.arguments).await;
        check(other, &plan);
    }
}

/// With each filter that a `Read` can have.
async fn check_read(connection: &mut PgConnection, read: &Plan) {
    prepare(connection, read.name, read.statement).await;
    let (end, bounds) = match end(read) {
        Some(end) => (format!(", {end}"), ["$7", end]),
        None => (String::new(), [""; 2]),
    };
    for (types, since) in FILTERS {
        let arguments = format!("{}, {types}, {since}, 4194304{end}", read.arguments);
        let plan = explain(connection, read.name, &arguments).await;
        check(read, &plan);
        let range = plan.lines().find(|line| line.contains("Index Cond")).must("find the range");
        let is_bounded = bounds.iter().any(|bound| range.contains(bound));
        assert!(is_bounded, "{} does not end at the last position:\n{plan}", read.name);
    }
}

/// The position at which a read ends: the lowest one of a backwards read.
fn end(read: &Plan) -> Option<&'static str> {
    let end = if read.name.ends_with("backwards") { "30000" } else { "60000" };
    read.statement.contains("$7").then_some(end)
}

/// The estimated cost above which PostgreSQL compiles a plan, for tens of milliseconds to seconds.
const JIT_ABOVE_COST: f64 = 100_000.0;
/// More than PostgreSQL estimates for the planning of one of these statements.
const PLANNING_COST: f64 = 1_000.0;

/// No statement relies on settings of the session: the pool can be the application's own.
///
/// With a parameter as its limit, a plan for all arguments is estimated to read a tenth of the
/// table. PostgreSQL uses such a plan only where it is the cheaper one.
#[tokio::test]
async fn no_plan_is_dear_enough_to_be_compiled_with_a_billion_events() {
    let bed = Testbed::new("billion").await;
    let mut connection = PgConnection::connect(&bed.database_url()).await.must("connect");
    // The positions of a billion events, one in ten thousand of them present.
    let fill = include_str!("sql/fill.sql")
        .replace("    i, 'filler-'", "    i::bigint * 10000, 'filler-'")
        .replace("mod(i, 100), i, 'Filled'", "mod(i, 100), i::bigint * 10000, 'Filled'");
    let fill = sqlx::raw_sql(AssertSqlSafe(fill)).execute(&mut connection).await;
    fill.must("fill the tables");
    let pretend = sqlx::raw_sql(include_str!("sql/pretend_billion.sql"));
    pretend.execute(&mut connection).await.must("pretend that there are a billion events");
    let mut compiled = Vec::new();
    for (name, statement, arguments) in explained() {
        let used = used_cost(&mut connection, name, statement, &arguments).await;
        if used >= JIT_ABOVE_COST {
            compiled.push(format!("{name} ({arguments}): {used}"));
        }
    }
    assert!(compiled.is_empty(), "these plans would be compiled:\n{}", compiled.join("\n"));
    // A statement that scans the events would be.
    let scan = include_str!("sql/scan_events.sql");
    let used = used_cost(&mut connection, "scan_events", scan, "'2001-01-01'").await;
    assert!(used >= JIT_ABOVE_COST, "a scan of all events costs {used}");
    check_functions(&bed, scan).await;
}

/// The plans in functions are not explained. A process that has compiled one has loaded a library.
async fn check_functions(bed: &Testbed, scan: &'static str) {
    let mut connection = PgConnection::connect(&bed.database_url()).await.must("connect");
    let appends = include_str!("sql/append_by_functions.sql");
    sqlx::raw_sql(appends).execute(&mut connection).await.must("append");
    let outcomes = sqlx::query_scalar(include_str!("sql/outcomes.sql"));
    let outcomes: Vec<String> = outcomes.fetch_all(&mut connection).await.must("read outcomes");
    assert_eq!(outcomes, ["appended 8", "refused 3", "repeated 4"]);
    assert!(!is_compiler_loaded(&mut connection).await, "a plan of an append was compiled");
    // That of a scan is, where the server can.
    prepare(&mut connection, "scan_events", scan).await;
    let scan = sqlx::raw_sql("execute scan_events ('2001-01-01')");
    scan.execute(&mut connection).await.must("scan the events");
    let loaded = is_compiler_loaded(&mut connection).await;
    let can_compile = sqlx::query_scalar(include_str!("sql/can_compile.sql"));
    let can_compile: bool = can_compile.fetch_one(&mut connection).await.must("ask the server");
    assert_eq!(loaded, can_compile);
}

async fn is_compiler_loaded(connection: &mut PgConnection) -> bool {
    let is_loaded =
        sqlx::query_scalar(include_str!("sql/is_compiler_loaded.sql")).persistent(false);
    is_loaded.fetch_one(connection).await.must("look at the process")
}

/// All statements, with each combination of their arguments.
fn explained() -> Vec<(&'static str, &'static str, String)> {
    let reads = READS.iter().flat_map(|read| {
        let end = end(read).map(|end| format!(", {end}")).unwrap_or_default();
        FILTERS.map(move |(types, since)| {
            let arguments = format!("{}, {types}, {since}, 4194304{end}", read.arguments);
            (read.name, read.statement, arguments)
        })
    });
    let others = OTHERS.iter().map(|other| (other.name, other.statement, other.arguments));
    let others = others.chain(COSTED);
    reads.chain(others.map(|(name, statement, of)| (name, statement, of.to_owned()))).collect()
}

/// The cost of the plan that PostgreSQL uses after some executions.
async fn used_cost(
    connection: &mut PgConnection,
    name: &str,
    statement: &str,
    arguments: &str,
) -> f64 {
    prepare(connection, name, statement).await;
    let execution = match arguments {
        "" => name.to_owned(),
        arguments => format!("{name} ({arguments})"),
    };
    let for_these = cost(connection, FOR_THESE, &execution).await;
    let for_all = cost(connection, FOR_ALL, &execution).await;
    if for_all < for_these + PLANNING_COST { for_all } else { for_these }
}

async fn cost(connection: &mut PgConnection, mode: &'static str, execution: &str) -> f64 {
    sqlx::raw_sql(mode).execute(&mut *connection).await.must("choose how to plan");
    let explain = format!("explain (format json) execute {execution}");
    let query = sqlx::query_scalar(AssertSqlSafe(explain)).persistent(false);
    let plan: serde_json::Value =
        query.fetch_one(&mut *connection).await.must("explain a statement");
    plan.pointer("/0/Plan/Total Cost").and_then(serde_json::Value::as_f64).must("find the cost")
}

/// A connection to tables of a size at which the planner has a choice.
async fn filled(bed: &Testbed) -> PgConnection {
    let mut connection = PgConnection::connect(&bed.database_url()).await.must("connect");
    let fill = sqlx::raw_sql(include_str!("sql/fill.sql")).execute(&mut connection).await;
    fill.must("fill the tables");
    connection
}

/// Also where versions are missing: it reads what a search needs, and its own rows.
#[tokio::test]
async fn a_page_in_the_middle_of_a_long_stream_reads_no_more_than_its_rows() {
    const BLOCKS_MAX: f64 = 200.0;
    let bed = Testbed::new("long_stream").await;
    let mut connection = filled(&bed).await;
    let lengthen =
        sqlx::raw_sql(include_str!("sql/long_stream.sql")).execute(&mut connection).await;
    lengthen.must("fill a long stream");
    let page = include_str!("../sql/outbox_page_of_stream.sql");
    prepare(&mut connection, "outbox_page_of_stream", page).await;
    let arguments =
        "pg_current_snapshot(), 100000, 0, pg_current_snapshot(), 130000, 0, 115000, 'long', 50";
    let (rows, blocks, plan) = measure(&mut connection, "outbox_page_of_stream", arguments).await;
    assert!(rows > 49.0, "{plan:#}");
    assert!(blocks < BLOCKS_MAX, "{blocks} blocks:\n{plan:#}");
}

/// Otherwise a category that was held, and then released, is read as often as it has pages.
#[tokio::test]
async fn a_page_of_a_few_positions_of_a_category_does_not_read_what_is_behind_them() {
    const BLOCKS_MAX: f64 = 50.0;
    let bed = Testbed::new("short_range").await;
    let mut connection = filled(&bed).await;
    let page = include_str!("../sql/outbox_page_of_category.sql");
    prepare(&mut connection, "outbox_page_of_category", page).await;
    for mode in [FOR_THESE, FOR_ALL] {
        sqlx::raw_sql(mode).execute(&mut connection).await.must("choose how to plan");
        let arguments = "pg_current_snapshot(), 0, 0, pg_current_snapshot(), 100000, 0, 40000, 40050, \
                         'filler', 3::smallint, 500";
        let (_, blocks, plan) =
            measure(&mut connection, "outbox_page_of_category", arguments).await;
        assert!(blocks < BLOCKS_MAX, "{blocks} blocks:\n{plan:#}");
    }
}

const LATE_EVENTS: &str = include_str!("../sql/late_events.sql");

/// Of a transaction of many events, the first of which are late, only these are read; and none of
/// one that was rolled back.
#[tokio::test]
async fn the_late_events_of_a_large_transaction_are_read_without_its_others() {
    const BLOCKS_MAX: f64 = 100.0;
    let bed = Testbed::new("late_of_many").await;
    let mut connection = filled(&bed).await;
    prepare(&mut connection, "late_events", LATE_EVENTS).await;
    for is_committed in [true, false] {
        let mut writer = PgConnection::connect(&bed.database_url()).await.must("connect");
        let mut transaction = writer.begin().await.must("begin");
        write_outbox(&mut transaction, 99_991, 100_000).await;
        let mut reader = PgConnection::connect(&bed.database_url()).await.must("connect");
        let since = bed.store().log_end(&mut reader).await.must("read the end").bound;
        write_outbox(&mut transaction, 100_001, 160_000).await;
        let ended = match is_committed {
            true => transaction.commit().await,
            false => transaction.rollback().await,
        };
        ended.must("end the transaction");
        let next = serde_json::json!(since.next_xid);
        let arguments = format!("'{}', '{next}', 100000, 0, 10000", since.snapshot);
        let late = late_events(&mut connection, &arguments).await;
        let (_, blocks, plan) = measure(&mut connection, "late_events", &arguments).await;
        assert!(blocks < BLOCKS_MAX, "{blocks} blocks:\n{plan:#}");
        match is_committed {
            true => {
                assert_eq!(late, (Some(99_991), Some(100_000), Some((99_991..=100_000).collect())));
            }
            false => assert_eq!(late, (None, None, None)),
        }
    }
}

/// More than can be listed: the first is found among many transactions with an event each, and one
/// with many.
#[tokio::test]
async fn the_first_of_many_late_events_is_found_without_reading_all_of_them() {
    const BLOCKS_MAX: f64 = 2_000.0;
    let bed = Testbed::new("late_many").await;
    let mut connection = filled(&bed).await;
    prepare(&mut connection, "late_events", LATE_EVENTS).await;
    let write = sqlx::raw_sql(include_str!("sql/late_rows.sql")).execute(&mut connection).await;
    write.must("write outbox rows");
    // A settled position other than the store's: the ids are those of another history.
    let many = "'200000:200000:', '600000', 700000, 99999, 10000";
    let late = late_events(&mut connection, many).await;
    assert_eq!(late, (Some(100_001), Some(700_000), None));
    let (_, blocks, plan) = measure(&mut connection, "late_events", many).await;
    assert!(blocks < BLOCKS_MAX, "{blocks} blocks:\n{plan:#}");
    // The same transaction alone, as one that was running.
    let one = "'200000:500000:300000', '500000', 700000, 99999, 10000";
    let late = late_events(&mut connection, one).await;
    assert_eq!(late, (Some(120_001), Some(700_000), None));
    let (_, blocks, plan) = measure(&mut connection, "late_events", one).await;
    assert!(blocks < BLOCKS_MAX, "{blocks} blocks:\n{plan:#}");
}

/// First and last position, and all of them.
async fn late_events(
    connection: &mut PgConnection,
    arguments: &str,
) -> (Option<i64>, Option<i64>, Option<Vec<i64>>) {
    let late = AssertSqlSafe(format!("execute late_events ({arguments})"));
    let late = sqlx::query_as(late).persistent(false).fetch_one(connection).await;
    late.must("find late events")
}

async fn write_outbox(connection: &mut PgConnection, first: i64, last: i64) {
    let rows = sqlx::query(include_str!("sql/outbox_rows.sql")).bind(first).bind(last);
    rows.execute(connection).await.must("write outbox rows");
}

/// The rows and blocks that a prepared statement reads, and its plan.
async fn measure(
    connection: &mut PgConnection,
    name: &str,
    arguments: &str,
) -> (f64, f64, serde_json::Value) {
    let explain = format!("explain (analyze, buffers, format json) execute {name} ({arguments})");
    let query = sqlx::query_scalar(AssertSqlSafe(explain)).persistent(false);
    let plan: serde_json::Value = query.fetch_one(connection).await.must("execute a statement");
    let fact = |name: &str| {
        let fact = plan.pointer(&format!("/0/Plan/{name}"));
        fact.and_then(serde_json::Value::as_f64).must("find a fact of the plan")
    };
    (fact("Actual Rows"), fact("Shared Hit Blocks") + fact("Shared Read Blocks"), plan)
}

#[tokio::test]
async fn the_tables_are_filled_so_that_a_wrong_plan_is_chosen() {
    let bed = Testbed::new("tempted").await;
    let mut connection = filled(&bed).await;
    // As one would write it first.
    let row_by_row = include_str!("../sql/read_category.sql");
    let tempting = row_by_row
        .replace(
            "(category, position) > ($1, $2) and (category, position) <= ($1, $7)",
            "category = $1 and position > $2 and $7 > 0",
        )
        .replace("order by category, position", "order by position");
    assert_ne!(tempting, row_by_row);
    sqlx::raw_sql(FOR_ALL).execute(&mut connection).await.must("choose how to plan");
    prepare(&mut connection, "tempting", &tempting).await;
    let plan = explain(&mut connection, "tempting", "'rare', 0, 500, null, null, 4194304, 1").await;
    assert!(plan.contains("events_pkey"), "nothing tempts the planner here:\n{plan}");
}

fn check(Plan { name, index, .. }: &Plan, plan: &str) {
    assert!(plan.contains(index), "{name} is not read by {index}:\n{plan}");
    let tables = ["events", "outbox_0000000", "streams", "tags"];
    for dear in tables.map(|table| format!("Seq Scan on {table}")) {
        assert!(!plan.contains(&dear), "{name} reads a whole table:\n{plan}");
    }
    // The rows of a page come in order from their index, so that the rest is never looked at. Where
    // only a page's worth can be found, it may be sorted.
    let few = ["follow_page_of_positions", "outbox_page_by", "outbox_page_of_positions"];
    // With the id at hand the planner knows how few events belong to it.
    let few_of_an_id = ["read_correlation", "read_causation"];
    let is_for_all = plan.contains("ROW($1");
    let is_bounded = few.iter().any(|few| name.starts_with(few))
        || !is_for_all && few_of_an_id.iter().any(|few| name.starts_with(few));
    // A page of a stream is cut off at its index, and put in order only then.
    let is_cut_off = name.starts_with("read_stream") && is_cut_off(plan);
    // The page of a tag is put in order above its limit, since its rows come from two tables.
    let below = match name.starts_with("read_tag") {
        true => plan.split_once("Limit").map_or(plan, |(_, below)| below),
        false => plan,
    };
    let is_sorted = below.contains("Sort");
    assert!(is_bounded || is_cut_off || !is_sorted, "{name} sorts what it reads:\n{plan}");
}

/// Whether the limit is directly on the index, and everything else above it.
fn is_cut_off(plan: &str) -> bool {
    let mut lines = plan.lines().skip_while(|line| !line.contains("Limit"));
    let below = lines.nth(1);
    below.is_some_and(|line| line.contains("Index Scan") && line.contains("events_stream_version"))
}

async fn prepare(connection: &mut PgConnection, name: &str, statement: &str) {
    let prepare = format!("deallocate all; prepare {name} as {statement}");
    let prepare = AssertSqlSafe(prepare);
    sqlx::raw_sql(prepare).execute(connection).await.must("prepare a statement");
}

async fn explain(connection: &mut PgConnection, name: &str, arguments: &str) -> String {
    let explain = format!("explain (costs off) execute {name} ({arguments})");
    let query = sqlx::query_scalar(AssertSqlSafe(explain)).persistent(false);
    let lines: Vec<String> = query.fetch_all(connection).await.must("explain a statement");
    lines.join("\n")
}
