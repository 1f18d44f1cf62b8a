//! Outbox rows that every deployment has published are dropped, and no others: no follower or relay
//! misses an event by it, and none waits for it.

use std::pin::pin;

use annals_store::outbox::{Bound, NextPage, OutboxRow, Window};
use annals_store::{Append, Checkpoint, ExpectedVersion, Follow, Position, Store};
use annals_testkit::{
    Dice, Load, LoadOptions, Must, Pace, RelayProcess, Testbed, account, check, deposited,
    repetitions,
};
use futures_util::TryStreamExt;
use sqlx::{Connection, PgConnection, Row};

const SHARDS: i32 = 8;

async fn connect(bed: &Testbed) -> PgConnection {
    PgConnection::connect(&bed.database_url()).await.must("connect")
}

/// A connection with the rights of a relay.
async fn connect_as_relay(bed: &Testbed) -> PgConnection {
    let url = format!("{}?options=-c%20role%3Dannals_relay", bed.database_url());
    PgConnection::connect(&url).await.must("connect")
}

async fn append(store: &Store, id: &str, sequences: std::ops::Range<i64>) {
    let append = Append::to(&account(id), ExpectedVersion::Any, sequences.map(deposited));
    store.append(&append).await.must("append");
}

async fn next_partition(connection: &mut PgConnection) {
    let jump = sqlx::query(include_str!("sql/next_partition.sql"));
    jump.execute(connection).await.must("go to the next partition");
}

/// Like a relay that has published everything up to now.
async fn publish(connection: &mut PgConnection, deployment: &str, shards: i32) {
    let write = sqlx::query(include_str!("sql/checkpoints_now.sql")).bind(deployment).bind(shards);
    write.execute(connection).await.must("write checkpoints");
}

async fn dropped(bed: &Testbed) -> i64 {
    let mut connection = connect_as_relay(bed).await;
    bed.store().drop_published_outbox(&mut connection).await.must("drop the published partitions")
}

async fn outbox_size(connection: &mut PgConnection) -> (i64, i64) {
    let size = sqlx::query(include_str!("sql/outbox_size.sql"));
    let row = size.fetch_one(connection).await.must("measure the outbox");
    (row.get("partitions"), row.get("bytes"))
}

#[tokio::test]
async fn what_one_deployment_has_not_published_stays_until_it_is_forgotten() {
    let bed = Testbed::new("drop_slow").await;
    let mut connection = connect(&bed).await;
    append(bed.store(), "a", 0..500).await;
    assert_eq!(dropped(&bed).await, 0, "no relay has ever published");
    publish(&mut connection, "slow", SHARDS).await;
    next_partition(&mut connection).await;
    append(bed.store(), "a", 500..510).await;
    publish(&mut connection, "fast", SHARDS).await;
    assert_eq!(dropped(&bed).await, 0, "slow is still below the end of the partition");
    publish(&mut connection, "slow", SHARDS).await;
    publish(&mut connection, "new", 3).await;
    assert_eq!(dropped(&bed).await, 0, "new has published three shards only");

    let before = outbox_size(&mut connection).await;
    let forget =
        sqlx::query_scalar("select checkpoints from annals.relay_forget($1, 'a test')").bind("new");
    let forgotten: i64 = forget.fetch_one(&mut connection).await.must("forget a deployment");
    assert_eq!((forgotten, dropped(&bed).await), (3, 1));
    let after = outbox_size(&mut connection).await;
    assert!(after.0 == before.0 - 1 && after.1 < before.1, "{before:?} became {after:?}");
    assert_eq!(dropped(&bed).await, 0, "the current partition stays");
}

#[tokio::test]
async fn what_a_relay_has_passed_in_a_long_window_is_dropped_before_the_window_ends() {
    let bed = Testbed::new("drop_within").await;
    let mut connection = connect(&bed).await;
    append(bed.store(), "a", 0..10).await;
    let mut open = bed.store().pool().begin().await.must("begin");
    let late = Append::to(&account("late"), ExpectedVersion::Any, [deposited(0)]);
    bed.store().append_in(&mut open, &late).await.must("append");
    next_partition(&mut connection).await;
    append(bed.store(), "a", 10..20).await;
    let within = async |connection: &mut PgConnection| {
        let until = bed.store().log_end(connection).await.must("look").bound;
        let write =
            sqlx::query(include_str!("sql/checkpoints_within.sql")).bind("relay").bind(SHARDS);
        write.bind(until.snapshot).execute(connection).await.must("write checkpoints");
    };
    within(&mut connection).await;
    assert_eq!(dropped(&bed).await, 0, "an append is open");
    open.commit().await.must("commit");
    assert_eq!(dropped(&bed).await, 0, "the window's end has not seen it");
    within(&mut connection).await;
    assert_eq!(dropped(&bed).await, 1);
    assert_eq!(dropped(&bed).await, 0, "the current partition stays");
}

