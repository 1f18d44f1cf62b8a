//! A soak: a proxy slows the components in turn, and then all of them, under load. In each phase
//! the relay must go on publishing; at the end every event must be published once, in order.
//! `ops/soak` runs it.

#![expect(clippy::print_stdout, reason = "a program for people")]

use std::time::{Duration, Instant};

use annals_store::{Append, ExpectedVersion, StreamName};
use annals_testkit::{
    CATEGORY, Dice, FaultyLink, Follower, Load, LoadOptions, Must, Pace, RelayProcess, Testbed,
    TwoDoors, check, deposited,
};

const LOAD: LoadOptions =
    LoadOptions { writers: 3, streams: 24, ahead_events_max: 5_000, pace: Pace::Full };
/// The names of the slowed components, by phase.
const PHASES: [(&str, &[Link]); 5] = [
    ("none", &[]),
    ("database", &[Link::Database]),
    ("kafka", &[Link::Kafka]),
    ("registry", &[Link::Registry]),
    ("all", &[Link::Database, Link::Kafka, Link::Registry]),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    Database,
    Kafka,
    Registry,
}

/// The links between the relay and its components.
struct Links {
    database: FaultyLink,
    kafka: TwoDoors,
    registry: FaultyLink,
}

impl Links {
    fn of(&self, link: Link) -> &FaultyLink {
        match link {
            Link::Database => &self.database,
            Link::Kafka => self.kafka.link(),
            Link::Registry => &self.registry,
        }
    }
}

/// The figures of a phase.
struct Figures {
    published: usize,
    longest_pause: Duration,
    new_category: Duration,
    caught_up: Duration,
}

#[tokio::main]
async fn main() {
    let [seconds, rate] = [("--seconds", 60), ("--bytes-per-second", 40_000)].map(argument);
    let kafka = TwoDoors::linked("").await;
    let bed = Testbed::on("soak", kafka.environment().clone()).await;
    let (database, database_url) = FaultyLink::before(&bed.database_url()).await;
    let (registry, registry_url) = FaultyLink::before_http(&bed.environment().registry_url).await;
    let settings = bed.relay().kafka(&kafka.other()).registry(&registry_url);
    let mut relay = RelayProcess::start(&settings.database(&database_url));
    let links = Links { database, kafka, registry };
    let follower = bed.follow();
    let mut dice = Dice::of_this_run();
    let load = Load::start(bed.store(), &LOAD, &mut dice, &follower.counter());
    follower.until_count(500).await;

    println!("{rate} bytes/s on each connection, {seconds} s a phase");
    println!(
        "{:<10} {:>10} {:>14} {:>16} {:>12}",
        "slowed", "published", "longest pause", "a new category", "caught up"
    );
    for (name, slowed) in PHASES {
        slowed.iter().for_each(|link| links.of(*link).slow_down(rate));
        let mut figures = phase(&bed, &follower, name, Duration::from_secs(seconds.into())).await;
        slowed.iter().for_each(|link| links.of(*link).mend());
        let (mended, acknowledged) = (Instant::now(), load.acknowledged());
        follower.until_count(acknowledged).await;
        figures.caught_up = mended.elapsed();
        let Figures { published, longest_pause, new_category, caught_up } = figures;
        let [pause, new, caught_up] =
            [longest_pause, new_category, caught_up].map(|of| of.as_secs_f64());
        println!("{name:<10} {published:>10} {pause:>12.1} s {new:>14.1} s {caught_up:>10.1} s");
        assert!(published > 0, "nothing was published while {name} was slow");
    }
    let attempts = load.stop().await;
    follower.caught_up(&bed.recorded().await).await;
    assert!(relay.terminate().await.success(), "the relay ended with a failure");
    let mut categories = vec![CATEGORY.to_owned()];
    categories.extend(PHASES.map(|(name, _)| category_of(name)));
    let categories: Vec<&str> = categories.iter().map(String::as_str).collect();
    let violations = check(&bed.history_of(&categories, attempts).await);
    assert!(violations.is_empty(), "{violations:?}");
    println!("every event is published once, in order");
    // Its topics are removed while their broker runs.
    drop(bed);
}

/// The value behind an option, or its default.
fn argument((option, default): (&str, u32)) -> u32 {
    let mut arguments = std::env::args().skip_while(|argument| argument != option);
    arguments.nth(1).map_or(default, |value| value.parse().must("read a number"))
}

fn category_of(phase: &str) -> String {
    format!("soak{phase}")
}

/// Watches what is published for a while, and how long a new category takes.
async fn phase(bed: &Testbed, follower: &Follower, name: &str, time: Duration) -> Figures {
    let (began, before) = (Instant::now(), follower.count());
    let category = category_of(name);
    let stream = StreamName::new(format!("{category}-1")).must("name a stream");
    let event = deposited(1).for_category(&category);
    let append = Append::to(&stream, ExpectedVersion::NoStream, [event]);
    bed.store().append(&append).await.must("append");
    let first = Follower::start(&bed.environment().kafka, &[&bed.topic(&category)]);
    let new_category = async {
        first.until_count(1).await;
        began.elapsed()
    };
    let ((longest_pause, published), new_category) =
        tokio::join!(longest_pause(follower, before, time), new_category);
    Figures { published, longest_pause, new_category, caught_up: Duration::ZERO }
}

/// The longest time without an event, and the number of events since `before`.
async fn longest_pause(follower: &Follower, before: usize, time: Duration) -> (Duration, usize) {
    let (mut counter, ends) = (follower.counter(), tokio::time::Instant::now() + time);
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    while tokio::time::timeout_at(ends, counter.changed()).await.is_ok() {
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    (longest.max(last.elapsed()), follower.count() - before)
}
