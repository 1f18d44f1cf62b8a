//! The totals of the file and those of the read model, side by side.

use std::collections::BTreeMap;
use std::fmt;

use crate::totals::{Flown, Tally, Totals};

/// What a total is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum About {
    All,
    Carrier(String),
    Destination(String),
    Aircraft(String),
}

/// The sums and counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sum {
    Flights,
    Cancelled,
    Departed,
    Arrived,
    DepartureDelay,
    ArrivalDelay,
    Legs,
    Miles,
    AirTime,
    Carriers,
    Destinations,
    Aircraft,
}

/// One total: whose, and of what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) about: About,
    pub(crate) of: Sum,
}

/// A total from both sides; `None` where a side has none of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) name: Name,
    pub(crate) csv: Option<i64>,
    pub(crate) kafka: Option<i64>,
}

impl Pair {
    pub(crate) fn is_same(&self) -> bool {
        self.csv == self.kafka
    }
}

/// Puts every total that either side has beside the other's.
pub(crate) fn side_by_side(csv: &Totals, kafka: &Totals) -> Vec<Pair> {
    let mut pairs = BTreeMap::<Name, (Option<i64>, Option<i64>)>::new();
    for (name, total) in csv.named() {
        pairs.entry(name).or_default().0 = Some(total);
    }
    for (name, total) in kafka.named() {
        pairs.entry(name).or_default().1 = Some(total);
    }
    pairs.into_iter().map(|(name, (csv, kafka))| Pair { name, csv, kafka }).collect()
}

impl Totals {
    fn named(&self) -> Vec<(Name, i64)> {
        let counts = [
            (Sum::Carriers, self.by_carrier.len()),
            (Sum::Destinations, self.by_destination.len()),
            (Sum::Aircraft, self.by_aircraft.len()),
        ];
        let counts = counts.map(|(of, count)| (of, i64::try_from(count).unwrap_or(i64::MAX)));
        let all = self.all.named().into_iter().chain(self.flown.named()).chain(counts);
        let all = all.map(|total| named(&About::All, total));
        let carriers = grouped(&self.by_carrier, About::Carrier, Tally::named);
        let destinations = grouped(&self.by_destination, About::Destination, Tally::named);
        let aircraft = grouped(&self.by_aircraft, About::Aircraft, Flown::named);
        all.chain(carriers).chain(destinations).chain(aircraft).collect()
    }
}

impl Tally {
    fn named(&self) -> [(Sum, i64); 6] {
        [
            (Sum::Flights, self.flights),
            (Sum::Cancelled, self.cancelled),
            (Sum::Departed, self.departed),
            (Sum::Arrived, self.arrived),
            (Sum::DepartureDelay, self.departure_delay_minutes),
            (Sum::ArrivalDelay, self.arrival_delay_minutes),
        ]
    }
}

impl Flown {
    fn named(&self) -> [(Sum, i64); 3] {
        [(Sum::Legs, self.legs), (Sum::Miles, self.miles), (Sum::AirTime, self.air_time_minutes)]
    }
}

fn grouped<'a, T, const N: usize>(
    groups: &'a BTreeMap<String, T>,
    about: fn(String) -> About,
    totals: fn(&T) -> [(Sum, i64); N],
) -> impl Iterator<Item = (Name, i64)> + 'a {
    groups.iter().flat_map(move |(group, sums)| {
        let about = about(group.clone());
        totals(sums).map(|total| named(&about, total))
    })
}

fn named(about: &About, (of, total): (Sum, i64)) -> (Name, i64) {
    (Name { about: about.clone(), of }, total)
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Flights => "flights",
            Self::Cancelled => "cancelled",
            Self::Departed => "departed",
            Self::Arrived => "arrived",
            Self::DepartureDelay => "minutes of departure delay",
            Self::ArrivalDelay => "minutes of arrival delay",
            Self::Legs => "legs",
            Self::Miles => "miles",
            Self::AirTime => "minutes in the air",
            Self::Carriers => "carriers",
            Self::Destinations => "destinations",
            Self::Aircraft => "aircraft",
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.about {
            About::All => write!(f, "{}", self.of),
            About::Carrier(carrier) => write!(f, "{} of carrier {carrier}", self.of),
            About::Destination(destination) => write!(f, "{} to {destination}", self.of),
            About::Aircraft(aircraft) => write!(f, "{} of aircraft {aircraft}", self.of),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals() -> Totals {
        let tally = Tally { flights: 3, cancelled: 1, departed: 2, arrived: 2, ..Tally::default() };
        let flown = Flown { legs: 2, miles: 2800, air_time_minutes: 450 };
        Totals {
            all: tally,
            flown,
            by_carrier: [("UA".to_owned(), tally)].into(),
            by_destination: [("IAH".to_owned(), tally)].into(),
            by_aircraft: [("N14228".to_owned(), flown)].into(),
        }
    }

    fn differences(csv: &Totals, kafka: &Totals) -> Vec<String> {
        let pairs = side_by_side(csv, kafka);
        let different = pairs.iter().filter(|pair| !pair.is_same());
        different.map(|pair| format!("{}: {:?} {:?}", pair.name, pair.csv, pair.kafka)).collect()
    }

    #[test]
    fn equal_totals_show_no_difference_and_every_total_is_compared() {
        assert_eq!(differences(&totals(), &totals()), Vec::<String>::new());
        // 6 + 3 + 3 over all, 6 for the carrier, 6 for the destination, 3 for the aircraft.
        assert_eq!(side_by_side(&totals(), &totals()).len(), 27);
    }

    #[test]
    fn each_planted_difference_is_named() {
        type Plant = fn(&mut Totals);
        let planted: [(Plant, &str); 6] = [
            (|it| it.all.flights -= 1, "flights: Some(3) Some(2)"),
            (|it| it.all.arrival_delay_minutes = 1, "minutes of arrival delay: Some(0) Some(1)"),
            (|it| it.flown.miles += 1, "miles: Some(2800) Some(2801)"),
            (
                |it| it.by_carrier.entry("UA".into()).or_default().cancelled = 0,
                "cancelled of carrier UA: Some(1) Some(0)",
            ),
            (
                |it| it.by_destination.entry("IAH".into()).or_default().departed = 9,
                "departed to IAH: Some(2) Some(9)",
            ),
            (
                |it| it.by_aircraft.entry("N14228".into()).or_default().legs = 3,
                "legs of aircraft N14228: Some(2) Some(3)",
            ),
        ];
        for (plant, expected) in planted {
            let mut kafka = totals();
            plant(&mut kafka);
            assert_eq!(differences(&totals(), &kafka), [expected]);
        }
    }

    #[test]
    fn group_that_one_side_lacks_is_a_difference() {
        let mut kafka = totals();
        kafka.by_aircraft.clear();
        let found = differences(&totals(), &kafka);
        assert!(found.contains(&"aircraft: Some(1) Some(0)".to_owned()), "{found:?}");
        assert!(
            found.contains(&"miles of aircraft N14228: Some(2800) None".to_owned()),
            "{found:?}"
        );

        let mut kafka = totals();
        kafka.by_carrier.insert("ZZ".to_owned(), Tally::default());
        assert!(
            differences(&totals(), &kafka)
                .contains(&"flights of carrier ZZ: None Some(0)".to_owned())
        );
    }
}
