//! What the demo prints at its end: the read model, the totals from both sides, and how fast it
//! was.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use crate::comparison::{About, Pair, side_by_side};
use crate::figures::{delay, grouped, per_second, time};
use crate::lags::{Lags, Percentiles, Phase};
use crate::outage::Outage;
use crate::screen::Screen;
use crate::totals::{Flown, Tally, Totals};

const DESTINATIONS_SHOWN: usize = 10;
const AIRCRAFT_SHOWN: usize = 5;
const DIFFERENCES_SHOWN: usize = 20;

/// The measurements from the time when the flights were appended.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) appends: u64,
    pub(crate) events: u64,
    pub(crate) retries: u64,
    pub(crate) append_time: Duration,
    /// From the begin of the appending to the last record of the topics.
    pub(crate) relay_time: Duration,
    pub(crate) begun: Instant,
    pub(crate) outage: Option<Outage>,
    /// Bytes: now, and at most.
    pub(crate) relay_memory: Option<(u64, u64)>,
}

/// Prints flights, cancellations and delays by carrier and by destination, and what the aircraft
/// have flown.
pub(crate) fn flights(screen: &Screen, totals: &Totals) -> io::Result<()> {
    screen.heading("The read model, which was made from the topics alone")?;
    tallies(screen, "carrier", &totals.by_carrier, usize::MAX)?;
    screen.print("")?;
    tallies(screen, "destination", &totals.by_destination, DESTINATIONS_SHOWN)?;
    screen.print("")?;
    aircraft(screen, totals)
}

fn tallies(
    screen: &Screen,
    what: &str,
    groups: &BTreeMap<String, Tally>,
    shown: usize,
) -> io::Result<()> {
    screen.say(&format!(
        "{what:<12} {:>9} {:>10} {:>22} {:>20}",
        "flights", "cancelled", "mean departure delay", "mean arrival delay"
    ))?;
    let mut groups: Vec<(&str, Tally)> =
        groups.iter().map(|(name, tally)| (name.as_str(), *tally)).collect();
    groups.sort_by_key(|(_, tally)| std::cmp::Reverse(tally.flights));
    let others = groups.split_off(shown.min(groups.len()));
    for (name, tally) in groups {
        screen.say(&tally_line(name, &tally))?;
    }
    if others.is_empty() {
        return Ok(());
    }
    let mut sum = Tally::default();
    others.iter().for_each(|(_, tally)| sum += *tally);
    screen.say(&tally_line(&format!("{} others", others.len()), &sum))
}

fn tally_line(name: &str, tally: &Tally) -> String {
    format!(
        "{name:<12} {:>9} {:>10} {:>18} min {:>16} min",
        grouped(tally.flights),
        grouped(tally.cancelled),
        delay(tally.departure_delay_mean()),
        delay(tally.arrival_delay_mean())
    )
}

fn aircraft(screen: &Screen, totals: &Totals) -> io::Result<()> {
    let line = |name: &str, flown: Flown| {
        format!("{name:<12} {:>9} {:>10}", grouped(flown.legs), grouped(flown.miles))
    };
    screen.say(&format!("{:<12} {:>9} {:>10}", "aircraft", "legs", "miles"))?;
    let mut aircraft: Vec<_> = totals.by_aircraft.iter().collect();
    aircraft.sort_by_key(|(_, flown)| std::cmp::Reverse(flown.miles));
    for (tail_number, flown) in aircraft.iter().take(AIRCRAFT_SHOWN) {
        screen.say(&line(tail_number, **flown))?;
    }
    screen.say(&line(&format!("all {}", grouped(aircraft.len())), totals.flown))
}

/// Prints the totals of both sides. Returns whether all are the same, and names those that are not.
pub(crate) fn totals(screen: &Screen, csv: &Totals, kafka: &Totals) -> io::Result<bool> {
    screen.heading("The totals: straight from the file, and out of Kafka")?;
    let pairs = side_by_side(csv, kafka);
    screen.say(&format!("{:<28} {:>14} {:>14}", "", "file", "Kafka"))?;
    for pair in pairs.iter().filter(|pair| pair.name.about == About::All) {
        let is_same = if pair.is_same() { "same" } else { "DIFFERENT" };
        let (csv, kafka) = (shown(pair.csv), shown(pair.kafka));
        screen.say(&format!("{:<28} {csv:>14} {kafka:>14}  {is_same}", pair.name.of))?;
    }
    type IsOf = fn(&About) -> bool;
    let groups: [(&str, IsOf); 3] = [
        ("by carrier", |about| matches!(about, About::Carrier(_))),
        ("by destination", |about| matches!(about, About::Destination(_))),
        ("by aircraft", |about| matches!(about, About::Aircraft(_))),
    ];
    for (name, is_of) in groups {
        screen.say(&group_line(name, pairs.iter().filter(|pair| is_of(&pair.name.about))))?;
    }
    differences(screen, &pairs)
}

