//! The totals of the read model: what came out of Kafka.

use anyhow::{Context, Result};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

use crate::totals::{Flown, Tally, Totals};

/// Reads all totals from the read model.
pub(crate) async fn totals(pool: &PgPool) -> Result<Totals> {
    let mut totals = Totals::default();
    for row in rows(pool, include_str!("../sql/flight_totals.sql")).await? {
        add_flights(&mut totals, &row)?;
    }
    for row in rows(pool, include_str!("../sql/aircraft_totals.sql")).await? {
        let flown = flown(&row)?;
        match row.try_get("tail_number")? {
            None => totals.flown = flown,
            Some(tail_number) => drop(totals.by_aircraft.insert(tail_number, flown)),
        }
    }
    Ok(totals)
}

async fn rows(pool: &PgPool, statement: &'static str) -> Result<Vec<PgRow>> {
    sqlx::query(statement).fetch_all(pool).await.context("read the totals of the read model")
}

fn add_flights(totals: &mut Totals, row: &PgRow) -> Result<()> {
    let tally = tally(row)?;
    let carrier: Option<String> = row.try_get("carrier")?;
    let destination: Option<String> = row.try_get("destination")?;
    match (carrier, destination) {
        (Some(carrier), _) => drop(totals.by_carrier.insert(carrier, tally)),
        (None, Some(destination)) => drop(totals.by_destination.insert(destination, tally)),
        (None, None) => totals.all = tally,
    }
    Ok(())
}

fn tally(row: &PgRow) -> Result<Tally, sqlx::Error> {
    Ok(Tally {
        flights: row.try_get("flights")?,
        cancelled: row.try_get("cancelled")?,
        departed: row.try_get("departed")?,
        arrived: row.try_get("arrived")?,
        departure_delay_minutes: row.try_get("departure_delay_minutes")?,
        arrival_delay_minutes: row.try_get("arrival_delay_minutes")?,
    })
}

fn flown(row: &PgRow) -> Result<Flown, sqlx::Error> {
    Ok(Flown {
        legs: row.try_get("legs")?,
        miles: row.try_get("miles")?,
        air_time_minutes: row.try_get("air_time_minutes")?,
    })
}
