//! The events of flights and of aircraft: plain serde types, and the Avro schemas they are written
//! with.

use annals_store::{events, timestamp_millis};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A flight was scheduled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FlightScheduled {
    pub(crate) carrier: String,
    pub(crate) flight: i32,
    pub(crate) origin: String,
    pub(crate) destination: String,
    pub(crate) tail_number: Option<String>,
    #[serde(with = "timestamp_millis")]
    pub(crate) scheduled_departure: Timestamp,
    pub(crate) distance_miles: i32,
}

/// The flight left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FlightDeparted {
    #[serde(with = "timestamp_millis")]
    pub(crate) departed_at: Timestamp,
    pub(crate) delay_minutes: i32,
}

/// The flight reached its destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FlightArrived {
    /// Clock time at the destination, HH:MM.
    pub(crate) local_time: String,
    pub(crate) delay_minutes: i32,
    pub(crate) air_time_minutes: i32,
}

/// The flight did not leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FlightCancelled {
    #[serde(with = "timestamp_millis")]
    pub(crate) scheduled_departure: Timestamp,
}

/// An aircraft flew from one airport to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AircraftFlewLeg {
    /// The stream of the flight.
    pub(crate) flight: String,
    pub(crate) origin: String,
    pub(crate) destination: String,
    #[serde(with = "timestamp_millis")]
    pub(crate) departed_at: Timestamp,
    pub(crate) distance_miles: i32,
    pub(crate) air_time_minutes: i32,
}

events! {
    /// What happens to a flight. Its stream: `flight-<date>-<carrier>-<number>-<origin>`.
    #[expect(clippy::enum_variant_names, reason = "an event type is named in full: it is public in the topic")]
    #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
    #[serde(untagged)]
    pub(crate) enum FlightEvent in "flight" {
        FlightScheduled = "../../../schemas/avro/flight/FlightScheduled.v1.avsc",
        FlightDeparted = "../../../schemas/avro/flight/FlightDeparted.v1.avsc",
        FlightArrived = "../../../schemas/avro/flight/FlightArrived.v1.avsc",
        FlightCancelled = "../../../schemas/avro/flight/FlightCancelled.v1.avsc",
    }
}

events! {
    /// What an aircraft does. Its stream: `aircraft-<tail number>`.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
    #[serde(untagged)]
    pub(crate) enum AircraftEvent in "aircraft" {
        AircraftFlewLeg = "../../../schemas/avro/aircraft/AircraftFlewLeg.v1.avsc",
    }
}
