//! Records that cannot be applied end the run, are passed and recorded, or are handled.

use std::num::NonZeroUsize;
use std::time::Duration;

use annals_consumer::{
    DeadLetter, DeadLetterHandler, DeliveredEvent, FailurePolicy, Projection, RunError, RunTotals,
};
use annals_testkit::{TopicBed, in_time};
use sqlx::{PgConnection, Row};
use tokio_util::sync::CancellationToken;

use crate::bed;
use crate::book;
use crate::events::{OrderEvent, placed};

/// Three records that are no events, and an event that cannot be decoded, between events of three
/// streams; the last record is no event. Of 7 events one is not decodable.
async fn write_poisoned(bed: &TopicBed, topic: &str) {
    let draft = |stream: &str, version| bed.draft(stream, version, &placed(1));
    bed.write(topic, &[draft("order-1", 0)]).await;
    bed.write_foreign(topic, Some("order-1"), None).await;
    bed.write(topic, &[draft("order-1", 1), draft("order-2", 0)]).await;
    bed.write_foreign(topic, None, Some(b"{\"hello\": 1}")).await;
    let mut longer = draft("order-1", 2);
    longer.value.extend_from_slice(b"trailing");
    bed.write(topic, &[longer, draft("order-1", 3), draft("order-3", 0)]).await;
    bed.write(topic, &[draft("order-2", 1)]).await;
    bed.write_foreign(topic, Some("test"), Some(b"\0test")).await;
}

async fn run(bed: &TopicBed, projection: &Projection) -> Result<RunTotals, RunError> {
    let shutdown = CancellationToken::new();
    in_time(bed.runner(projection).run_until(&shutdown, book::to_the_end, book::add)).await
}

#[derive(Debug)]
struct Letter {
    record_offset: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    stream: Option<String>,
    version: Option<i64>,
    error: String,
    headers: Vec<(String, Vec<u8>)>,
}

impl Letter {
    fn header(&self, name: &str) -> Option<&[u8]> {
        let (_, value) = self.headers.iter().rfind(|(header, _)| header == name)?;
        Some(value)
    }
}

async fn letters(bed: &TopicBed) -> Vec<Letter> {
    let all = "select record_offset, key, value, stream, version, error, header_names, header_values \
               from annals_projections.annals_projection_dead_letters \
               where projection = 'totals' order by record_offset";
    let rows = sqlx::query(all).fetch_all(&bed.pool).await.unwrap();
    let letters = rows.iter().map(|row| Letter {
        record_offset: row.get(0),
        key: row.get(1),
        value: row.get(2),
        stream: row.get(3),
        version: row.get(4),
        error: row.get(5),
        headers: row.get::<Vec<_>, _>(6).into_iter().zip(row.get::<Vec<_>, _>(7)).collect(),
    });
    letters.collect()
}

#[tokio::test]
async fn records_that_cannot_be_applied_are_passed_and_kept_with_place_bytes_and_error() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    write_poisoned(&bed, &topic).await;
    let stopping = bed.projection(&[&topic]).await;
    for _ in 0..2 {
        let error = run(&bed, &stopping).await.unwrap_err();
        assert!(error.to_string().contains("[0]@1"), "stops by default: {error}");
    }

    let passing = stopping.unreadable_records(FailurePolicy::DeadLetter);
    let totals = run(&bed, &passing).await.unwrap();
    assert_eq!((totals.events, totals.dead_letters, totals.duplicates), (5, 4, 0));
    assert_eq!(book::sums(&bed.pool).await, (3, 6, 6));
    let letters = letters(&bed).await;
    let places: Vec<i64> = letters.iter().map(|letter| letter.record_offset).collect();
    assert_eq!(places, [1, 4, 5, 9]);
    assert_eq!((letters[0].key.as_deref(), &letters[0].value), (Some(&b"order-1"[..]), &None));
    assert_eq!(letters[1].value.as_deref(), Some(&b"{\"hello\": 1}"[..]));
    assert_eq!((letters[2].stream.as_deref(), letters[2].version), (Some("order-1"), Some(2)));
    assert!(letters[2].value.as_ref().unwrap().ends_with(b"trailing"));
    assert_eq!(letters[0].header("producer"), Some(&b"another"[..]), "{:?}", letters[0]);
    assert!(letters.iter().all(|letter| !letter.error.is_empty()));

    let again = run(&bed, &passing).await.unwrap();
    assert_eq!(again, RunTotals::default(), "the last record is verified, though it is no event");
    bed.write(&topic, &[bed.draft("order-1", 4, &placed(1))]).await;
    assert_eq!(run(&bed, &passing).await.unwrap().events, 1);
}

