//! Concurrent writers: a row is one append to two streams.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroUsize;

use annals_store::Store;
use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::flight::Flight;
use crate::rows::Row;

/// The acknowledged appends and their events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) flights: usize,
    pub(crate) events: usize,
}

/// Appends flights, each with its line of the file, by concurrent writers.
///
/// One writer appends all events of an aircraft: its legs are recorded in the order of the file.
pub(crate) async fn append_all(
    store: &Store,
    rows: Vec<(u64, Row)>,
    writers: NonZeroUsize,
    appended: &watch::Sender<Appended>,
) -> Result<()> {
    let mut shares = vec![Vec::new(); writers.get()];
    for row in rows {
        let writer = writer_of(&row.1, shares.len());
        if let Some(share) = shares.get_mut(writer) {
            share.push(row);
        }
    }
    let mut tasks = JoinSet::new();
    for share in shares {
        let (store, appended) = (store.clone(), appended.clone());
        tasks.spawn(async move {
            for row in share {
                append(&store, &row, &appended).await?;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

fn writer_of(row: &Row, writers: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    (&row.tailnum, row.tailnum.is_none().then_some(row.flight)).hash(&mut hasher);
    usize::try_from(hasher.finish() % writers as u64).unwrap_or(0)
}

/// Appends the events of one row, and counts them. Returns the flight.
pub(crate) async fn append(
    store: &Store,
    (line, row): &(u64, Row),
    appended: &watch::Sender<Appended>,
) -> Result<Flight> {
    let done = async {
        let flight = Flight::of(row)?;
        let append = flight.append()?;
        store.append(&append).await?;
        appended.send_modify(|appended| {
            appended.flights += 1;
            appended.events += append.events().len();
        });
        Ok::<_, anyhow::Error>(flight)
    };
    done.await.with_context(|| format!("append the flight of line {line}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use annals_testkit::Testbed;

    use super::*;
    use crate::rows;

    fn some_flights() -> Vec<(u64, Row)> {
        let mut rows = rows::read(&rows::month()).unwrap();
        rows.truncate(600);
        rows
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn concurrent_writers_append_each_flight_once_and_count_them() {
        let bed = Testbed::new("flights_writers").await;
        let rows = some_flights();
        let mut expected = BTreeMap::<String, Vec<String>>::new();
        for (_, row) in &rows {
            let flight = Flight::of(row).unwrap();
            let stream = flight.stream.to_string();
            expected.insert(stream.clone(), vec![stream.clone(); flight.events.len()]);
            let aircraft = flight.leg.iter().map(|(aircraft, _)| aircraft.to_string());
            aircraft.for_each(|it| expected.entry(it).or_default().push(stream.clone()));
        }
        let appended = watch::Sender::new(Appended::default());
        append_all(bed.store(), rows, NonZeroUsize::new(8).unwrap(), &appended).await.unwrap();

        let recorded = bed.recorded().await;
        let mut found = BTreeMap::<String, Vec<i64>>::new();
        for event in &recorded {
            found.entry(event.stream.clone()).or_default().push(event.version);
        }
        let versions = expected.iter().map(|(stream, events)| {
            (stream.clone(), (0..i64::try_from(events.len()).unwrap()).collect())
        });
        assert_eq!(found, versions.collect());
        assert_eq!(*appended.borrow(), Appended { flights: 600, events: recorded.len() });
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn flight_that_is_in_the_file_twice_is_refused_with_its_line() {
        let bed = Testbed::new("flights_twice").await;
        let mut rows = some_flights();
        rows.truncate(20);
        rows.push((22, rows[1].1.clone()));
        let appended = watch::Sender::new(Appended::default());
        let refused = append_all(bed.store(), rows, NonZeroUsize::MIN, &appended).await;
        let refused = format!("{:#}", refused.unwrap_err());
        assert!(refused.contains("line 22"), "{refused}");
        assert!(refused.contains("flight-2013-01-01-UA-1714-LGA is at version 2"), "{refused}");
    }
}