#[tokio::test]
async fn whoever_uses_the_outbox_only_delays_the_drop_and_appends_go_on() {
    let bed = Testbed::new("drop_waits").await;
    let mut connection = connect(&bed).await;
    append(bed.store(), "a", 0..10).await;
    next_partition(&mut connection).await;
    append(bed.store(), "a", 10..20).await;
    publish(&mut connection, "relay", SHARDS).await;

    let mut reader = connection.begin().await.must("begin");
    outbox_read(&mut reader).await;
    assert_eq!(dropped(&bed).await, 0, "a backup reads the partition");
    append(bed.store(), "a", 20..21).await;
    reader.commit().await.must("commit");

    let mut appender = bed.store().pool().begin().await.must("begin");
    let open = Append::to(&account("b"), ExpectedVersion::Any, [deposited(0)]);
    bed.store().append_in(&mut appender, &open).await.must("append");
    let during = async {
        for sequence in 21..40 {
            append(bed.store(), "a", sequence..sequence + 1).await;
        }
    };
    let (dropped_meanwhile, ()) = tokio::join!(dropped(&bed), during);
    assert_eq!(dropped_meanwhile, 0, "an append is open");
    appender.commit().await.must("commit");
    assert_eq!(dropped(&bed).await, 1);
    append(bed.store(), "a", 40..41).await;
    assert_eq!(bed.recorded().await.len(), 42);
}

/// It has no event: so a window that began while it was open has none in a dropped partition.
#[tokio::test]
async fn a_foreign_transaction_left_open_has_no_page_read_what_was_dropped() {
    let bed = Testbed::new("drop_foreign").await;
    let (mut connection, mut other) = (connect(&bed).await, connect(&bed).await);
    append(bed.store(), "a", 0..10).await;
    let mut foreign = other.begin().await.must("begin");
    let id = sqlx::query(include_str!("sql/take_transaction_id.sql"));
    id.execute(&mut *foreign).await.must("take a transaction id");
    append(bed.store(), "a", 10..20).await;
    next_partition(&mut connection).await;
    append(bed.store(), "a", 20..30).await;
    publish(&mut connection, "relay", SHARDS).await;
    assert_eq!(dropped(&bed).await, 1);
    let since = bed.store().log_end(&mut connection).await.must("look").bound;
    let late = bed.store().late_events(&mut connection, &since).await.must("find late events");
    assert_eq!(late, None, "while it is open");
    foreign.rollback().await.must("roll back");
    let late = bed.store().late_events(&mut connection, &since).await.must("find late events");
    assert_eq!(late, None, "when it has ended");
}

async fn outbox_read(connection: &mut PgConnection) {
    let read = sqlx::query("select count(*) from annals.outbox");
    read.fetch_one(connection).await.must("read the outbox");
}

/// A log whose first partition is dropped, with an append that began before `since` and ended after
/// it.
struct Dropped {
    bed: Testbed,
    since: Bound,
    checkpoint: Checkpoint,
}

impl Dropped {
    const EARLY: usize = 5;
    /// Two that were open at `since`, three after it, four in the remaining partition.
    const LATER: usize = 9;

    async fn new(label: &str) -> Self {
        let bed = Testbed::new(label).await;
        let mut connection = connect(&bed).await;
        append(bed.store(), "a", 0..2).await;
        let mut open = bed.store().pool().begin().await.must("begin");
        let late = Append::to(&account("late"), ExpectedVersion::Any, (0..2).map(deposited));
        bed.store().append_in(&mut open, &late).await.must("append");
        append(bed.store(), "a", 2..5).await;
        let since = bed.store().log_end(&mut connection).await.must("look").bound;
        let checkpoint = bed.store().end_of_log().await.must("look");
        append(bed.store(), "a", 5..8).await;
        next_partition(&mut connection).await;
        append(bed.store(), "a", 8..12).await;

        publish(&mut connection, "relay", SHARDS).await;
        assert_eq!(dropped(&bed).await, 0, "the open append is unpublished");
        open.commit().await.must("commit");
        assert_eq!(dropped(&bed).await, 0, "the checkpoint has not seen it");
        publish(&mut connection, "relay", SHARDS).await;
        assert_eq!(dropped(&bed).await, 1);
        Self { bed, since, checkpoint }
    }

    async fn make_windows_large(&self) {
        let mut connection = connect(&self.bed).await;
        let use_up = sqlx::raw_sql(include_str!("sql/use_up_transaction_ids.sql"));
        use_up.execute(&mut connection).await.must("use up transaction ids");
    }