/// Counts the dead letters, each in the transaction of its offset.
fn counting() -> FailurePolicy {
    FailurePolicy::Handle(DeadLetterHandler::new(|connection, letter| {
        Box::pin(async move {
            let count = "insert into letters values ($1)";
            sqlx::query(count).bind(letter.location().offset.get()).execute(connection).await?;
            match letter {
                DeadLetter::Rejected(_, error) => Err(error.to_string().into()),
                _ => Ok(()),
            }
        })
    }))
}

/// The dead letters that were counted, and their different places.
async fn letter_counts(bed: &TopicBed) -> (i64, i64) {
    let counts = "select count(*), count(distinct place) from letters";
    sqlx::query_as(counts).fetch_one(&bed.pool).await.unwrap()
}

#[tokio::test]
async fn handler_of_dead_letters_commits_with_the_offset_over_kills() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    sqlx::raw_sql("create table letters (place bigint)").execute(&bed.pool).await.unwrap();
    for version in 0..40 {
        bed.write(&topic, &book::orders(&bed, 5, version..version + 1)).await;
        bed.write_foreign(&topic, Some("test"), Some(b"no event")).await;
    }
    let few = NonZeroUsize::new(3).unwrap();
    let projection = bed.projection(&[&topic]).await.batch_events_max(few);
    let projection = projection.unreadable_records(counting());
    // Killed later and later, until the killed runs have got half-way.
    let mut kills = 0;
    while kills < 20 || letter_counts(&bed).await.0 < 20 {
        let shutdown = CancellationToken::new();
        let run = bed.runner(&projection).run(&shutdown, book::add);
        let killed = tokio::time::timeout(Duration::from_millis(kills * 10), run).await;
        assert!(killed.is_err(), "{killed:?}");
        kills += 1;
    }
    run(&bed, &projection).await.unwrap();
    assert_eq!(book::sums(&bed.pool).await, book::sums_of(5, 40));
    assert_eq!(letter_counts(&bed).await, (40, 40));
}

/// Refuses one event, after it has written it.
async fn refuse_one(
    connection: &mut PgConnection,
    events: &[DeliveredEvent<OrderEvent>],
) -> Result<(), sqlx::Error> {
    for event in events {
        book::add_one(connection, event).await?;
        if event.delivered.stream == "order-2" && event.delivered.version.get() == 3 {
            return Err(sqlx::Error::RowNotFound);
        }
    }
    Ok(())
}

#[tokio::test]
async fn rejected_event_is_passed_without_a_trace_and_its_stream_continues() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    bed.write(&topic, &book::orders(&bed, 4, 0..6)).await;
    let projection = bed.projection(&[&topic]).await.rejected_events(FailurePolicy::DeadLetter);
    let shutdown = CancellationToken::new();
    let run = bed.runner(&projection).run_until(&shutdown, book::to_the_end, refuse_one);
    let totals = in_time(run).await.unwrap();
    assert_eq!((totals.events, totals.dead_letters), (23, 1));
    let (streams, events, amount) = book::sums_of(4, 6);
    assert_eq!(book::sums(&bed.pool).await, (streams, events - 1, amount - 5));
    let letters = letters(&bed).await;
    assert_eq!((letters[0].stream.as_deref(), letters[0].version), (Some("order-2"), Some(3)));
}

#[tokio::test]
async fn error_of_the_handler_of_dead_letters_ends_the_run_and_commits_nothing_of_the_record() {
    let bed = bed().await;
    let topic = bed.create_topic(1).await;
    book::open(&bed.pool).await;
    sqlx::raw_sql("create table letters (place bigint)").execute(&bed.pool).await.unwrap();
    bed.write(&topic, &book::orders(&bed, 4, 0..6)).await;
    let projection = bed.projection(&[&topic]).await.rejected_events(counting());
    for _ in 0..2 {
        let shutdown = CancellationToken::new();
        let run = bed.runner(&projection).run_until(&shutdown, book::to_the_end, refuse_one);
        let error = in_time(run).await.unwrap_err();
        let RunError::DeadLetter { location, .. } = &error else { panic!("{error:?}") };
        assert_eq!(location.offset.get(), 14);
    }
    let counts = "select count(*) from letters";
    let counts: i64 = sqlx::query_scalar(counts).fetch_one(&bed.pool).await.unwrap();
    assert_eq!(counts, 0);
}
