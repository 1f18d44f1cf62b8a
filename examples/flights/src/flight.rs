//! From a row to the events of its flight and its aircraft, and the append that records both.

use annals_store::{Append, ExpectedVersion, NewEvent, StreamName};
use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};

use crate::events::{
    AircraftEvent, AircraftFlewLeg, FlightArrived, FlightCancelled, FlightDeparted, FlightEvent,
    FlightScheduled,
};
use crate::rows::Row;

/// The events of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flight {
    pub(crate) stream: StreamName,
    pub(crate) events: Vec<FlightEvent>,
    /// The leg in the stream of the aircraft.
    pub(crate) leg: Option<(StreamName, AircraftEvent)>,
}

impl Flight {
    pub(crate) fn of(row: &Row) -> Result<Self> {
        let Row { year, month, day, carrier, flight, origin, .. } = row;
        let stream = format!("flight-{year:04}-{month:02}-{day:02}-{carrier}-{flight}-{origin}");
        let scheduled_departure = later(row.time_hour, row.minute)?;
        let scheduled = FlightScheduled {
            carrier: carrier.clone(),
            flight: *flight,
            origin: origin.clone(),
            destination: row.dest.clone(),
            tail_number: row.tailnum.clone(),
            scheduled_departure,
            distance_miles: row.distance,
        };
        let stream = StreamName::new(stream)?;
        let mut this = Self { stream, events: vec![scheduled.into()], leg: None };
        match row.dep_time {
            None => this.events.push(FlightCancelled { scheduled_departure }.into()),
            Some(_) => this.depart(row, scheduled_departure)?,
        }
        Ok(this)
    }

    fn depart(&mut self, row: &Row, scheduled_departure: Timestamp) -> Result<()> {
        let delay_minutes = row.dep_delay.context("a departure time without departure delay")?;
        let departed_at = later(scheduled_departure, delay_minutes)?;
        self.events.push(FlightDeparted { departed_at, delay_minutes }.into());
        // Without these the flight was diverted to another destination.
        let (Some(delay_minutes), Some(air_time_minutes)) = (row.arr_delay, row.air_time) else {
            return Ok(());
        };
        let clock = row.arr_time.context("an arrival delay without arrival time")?;
        // `830` is 08:30; the file writes midnight as `2400`.
        let local_time = format!("{:02}:{:02}", clock / 100 % 24, clock % 100);
        self.events.push(FlightArrived { local_time, delay_minutes, air_time_minutes }.into());
        if let Some(tail_number) = &row.tailnum {
            let leg = AircraftFlewLeg {
                flight: self.stream.to_string(),
                origin: row.origin.clone(),
                destination: row.dest.clone(),
                departed_at,
                distance_miles: row.distance,
                air_time_minutes,
            };
            self.leg = Some((StreamName::new(format!("aircraft-{tail_number}"))?, leg.into()));
        }
        Ok(())
    }

    /// One append of all events: to the flight's stream, which must be new, and the aircraft's.
    pub(crate) fn append(&self) -> Result<Append> {
        let events = self.events.iter().map(NewEvent::new).collect::<Result<Vec<_>, _>>()?;
        let append = Append::to(&self.stream, ExpectedVersion::NoStream, events);
        Ok(match &self.leg {
            None => append,
            Some((aircraft, leg)) => {
                append.and_to(aircraft, ExpectedVersion::Any, [NewEvent::new(leg)?])
            }
        })
    }
}

