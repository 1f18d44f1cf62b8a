//! The read model: two tables, and what events do to them.

use annals_consumer::DeliveredEvent;
use anyhow::{Context, Result};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Executor, PgConnection, PgPool};

use crate::events::{
    AircraftEvent, AircraftFlewLeg, FlightArrived, FlightDeparted, FlightEvent, FlightScheduled,
};

/// Why a batch of events cannot be applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unapplied {
    /// PostgreSQL refused, or is away: the projection runner decides which, by the cause.
    #[error("{action}")]
    Database {
        action: &'static str,
        #[source]
        source: sqlx::Error,
    },
    /// Events came for flights that were never scheduled.
    #[error("{action}: {found} of {events} flights are in the read model")]
    Unscheduled { action: &'static str, events: usize, found: u64 },
}

/// Connections for those who keep the read model.
///
/// PostgreSQL keeps the plans of statements that are used often, and here it makes them while the
/// tables are almost empty: a plan that reads a whole table would stay when that has grown long.
pub(crate) async fn connect(database_url: &str) -> Result<PgPool> {
    let options: PgConnectOptions = database_url.parse()?;
    let options = options
        .application_name("annals-flights")
        .options([("enable_seqscan", "off"), ("jit", "off")]);
    PgPool::connect_with(options).await.context("connect to the read model")
}

/// Creates the tables unless they exist.
pub(crate) async fn create(pool: &PgPool) -> Result<()> {
    let create = include_str!("../sql/read_model_create.sql");
    pool.execute(create).await.context("create the read model")?;
    Ok(())
}

/// Applies events of flights, one statement a type of event. Types follow each other as they do in
/// a stream.
pub(crate) async fn apply_flights(
    connection: &mut PgConnection,
    events: &[DeliveredEvent<FlightEvent>],
) -> Result<(), Unapplied> {
    let mut batch = FlightBatch::default();
    for event in events {
        batch.add(&event.delivered.stream, &event.data);
    }
    batch.apply(connection).await
}

/// Applies events of aircraft in one statement.
pub(crate) async fn apply_aircraft(
    connection: &mut PgConnection,
    events: &[DeliveredEvent<AircraftEvent>],
) -> Result<(), Unapplied> {
    let legs = events.iter().map(|event| {
        let AircraftEvent::AircraftFlewLeg(leg) = &event.data;
        (event.delivered.stream.as_str(), leg)
    });
    fly(connection, &legs.collect::<Vec<_>>()).await
}

async fn fly(
    connection: &mut PgConnection,
    legs: &[(&str, &AircraftFlewLeg)],
) -> Result<(), Unapplied> {
    let query = sqlx::query(include_str!("../sql/aircraft_flew.sql"))
        .bind(each(legs, |(stream, _)| tail_number(stream)))
        .bind(each(legs, |(_, leg)| leg.distance_miles))
        .bind(each(legs, |(_, leg)| leg.air_time_minutes));
    query.execute(connection).await.map_err(database("add flown legs"))?;
    Ok(())
}

#[derive(Default)]
struct FlightBatch<'a> {
    scheduled: Vec<(&'a str, &'a FlightScheduled)>,
    departed: Vec<(&'a str, &'a FlightDeparted)>,
    arrived: Vec<(&'a str, &'a FlightArrived)>,
    cancelled: Vec<&'a str>,
}

impl<'a> FlightBatch<'a> {
    fn add(&mut self, stream: &'a str, event: &'a FlightEvent) {
        match event {
            FlightEvent::FlightScheduled(scheduled) => self.scheduled.push((stream, scheduled)),
            FlightEvent::FlightDeparted(departed) => self.departed.push((stream, departed)),
            FlightEvent::FlightArrived(arrived) => self.arrived.push((stream, arrived)),
            FlightEvent::FlightCancelled(_) => self.cancelled.push(stream),
        }
    }

    async fn apply(&self, connection: &mut PgConnection) -> Result<(), Unapplied> {
        self.schedule(connection).await?;
        self.depart(connection).await?;
        self.arrive(connection).await?;
        self.cancel(connection).await
    }

    async fn schedule(&self, connection: &mut PgConnection) -> Result<(), Unapplied> {
        let of = &self.scheduled;
        if of.is_empty() {
            return Ok(());
        }
        let query = sqlx::query(include_str!("../sql/flights_scheduled.sql"))
            .bind(each(of, |(stream, _)| *stream))
            .bind(each(of, |(_, event)| event.carrier.as_str()))
            .bind(each(of, |(_, event)| event.flight))
            .bind(each(of, |(_, event)| event.origin.as_str()))
            .bind(each(of, |(_, event)| event.destination.as_str()))
            .bind(each(of, |(_, event)| event.tail_number.as_deref()))
            .bind(each(of, |(_, event)| event.scheduled_departure.as_millisecond()))
            .bind(each(of, |(_, event)| event.distance_miles));
        query.execute(connection).await.map_err(database("add scheduled flights"))?;
        Ok(())
    }

    async fn depart(&self, connection: &mut PgConnection) -> Result<(), Unapplied> {
        let of = &self.departed;
        if of.is_empty() {
            return Ok(());
        }
        let action = "note departures";
        let query = sqlx::query(include_str!("../sql/flights_departed.sql"))
            .bind(each(of, |(stream, _)| *stream))
            .bind(each(of, |(_, event)| event.departed_at.as_millisecond()))
            .bind(each(of, |(_, event)| event.delay_minutes));
        let changed = query.execute(connection).await.map_err(database(action))?;
        all_scheduled(action, of.len(), changed.rows_affected())
    }

