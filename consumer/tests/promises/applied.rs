//! A read model that lists the applied events, and its checker.

use std::collections::BTreeMap;

use annals_consumer::DeliveredEvent;
use sqlx::{PgConnection, PgPool};

use crate::events::OrderEvent;

pub(crate) async fn open(pool: &PgPool) {
    let create = "create table applied (number bigserial primary key, stream text not null, \
                  version bigint not null, member text not null)";
    sqlx::raw_sql(create).execute(pool).await.unwrap();
}

pub(crate) async fn add(
    connection: &mut PgConnection,
    events: &[DeliveredEvent<OrderEvent>],
    member: &str,
) -> Result<(), sqlx::Error> {
    let streams: Vec<&str> = events.iter().map(|event| event.delivered.stream.as_str()).collect();
    let versions: Vec<i64> = events.iter().map(|event| event.delivered.version.get()).collect();
    let add = "insert into applied (stream, version, member) select stream, version, $3 \
               from unnest($1::text[], $2::bigint[]) with ordinality as e (stream, version, n) \
               order by n";
    sqlx::query(add).bind(streams).bind(versions).bind(member).execute(connection).await?;
    Ok(())
}

/// Every applied event, in the order of application.
pub(crate) async fn all(pool: &PgPool) -> Vec<(String, i64)> {
    let all = "select stream, version from applied order by number";
    sqlx::query_as(all).fetch_all(pool).await.unwrap()
}

/// Waits until so many events were applied, repetitions included: however slow the machine is, as
/// long as more are applied within each deadline.
pub(crate) async fn until(pool: &PgPool, events: i64) {
    let count = "select count(*) from applied";
    let mut applied = 0;
    while applied < events {
        let before = applied;
        let are_more = async || {
            applied = sqlx::query_scalar(count).fetch_one(pool).await.unwrap();
            applied > before
        };
        annals_testkit::until("more events are applied", are_more).await;
    }
}

/// The first violation of "once, and in order", of so many versions of each stream.
pub(crate) fn violation(applied: &[(String, i64)], streams: i64, versions: i64) -> Option<String> {
    let mut next: BTreeMap<&str, i64> = BTreeMap::new();
    for (stream, version) in applied {
        let expected = next.entry(stream).or_default();
        if version != expected {
            return Some(format!("{stream}: version {version} came instead of {expected}"));
        }
        *expected += 1;
    }
    let complete = next.values().filter(|count| **count == versions).count();
    (i64::try_from(complete).unwrap() != streams)
        .then(|| format!("{complete} of {streams} streams have all {versions} versions: {next:?}"))
}

#[test]
fn checker_catches_what_is_lost_repeated_or_out_of_order() {
    let of = |versions: &[i64]| -> Vec<(String, i64)> {
        versions.iter().map(|version| ("order-1".to_owned(), *version)).collect()
    };
    assert_eq!(violation(&of(&[0, 1, 2]), 1, 3), None);
    for faulty in [&[0, 1][..], &[0, 2, 1], &[0, 1, 1, 2], &[0, 2], &[1, 2], &[]] {
        assert!(violation(&of(faulty), 1, 3).is_some(), "{faulty:?}");
    }
}
