//! The events of the benchmarks: some 300 bytes each, of the field types that real events have.

use annals_store::{EncodeError, NewEvent, StreamName, events};
use serde::{Deserialize, Serialize};

/// The category of all streams here.
pub(crate) const CATEGORY: &str = "parcel";

const REMARK: &str = "left side dented, label read at the second try, sent on with the evening lorry; \
     recipient asks for delivery to the neighbour at number 14 when nobody opens, second floor, \
     the bell does not work, please knock and wait a moment";

/// A parcel passed a scanner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ParcelScanned {
    pub(crate) sequence: i64,
    pub(crate) scanner: String,
    pub(crate) depot: String,
    pub(crate) route: Option<String>,
    pub(crate) scanned_at_ms: i64,
    pub(crate) weight_g: i32,
    pub(crate) length_mm: i32,
    pub(crate) width_mm: i32,
    pub(crate) height_mm: i32,
    pub(crate) temperature_c: f64,
    pub(crate) damaged: bool,
    pub(crate) remark: String,
}

events! {
    /// The events of a parcel.
    #[derive(Debug, Clone, PartialEq)]
    pub(crate) enum ParcelEvent in "parcel" {
        /// It was scanned.
        ParcelScanned = "../avro/ParcelScanned.v1.avsc",
    }
}

/// A writer's event number `sequence`.
pub(crate) fn parcel_event(sequence: i64) -> ParcelEvent {
    let spread = i32::try_from(sequence.rem_euclid(1_000)).unwrap_or(0);
    ParcelScanned {
        sequence,
        scanner: format!("scanner-{:04}", spread % 97),
        depot: "rotterdam-maasvlakte-3".to_owned(),
        route: Some(format!("NL-{:03}-DE-{:03}", spread % 31, spread % 53)),
        scanned_at_ms: 1_795_000_000_000 + sequence,
        weight_g: 250 + spread * 11,
        length_mm: 120 + spread,
        width_mm: 80 + spread / 2,
        height_mm: 30 + spread / 3,
        temperature_c: 4.0 + f64::from(spread) / 64.0,
        damaged: spread % 89 == 0,
        remark: REMARK.to_owned(),
    }
    .into()
}

/// An event of the same schema without a route and a remark: some 60 bytes.
pub(crate) fn small_parcel_event(sequence: i64) -> ParcelEvent {
    let ParcelEvent::ParcelScanned(scanned) = parcel_event(sequence);
    ParcelScanned { route: None, remark: String::new(), ..scanned }.into()
}

/// A writer's event, encoded, with an id.
pub(crate) fn new_event(sequence: i64) -> Result<NewEvent, EncodeError> {
    NewEvent::new(&parcel_event(sequence))
}

/// Stream number `number`.
pub(crate) fn stream(number: usize) -> anyhow::Result<StreamName> {
    Ok(StreamName::new(format!("{CATEGORY}-{number}"))?)
}

#[cfg(test)]
mod tests {
    use annals_store::EventSet;

    use super::*;

    #[test]
    fn an_event_has_the_payload_size_that_the_tables_name() {
        for sequence in [0, 17, 999, 1_000_000] {
            let bytes = parcel_event(sequence).encode().unwrap().payload.len();
            assert!((290..=310).contains(&bytes), "event {sequence} has {bytes} bytes");
            let bytes = small_parcel_event(sequence).encode().unwrap().payload.len();
            assert!((55..=65).contains(&bytes), "small event {sequence} has {bytes} bytes");
        }
    }
}