    async fn arrive(&self, connection: &mut PgConnection) -> Result<(), Unapplied> {
        let of = &self.arrived;
        if of.is_empty() {
            return Ok(());
        }
        let action = "note arrivals";
        let query = sqlx::query(include_str!("../sql/flights_arrived.sql"))
            .bind(each(of, |(stream, _)| *stream))
            .bind(each(of, |(_, event)| event.delay_minutes))
            .bind(each(of, |(_, event)| event.air_time_minutes));
        let changed = query.execute(connection).await.map_err(database(action))?;
        all_scheduled(action, of.len(), changed.rows_affected())
    }

    async fn cancel(&self, connection: &mut PgConnection) -> Result<(), Unapplied> {
        if self.cancelled.is_empty() {
            return Ok(());
        }
        let action = "note cancellations";
        let query = sqlx::query(include_str!("../sql/flights_cancelled.sql")).bind(&self.cancelled);
        let changed = query.execute(connection).await.map_err(database(action))?;
        all_scheduled(action, self.cancelled.len(), changed.rows_affected())
    }
}

fn each<T, C>(of: &[T], column: impl Fn(&T) -> C) -> Vec<C> {
    of.iter().map(column).collect()
}

/// `aircraft-N14228` is N14228.
fn tail_number(stream: &str) -> &str {
    stream.split_once('-').map_or(stream, |(_, tail_number)| tail_number)
}

fn all_scheduled(action: &'static str, events: usize, found: u64) -> Result<(), Unapplied> {
    if u64::try_from(events) == Ok(found) {
        return Ok(());
    }
    Err(Unapplied::Unscheduled { action, events, found })
}

fn database(action: &'static str) -> impl FnOnce(sqlx::Error) -> Unapplied {
    move |source| Unapplied::Database { action, source }
}

#[cfg(test)]
mod tests {
    use annals_testkit::Testbed;

    use super::*;
    use crate::comparison::side_by_side;
    use crate::happenings::Happenings;
    use crate::rows::{self, Row};
    use crate::{totals_csv, totals_kafka};

    /// Applies the month as the projections do, in batches, without Kafka between.
    async fn fill(connection: &mut PgConnection) {
        let rows = rows::read(&rows::month()).unwrap().into_deserialize::<Row>();
        let month: Vec<Happenings> =
            rows.map(|row| Happenings::of(&row.unwrap()).unwrap()).collect();
        for happened in month.chunks(5_000) {
            let mut batch = FlightBatch::default();
            for it in happened {
                it.of_flight.iter().for_each(|event| batch.add(it.flight.as_str(), event));
            }
            batch.apply(connection).await.unwrap();
            let legs = happened.iter().filter_map(|it| it.of_aircraft.as_ref());
            let legs =
                legs.map(|(stream, AircraftEvent::AircraftFlewLeg(leg))| (stream.as_str(), leg));
            fly(connection, &legs.collect::<Vec<_>>()).await.unwrap();
        }
    }

    async fn differences(pool: &PgPool) -> Vec<String> {
        let csv = totals_csv::totals(&rows::month()).unwrap();
        let kafka = totals_kafka::totals(pool).await.unwrap();
        let pairs = side_by_side(&csv, &kafka).into_iter().filter(|pair| !pair.is_same());
        pairs.map(|pair| format!("{} {:?} {:?}", pair.name, pair.csv, pair.kafka)).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn month_adds_up_and_one_lost_row_or_one_doubled_leg_shows() {
        let bed = Testbed::new("flights_read_model").await;
        let pool = bed.store().pool();
        create(pool).await.unwrap();
        let mut connection = pool.acquire().await.unwrap();
        fill(&mut connection).await;
        assert_eq!(differences(pool).await, Vec::<String>::new());

        let lose =
            "delete from flights_read_model.flights where stream = 'flight-2013-01-01-UA-1545-EWR'";
        sqlx::query(lose).execute(&mut *connection).await.unwrap();
        let found = differences(pool).await;
        assert!(found.contains(&"flights Some(27004) Some(27003)".to_owned()), "{found:?}");
        assert!(
            found.contains(&"arrived of carrier UA Some(4590) Some(4589)".to_owned()),
            "{found:?}"
        );
        assert!(
            found.iter().any(|it| it.starts_with("minutes of arrival delay to IAH")),
            "{found:?}"
        );
        let all_are_of_this_flight = |it: &String| {
            it.contains("carrier UA") || it.contains("to IAH") || !it.contains(" of carrier")
        };
        assert!(found.iter().all(all_are_of_this_flight), "{found:?}");

        let leg = AircraftFlewLeg {
            flight: "flight-2013-01-01-UA-1545-EWR".into(),
            origin: "EWR".into(),
            destination: "IAH".into(),
            departed_at: "2013-01-01T10:17:00Z".parse().unwrap(),
            distance_miles: 1400,
            air_time_minutes: 227,
        };
        fly(&mut connection, &[("aircraft-N14228", &leg)]).await.unwrap();
        let found = differences(pool).await;
        assert!(found.contains(&"miles Some(26755517) Some(26756917)".to_owned()), "{found:?}");
        assert!(found.iter().any(|it| it.starts_with("legs of aircraft N14228")), "{found:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn event_of_a_flight_that_nobody_scheduled_is_refused() {
        let bed = Testbed::new("flights_unscheduled").await;
        create(bed.store().pool()).await.unwrap();
        let mut connection = bed.store().pool().acquire().await.unwrap();
        let mut batch = FlightBatch::default();
        batch.cancelled.push("flight-2013-01-01-UA-1545-EWR");
        let refused = batch.apply(&mut connection).await.unwrap_err();
        assert_eq!(refused.to_string(), "note cancellations: 0 of 1 flights are in the read model");
    }
}