fn group_line<'a>(name: &str, pairs: impl Iterator<Item = &'a Pair>) -> String {
    let (same, different): (Vec<_>, Vec<_>) = pairs.partition(|pair| pair.is_same());
    let verdict = if different.is_empty() {
        "same".to_owned()
    } else {
        format!("{} DIFFERENT", different.len())
    };
    format!(
        "{name:<28} {:>29}  {verdict}",
        format!("{} totals", grouped(same.len() + different.len()))
    )
}

fn differences(screen: &Screen, pairs: &[Pair]) -> io::Result<bool> {
    let different: Vec<&Pair> = pairs.iter().filter(|pair| !pair.is_same()).collect();
    if different.is_empty() {
        screen.shout(&format!("all {} totals are the same", grouped(pairs.len())))?;
        return Ok(true);
    }
    screen.shout(&format!(
        "{} of {} totals DIFFER: events were lost, applied twice, or changed on the way",
        grouped(different.len()),
        grouped(pairs.len())
    ))?;
    for pair in different.iter().take(DIFFERENCES_SHOWN) {
        let (csv, kafka) = (shown(pair.csv), shown(pair.kafka));
        screen.say(&format!("{}: {csv} in the file, {kafka} out of Kafka", pair.name))?;
    }
    if let Some(more) = different.len().checked_sub(DIFFERENCES_SHOWN).filter(|more| *more > 0) {
        screen.say(&format!("and {} more", grouped(more)))?;
    }
    Ok(false)
}

fn shown(total: Option<i64>) -> String {
    total.map_or_else(|| "none".to_owned(), grouped)
}

/// Prints the rates, what the kill cost, and how long events were under way.
pub(crate) fn rates(screen: &Screen, measured: &Measured, lags: &Lags) -> io::Result<()> {
    let cores =
        std::thread::available_parallelism().map_or_else(|_| "?".to_owned(), |n| n.to_string());
    screen.heading(&format!("How fast, with everything on this one machine ({cores} cores)"))?;
    let Measured { appends, events, append_time, relay_time, .. } = *measured;
    screen.say(&format!(
        "append   {} appends in {}: {} appends/s, {} events/s{}",
        grouped(appends),
        time(append_time),
        grouped(per_second(appends, append_time)),
        grouped(per_second(events, append_time)),
        match measured.retries {
            0 => String::new(),
            retries => format!("; {} tried again", grouped(retries)),
        }
    ))?;
    screen.say(&format!(
        "relay    {} events from the first record to the last in {}: {} events/s{}",
        grouped(events),
        time(relay_time),
        grouped(per_second(events, relay_time)),
        if measured.outage.is_some() { ", the time it was dead included" } else { "" }
    ))?;
    if let Some(outage) = &measured.outage {
        cost(screen, outage)?;
    }
    if let Some((now, most)) = measured.relay_memory {
        screen.say(&format!(
            "memory   of the relay: {} MB, at most {} MB",
            now / 1_000_000,
            most / 1_000_000
        ))?;
    }
    percentiles(screen, lags, measured.outage.is_some())
}

fn cost(screen: &Screen, outage: &Outage) -> io::Result<()> {
    screen.say(&format!(
        "kill -9  {} dead, {} events behind; after its start {} to the first event, {} until it had caught up",
        time(outage.down),
        grouped(outage.backlog),
        time(outage.first_after),
        time(outage.caught_up_after)
    ))?;
    screen.say(&format!(
        "         {} events/s while it caught up",
        grouped(per_second(outage.drain.events, outage.drain.time))
    ))
}

fn percentiles(screen: &Screen, lags: &Lags, is_killed: bool) -> io::Result<()> {
    screen.print("")?;
    screen.say(&format!(
        "{:<36} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "from append to read model", "events", "p50", "p90", "p99", "max"
    ))?;
    let phases: &[(&str, Phase)] = if is_killed {
        &[
            ("before the kill", Phase::Before),
            ("delayed by the kill", Phase::Delayed),
            ("after the relay had caught up", Phase::After),
        ]
    } else {
        &[("all events", Phase::Before)]
    };
    for (name, phase) in phases {
        let figures =
            lags.percentiles(*phase).map_or_else(|| "none".to_owned(), percentile_figures);
        screen.say(&format!("  {name:<34} {figures:>9}"))?;
    }
    Ok(())
}

fn percentile_figures(found: Percentiles) -> String {
    let Percentiles { events, p50, p90, p99, max } = found;
    let times = [p50, p90, p99, max].map(|at| format!(" {:>9}", time(at))).concat();
    format!("{:>9}{times}", grouped(events))
}