    /// The positions of the events that a relay publishes after a bound.
    async fn window(&self, since: &Bound) -> Vec<Position> {
        let store = self.bed.store();
        let mut connection = connect_as_relay(&self.bed).await;
        let until = store.log_end(&mut connection).await.must("look").bound;
        let window = Window { since, until: &until };
        let late = store.late_events(&mut connection, since).await.must("find late events");
        let shards: Vec<i16> = (0..8).collect();
        let (mut events, mut after) = (Vec::new(), Position::ORIGIN);
        loop {
            let (page, end): (Vec<OutboxRow>, Position) =
                match window.next_page(late.as_ref(), after) {
                    NextPage::End => return events,
                    NextPage::OfPositions(positions) => {
                        let few = &positions[..positions.len().min(2)];
                        let page =
                            store.outbox_page_of_positions(&mut connection, window, &shards, few);
                        (page.try_collect().await.must("read a page"), few[few.len() - 1])
                    }
                    NextPage::ByPosition(page) => {
                        let last = page.last;
                        let page =
                            store.outbox_page_by_position(&mut connection, window, &shards, page);
                        (page.try_collect().await.must("read a page"), last)
                    }
                };
            events.extend(positions(&page));
            after = end;
        }
    }

    async fn followed(&self) -> Vec<Position> {
        let follow = Follow::all().after(self.checkpoint.clone());
        let mut log = pin!(self.bed.store().follow(follow));
        let mut positions = Vec::new();
        while positions.len() < Self::LATER {
            let next = log.try_next().await.must("follow").must("follow for ever");
            positions.push(next.event.position);
        }
        positions
    }

    async fn assert_complete(&self) {
        let recorded: Vec<_> = self.bed.recorded().await;
        let all = self.window(&Bound::origin()).await;
        assert_eq!(all.len(), recorded.len(), "a new deployment gets all of history");
        let later = self.window(&self.since).await;
        assert_eq!(
            later.len(),
            Self::LATER,
            "a relay gets what became visible after its checkpoint"
        );
        assert_eq!(all.len(), Self::EARLY + Self::LATER);
        assert!(later.is_sorted());
        assert_eq!(self.followed().await, later, "so does a follower");
    }
}

#[tokio::test]
async fn a_small_window_that_reaches_back_to_what_was_dropped_is_complete() {
    Dropped::new("drop_live").await.assert_complete().await;
}

#[tokio::test]
async fn a_large_window_that_reaches_back_to_what_was_dropped_is_complete() {
    let dropped = Dropped::new("drop_page").await;
    dropped.make_windows_large().await;
    dropped.assert_complete().await;
}

#[tokio::test]
async fn a_new_deployment_publishes_history_that_left_the_outbox() {
    let Dropped { bed, .. } = Dropped::new("drop_history").await;
    let follower = bed.follow();
    let _relay = RelayProcess::start(&bed.relay());
    follower.until_count(Dropped::EARLY + Dropped::LATER).await;
    append(bed.store(), "a", 12..14).await;
    follower.until_count(Dropped::EARLY + Dropped::LATER + 2).await;
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

/// An old database: its events left the outbox long ago, and services go on writing while the new
/// deployment publishes them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_database_is_published_from_its_first_event_into_live_while_services_write() {
    const LOAD: LoadOptions =
        LoadOptions { writers: 2, streams: 12, ahead_events_max: 500, pace: Pace::Bursts };
    let bed = Testbed::new("drop_old").await;
    let mut connection = connect(&bed).await;
    append(bed.store(), "old", 0..1).await;
    let history = repetitions(20_000, 1_000_000);
    let fill = sqlx::query(include_str!("sql/fill_history.sql"));
    let fill = fill.bind(i64::try_from(history).must("count")).execute(&mut connection).await;
    assert_eq!(fill.must("fill the store").rows_affected(), history as u64);
    next_partition(&mut connection).await;
    append(bed.store(), "old", 1..2).await;
    publish(&mut connection, "earlier", SHARDS).await;
    assert_eq!(dropped(&bed).await, 1);

    let follower = bed.follow();
    let load = Load::start(bed.store(), &LOAD, &mut Dice::of_this_run(), &follower.counter());
    load.until_acknowledged(100).await;
    let mut relay = RelayProcess::start(&bed.relay());
    follower.until_count(history).await;
    load.until_acknowledged(load.acknowledged() + 100).await;
    let attempts = load.stop().await;
    follower.caught_up(&bed.recorded().await).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(attempts).await), []);
}

fn positions(rows: &[OutboxRow]) -> Vec<Position> {
    rows.iter().map(|row| row.event().must("read an event").position).collect()
}
