//! Concurrent writers: a row is one append over two streams.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

use annals_store::{Append, AppendError, Store};
use anyhow::{Context, Result};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::happenings::Happenings;
use crate::rows::{self, Row};

const ROWS_WAITING_MAX: usize = 64;
const RETRY_DELAY: Duration = Duration::from_millis(100);
const RETRIES_DEADLINE: Duration = Duration::from_secs(60);

/// The events that the store has acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) flights: u64,
    pub(crate) events: u64,
    pub(crate) aircraft_events: u64,
    /// Appends that had to be tried again.
    pub(crate) retries: u64,
}

/// A row and the line of the file it begins on.
type Line = (u64, Row);

/// Appends the first flight of a file. Returns the names of its streams.
pub(crate) async fn append_first(
    store: &Store,
    csv: &Path,
    appended: &watch::Sender<Appended>,
) -> Result<Vec<String>> {
    let mut reader = rows::read(csv)?;
    let row: Row = reader.deserialize().next().context("the file has no flights")??;
    let happened = Happenings::of(&row)?;
    append_row(store, &(2, row), appended).await?;
    let aircraft = happened.of_aircraft.map(|(stream, _)| stream);
    Ok([Some(happened.flight), aircraft].into_iter().flatten().map(String::from).collect())
}

/// Appends all flights of a file but the first, by so many writers at the same time.
///
/// All events of an aircraft go to the same writer: its legs are recorded in the order of the file.
pub(crate) async fn append_rest(
    store: &Store,
    csv: &Path,
    writers: NonZeroUsize,
    appended: &watch::Sender<Appended>,
) -> Result<()> {
    let mut tasks = JoinSet::new();
    let mut inboxes = Vec::new();
    for _ in 0..writers.get() {
        let (inbox, lines) = mpsc::channel(ROWS_WAITING_MAX);
        inboxes.push(inbox);
        tasks.spawn(write(store.clone(), lines, appended.clone()));
    }
    let csv = csv.to_owned();
    tasks.spawn_blocking(move || deal(&csv, &inboxes));
    while let Some(ended) = tasks.join_next().await {
        ended.context("a writer broke")??;
    }
    Ok(())
}

/// Reads the file and deals its rows to the writers. Waits for a writer that has enough to do.
fn deal(csv: &Path, inboxes: &[mpsc::Sender<Line>]) -> Result<()> {
    let mut reader = rows::read(csv)?;
    let mut rows = reader.deserialize::<Row>();
    rows.next().transpose()?;
    loop {
        let line = rows.reader().position().line();
        let Some(row) = rows.next() else { break };
        let row = row.with_context(|| format!("read {}", csv.display()))?;
        let Some(inbox) = inboxes.get(writer_of(&row, inboxes.len())) else { break };
        if inbox.blocking_send((line, row)).is_err() {
            // The writer failed, and its error is the one that counts.
            break;
        }
    }
    Ok(())
}

fn writer_of(row: &Row, writers: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    match &row.tailnum {
        Some(tail_number) => tail_number.hash(&mut hasher),
        None => (&row.carrier, row.flight).hash(&mut hasher),
    }
    let writers = u64::try_from(writers).unwrap_or(u64::MAX);
    usize::try_from(hasher.finish() % writers).unwrap_or(0)
}

async fn write(
    store: Store,
    mut lines: mpsc::Receiver<Line>,
    appended: watch::Sender<Appended>,
) -> Result<()> {
    while let Some(line) = lines.recv().await {
        append_row(&store, &line, &appended).await?;
    }
    Ok(())
}

async fn append_row(
    store: &Store,
    (line, row): &Line,
    appended: &watch::Sender<Appended>,
) -> Result<()> {
    let at = || format!("append the flight of line {line}");
    let happened = Happenings::of(row).with_context(at)?;
    let append = happened.append().with_context(at)?;
    let retries = append_until_known(store, &append).await.with_context(at)?;
    appended.send_modify(|appended| {
        appended.flights += 1;
        appended.events += append.events().len() as u64;
        appended.aircraft_events += u64::from(happened.of_aircraft.is_some());
        appended.retries += retries;
    });
    Ok(())
}

/// Tries with the same events, which is always safe, while that can succeed. Returns how often it
/// had to try again.
async fn append_until_known(store: &Store, append: &Append) -> Result<u64, AppendError> {
    let begun = Instant::now();
    let mut retries = 0;
    loop {
        match store.append(append).await {
            Ok(_) => return Ok(retries),
            Err(error) if error.is_retryable() && begun.elapsed() < RETRIES_DEADLINE => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "appending the same events again"
                );
                tokio::time::sleep(RETRY_DELAY).await;
                retries += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};

    use annals_testkit::Testbed;

    use super::*;
    use crate::topics::{Contents, of_store};

    /// The header and so many flights of the month, as a plain file.
    fn some_flights(bed: &Testbed, flights: usize, extra: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("{}.csv", bed.name()));
        let month = flate2::read::GzDecoder::new(std::fs::File::open(rows::month()).unwrap());
        let mut file = std::fs::File::create(&path).unwrap();
        for line in BufReader::new(month).lines().take(flights + 1) {
            writeln!(file, "{}", line.unwrap()).unwrap();
        }
        write!(file, "{extra}").unwrap();
        path
    }

    fn expected(csv: &Path) -> (Contents, Contents) {
        let mut streams = (Contents::default(), Contents::default());
        for row in rows::read(csv).unwrap().into_deserialize::<Row>() {
            let happened = Happenings::of(&row.unwrap()).unwrap();
            for version in 0..happened.of_flight.len() {
                streams.0.add(happened.flight.as_str(), i64::try_from(version).unwrap());
            }
            if let Some((aircraft, _)) = &happened.of_aircraft {
                let version = streams.1.last.get(aircraft.as_str()).map_or(0, |last| last + 1);
                streams.1.add(aircraft.as_str(), version);
            }
        }
        streams
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn concurrent_writers_append_each_flight_once_and_say_how_much() {
        let bed = Testbed::new("flights_writers").await;
        let csv = some_flights(&bed, 600, "");
        let appended = watch::Sender::new(Appended::default());
        let writers = NonZeroUsize::new(8).unwrap();
        append_first(bed.store(), &csv, &appended).await.unwrap();
        append_rest(bed.store(), &csv, writers, &appended).await.unwrap();

        let (flights, aircraft) = expected(&csv);
        assert_eq!(of_store(bed.store(), "flight").await.unwrap(), flights);
        assert_eq!(of_store(bed.store(), "aircraft").await.unwrap(), aircraft);
        let appended = *appended.borrow();
        assert_eq!(appended.flights, 600);
        assert_eq!(appended.events, flights.events + aircraft.events);
        assert_eq!(appended.aircraft_events, aircraft.events);
        std::fs::remove_file(csv).unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn flight_that_is_in_the_file_twice_is_refused_with_its_line() {
        let bed = Testbed::new("flights_twice").await;
        let twice = "2013,1,1,533,529,4,850,830,20,UA,1714,N24211,LGA,IAH,227,1416,5,29,2013-01-01T10:00:00Z\n";
        let csv = some_flights(&bed, 20, twice);
        let appended = watch::Sender::new(Appended::default());
        let refused =
            append_rest(bed.store(), &csv, NonZeroUsize::MIN, &appended).await.unwrap_err();
        let refused = format!("{refused:#}");
        assert!(refused.contains("line 22"), "{refused}");
        assert!(refused.contains("flight-2013-01-01-UA-1714-LGA is at version 2"), "{refused}");
        std::fs::remove_file(csv).unwrap();
    }
}
