//! The read model: two tables, and the effect of events on them.

use std::collections::BTreeSet;

use annals_consumer::DeliveredEvent;
use annals_store::EventSet;
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use sqlx::postgres::{PgConnectOptions, PgQueryResult};
use sqlx::types::Json;
use sqlx::{Executor, PgConnection, PgPool};

use crate::events::{AircraftEvent, FlightEvent};

/// An event as the statements read it: its type and stream beside its own fields.
#[derive(Debug, Serialize)]
struct Record<'a, E> {
    r#type: &'static str,
    stream: &'a str,
    #[serde(flatten)]
    event: &'a E,
}

impl<'a, E: EventSet> Record<'a, E> {
    fn new(stream: &'a str, event: &'a E) -> Self {
        Self { r#type: event.event_type(), stream, event }
    }

    fn all(events: &'a [DeliveredEvent<E>]) -> Vec<Self> {
        events.iter().map(|it| Self::new(&it.delivered.stream, &it.data)).collect()
    }
}

/// Connects, and creates the tables.
///
/// The server keeps the plans that it makes while the tables are almost empty: they must not read
/// whole tables.
pub(crate) async fn create(database_url: &str) -> Result<PgPool> {
    let options: PgConnectOptions = database_url.parse()?;
    let options = options.options([("enable_seqscan", "off"), ("jit", "off")]);
    let pool = PgPool::connect_with(options).await.context("connect to the read model")?;
    pool.execute(include_str!("../sql/read_model_create.sql")).await?;
    Ok(pool)
}

/// Applies events of flights.
pub(crate) async fn apply_flights(
    connection: &mut PgConnection,
    events: &[DeliveredEvent<FlightEvent>],
) -> Result<()> {
    apply_flight_records(connection, &Record::all(events)).await
}

async fn apply_flight_records(
    connection: &mut PgConnection,
    events: &[Record<'_, FlightEvent>],
) -> Result<()> {
    execute(connection, include_str!("../sql/flights_scheduled.sql"), events).await?;
    let changed = execute(connection, include_str!("../sql/flights_changed.sql"), events).await?;
    let is_change = |it: &&Record<'_, _>| !matches!(it.event, FlightEvent::FlightScheduled(_));
    let streams: BTreeSet<_> = events.iter().filter(is_change).map(|it| it.stream).collect();
    let (found, streams) = (changed.rows_affected(), streams.len());
    ensure!(found == streams as u64, "{found} of {streams} flights are in the read model");
    Ok(())
}

/// Applies events of aircraft.
pub(crate) async fn apply_aircraft(
    connection: &mut PgConnection,
    events: &[DeliveredEvent<AircraftEvent>],
) -> Result<()> {
    execute(connection, include_str!("../sql/aircraft_flew.sql"), &Record::all(events)).await?;
    Ok(())
}

async fn execute<E: Serialize>(
    connection: &mut PgConnection,
    statement: &'static str,
    events: &[Record<'_, E>],
) -> Result<PgQueryResult> {
    let query = sqlx::query(statement).bind(Json(events));
    query.execute(connection).await.context("write events to the read model")
}

#[cfg(test)]
mod tests {
    use annals_testkit::Testbed;

    use super::*;
    use crate::events::{AircraftFlewLeg, FlightCancelled};
    use crate::flight::Flight;
    use crate::rows;
    use crate::totals;

    async fn fly(connection: &mut PgConnection, legs: &[(&str, &AircraftEvent)]) {
        let legs: Vec<_> = legs.iter().map(|(s, leg)| Record::new(s, *leg)).collect();
        execute(connection, include_str!("../sql/aircraft_flew.sql"), &legs).await.unwrap();
    }

    /// Applies the month as the projections do, in batches, without Kafka between.
    async fn fill(connection: &mut PgConnection) {
        let rows = rows::read(&rows::month()).unwrap();
        let month: Vec<Flight> = rows.iter().map(|(_, row)| Flight::of(row).unwrap()).collect();
        for flights in month.chunks(5_000) {
            let of = |it: &'_ Flight| (it.stream.clone(), it.events.clone());
            let batch: Vec<_> = flights.iter().map(of).collect();
            let records = batch.iter().flat_map(|(stream, events)| {
                events.iter().map(move |event| Record::new(stream.as_str(), event))
            });
            apply_flight_records(connection, &records.collect::<Vec<_>>()).await.unwrap();
            let legs = flights.iter().filter_map(|it| it.leg.as_ref());
            fly(connection, &legs.map(|(stream, leg)| (stream.as_str(), leg)).collect::<Vec<_>>())
                .await;
        }
    }

    async fn differences(pool: &PgPool) -> Vec<String> {
        let file = totals::of_file(&rows::month()).unwrap();
        totals::differences(&file, &totals::of_read_model(pool).await.unwrap())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn month_adds_up_and_one_lost_row_or_one_doubled_leg_shows() {
        let bed = Testbed::new("flights_read_model").await;
        let pool = create(&bed.database_url()).await.unwrap();
        let mut connection = pool.acquire().await.unwrap();
        fill(&mut connection).await;
        assert_eq!(differences(&pool).await, Vec::<String>::new());

        let lose =
            "delete from flights_read_model.flights where stream = 'flight-2013-01-01-UA-1545-EWR'";
        sqlx::query(lose).execute(&mut *connection).await.unwrap();
        let found = differences(&pool).await;
        let expected = [
            "flights of all: 27,004 in the file, 27,003 out of Kafka",
            "arrived of carrier UA: 4,590 in the file, 4,589 out of Kafka",
        ];
        assert!(expected.iter().all(|it| found.contains(&(*it).to_owned())), "{found:?}");
        let is_of_this_flight = |it: &String| {
            ["of all", "carrier UA", "destination IAH"].iter().any(|of| it.contains(of))
        };
        assert!(found.iter().all(is_of_this_flight), "{found:?}");

        let leg = AircraftFlewLeg {
            flight: "flight-2013-01-01-UA-1545-EWR".into(),
            origin: "EWR".into(),
            destination: "IAH".into(),
            departed_at: "2013-01-01T10:17:00Z".parse().unwrap(),
            distance_miles: 1400,
            air_time_minutes: 227,
        };
        fly(&mut connection, &[("aircraft-N14228", &leg.into())]).await;
        let found = differences(&pool).await;
        let miles = "miles of all: 26,755,517 in the file, 26,756,917 out of Kafka";
        assert!(found.contains(&miles.to_owned()), "{found:?}");
        assert!(found.iter().any(|it| it.starts_with("legs of aircraft N14228")), "{found:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn event_of_a_flight_that_was_never_scheduled_is_refused() {
        let bed = Testbed::new("flights_unscheduled").await;
        let pool = create(&bed.database_url()).await.unwrap();
        let mut connection = pool.acquire().await.unwrap();
        let scheduled_departure = "2013-01-01T10:17:00Z".parse().unwrap();
        let event = FlightCancelled { scheduled_departure }.into();
        let record = Record::new("flight-2013-01-01-UA-1545-EWR", &event);
        let refused = apply_flight_records(&mut connection, &[record]).await.unwrap_err();
        assert_eq!(refused.to_string(), "0 of 1 flights are in the read model");
    }
}