fn later(time: Timestamp, minutes: i32) -> Result<Timestamp> {
    let moved = time.checked_add(SignedDuration::from_mins(i64::from(minutes)));
    moved.with_context(|| format!("{minutes} minutes after {time}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::tests::rows;

    fn of(line: &str) -> Flight {
        Flight::of(&rows(line)[0]).unwrap()
    }

    fn types(flight: &Flight) -> Vec<&'static str> {
        use annals_store::EventSet;
        flight.events.iter().map(EventSet::event_type).collect()
    }

    #[test]
    fn flight_that_arrived_is_scheduled_departs_arrives_and_is_a_leg_of_its_aircraft() {
        let flight = of(
            "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z",
        );
        assert_eq!(flight.stream.as_str(), "flight-2013-01-01-UA-1545-EWR");
        let departed_at: Timestamp = "2013-01-01T10:17:00Z".parse().unwrap();
        let expected: Vec<FlightEvent> = vec![
            FlightScheduled {
                carrier: "UA".into(),
                flight: 1545,
                origin: "EWR".into(),
                destination: "IAH".into(),
                tail_number: Some("N14228".into()),
                scheduled_departure: "2013-01-01T10:15:00Z".parse().unwrap(),
                distance_miles: 1400,
            }
            .into(),
            FlightDeparted { departed_at, delay_minutes: 2 }.into(),
            FlightArrived { local_time: "08:30".into(), delay_minutes: 11, air_time_minutes: 227 }
                .into(),
        ];
        assert_eq!(flight.events, expected);
        let leg = AircraftFlewLeg {
            flight: "flight-2013-01-01-UA-1545-EWR".into(),
            origin: "EWR".into(),
            destination: "IAH".into(),
            departed_at,
            distance_miles: 1400,
            air_time_minutes: 227,
        };
        assert_eq!(flight.leg, Some((StreamName::new("aircraft-N14228").unwrap(), leg.into())));
        assert_eq!(flight.append().unwrap().events().len(), 4);
    }

    #[test]
    fn cancelled_flight_never_departs_and_its_aircraft_flies_no_leg() {
        let flight = of(
            "2013,1,1,NA,1630,NA,NA,1815,NA,EV,4308,N18120,EWR,RDU,NA,416,16,30,2013-01-01T21:00:00Z",
        );
        assert_eq!(types(&flight), ["FlightScheduled", "FlightCancelled"]);
        assert_eq!(flight.leg, None);
        let cancelled =
            FlightCancelled { scheduled_departure: "2013-01-01T21:30:00Z".parse().unwrap() };
        assert_eq!(flight.events[1], cancelled.into());
    }

    #[test]
    fn diverted_flight_departs_and_does_not_arrive() {
        let landed = of(
            "2013,1,1,1525,1530,-5,1934,1805,NA,MQ,4525,N719MQ,LGA,XNA,NA,1147,15,30,2013-01-01T20:00:00Z",
        );
        let lost = of(
            "2013,1,2,2041,2045,-4,NA,2359,NA,B6,147,N630JB,JFK,RSW,NA,1074,20,45,2013-01-03T01:00:00Z",
        );
        for diverted in [landed, lost] {
            assert_eq!(types(&diverted), ["FlightScheduled", "FlightDeparted"]);
            assert_eq!(diverted.leg, None);
        }
    }

    #[test]
    fn arrived_flight_without_tail_number_has_events_and_no_aircraft() {
        let flight = of(
            "2013,1,1,517,515,2,2400,2359,1,UA,1545,,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z",
        );
        assert_eq!(types(&flight), ["FlightScheduled", "FlightDeparted", "FlightArrived"]);
        assert_eq!(flight.leg, None);
        assert!(
            matches!(&flight.events[2], FlightEvent::FlightArrived(it) if it.local_time == "00:00")
        );
    }

    #[test]
    fn early_departure_is_before_the_timetable_also_over_midnight() {
        let flight = of(
            "2013,1,3,2355,0,-5,320,330,-10,B6,1,N1JB,JFK,BQN,190,1576,0,0,2013-01-03T05:00:00Z",
        );
        let departed = FlightDeparted {
            departed_at: "2013-01-03T04:55:00Z".parse().unwrap(),
            delay_minutes: -5,
        };
        assert_eq!(flight.events[1], departed.into());
    }
}
