//! Events that an administrator has removed: the rest of their stream is read and followed all the
//! same, for any size of the gap, and the reader receives the number of missing events.

use std::ops::Range;
use std::pin::pin;

use annals_store::{
    Append, Category, Error, EventStore, ExpectedVersion, Follow, Followed, Metadata, Read,
    RecordedEvent, StreamName, Version,
};
use annals_testkit::{
    Account, CATEGORY, DEADLINE, Must, Testbed, account, closed, deposited, opened, remove_events,
    remove_events_in,
};
use futures_util::{TryStream, TryStreamExt};
use jiff::Timestamp;
use uuid::Uuid;

/// Events of a long stream: more than the largest gap, and than any page.
const MANY: i64 = 10_500;

async fn append(bed: &Testbed, stream: &StreamName, sequences: Range<i64>) {
    let events = sequences.map(|sequence| deposited(sequence).for_category(stream.category()));
    let append = Append::to(stream, ExpectedVersion::Any, events);
    bed.store().append(&append).await.must("append");
}

fn version(number: i64) -> Version {
    Version::new(number).unwrap()
}

/// Versions, each with the number of removed events before it.
fn told(events: &[RecordedEvent]) -> Vec<(i64, u64)> {
    events.iter().map(|event| (event.version.get(), event.removed_before)).collect()
}

/// The expected stream: each version's event, or none if it was removed.
struct Expected {
    events: Vec<Option<RecordedEvent>>,
}

impl Expected {
    async fn of(bed: &Testbed, stream: &StreamName) -> Self {
        let read = bed.store().read(Read::stream(stream));
        let events: Vec<_> = read.try_collect().await.must("read a stream that is whole");
        Self { events: events.into_iter().map(Some).collect() }
    }

    fn remove(&mut self, versions: Range<i64>) {
        for version in versions {
            self.events[usize::try_from(version).unwrap()] = None;
        }
    }

    /// The expected result, by a plain loop over all versions.
    fn told(&self, choice: &Choice) -> Vec<(i64, u64)> {
        let mut walk: Vec<_> = self.events.iter().zip(0_i64..).collect();
        if choice.is_backwards {
            walk.reverse();
        }
        let (mut told, mut removed) = (Vec::new(), 0);
        for (event, version) in walk.into_iter().filter(|(_, version)| choice.reaches(*version)) {
            match event {
                None => removed += 1,
                Some(event) if choice.wants(event) => {
                    told.push((version, std::mem::take(&mut removed)));
                }
                Some(_) => {}
            }
        }
        told.truncate(choice.events_max);
        told
    }

    fn choices(&self) -> Vec<Choice> {
        let there: Vec<_> = self.events.iter().flatten().collect();
        let since = there[there.len() / 2].recorded_at;
        let end = i64::try_from(self.events.len()).unwrap();
        let begins = [None, Some(0), Some(60), Some(5_000), Some(end - 3), Some(end + 5)];
        let filters = [(None, None), (Some("AccountOpened"), None), (None, Some(since))];
        let mut choices = Vec::new();
        for (is_backwards, events_max) in
            [(false, usize::MAX), (false, 150), (true, usize::MAX), (true, 150)]
        {
            for from in begins {
                let choice =
                    |(types, since)| Choice { is_backwards, from, types, since, events_max };
                choices.extend(filters.map(choice));
            }
        }
        choices
    }
}

#[derive(Debug)]
struct Choice {
    is_backwards: bool,
    from: Option<i64>,
    types: Option<&'static str>,
    since: Option<Timestamp>,
    events_max: usize,
}

impl Choice {
    fn reaches(&self, version: i64) -> bool {
        self.from
            .is_none_or(|from| if self.is_backwards { version <= from } else { version >= from })
    }

    fn wants(&self, event: &RecordedEvent) -> bool {
        self.types.is_none_or(|types| event.event_type == types)
            && self.since.is_none_or(|since| event.recorded_at >= since)
    }

    fn read(&self, stream: &StreamName) -> Read<Version> {
        let read = Read::stream(stream).events_max(u64::try_from(self.events_max).unwrap());
        let read = if self.is_backwards { read.backwards() } else { read };
        let read = self.from.into_iter().map(version).fold(read, Read::from);
        let read = self.types.into_iter().fold(read, |read, types| read.of_types([types]));
        self.since.into_iter().fold(read, Read::recorded_since)
    }
}

async fn check_reads(bed: &Testbed, stream: &StreamName, expected: &Expected, holes: &str) {
    for choice in expected.choices() {
        let read = bed.store().read(choice.read(stream));
        let events: Vec<_> = read.try_collect().await.must("read a stream with a hole");
        assert_eq!(told(&events), expected.told(&choice), "{holes}, {choice:?}");
    }
}

/// A long stream; some of its events have another type, and every tenth event was recorded at a
/// time of its own.
async fn long_stream(bed: &Testbed) -> StreamName {
    let stream = account("long");
    for tenth in 0..10 {
        let sequences = tenth * (MANY / 10)..(tenth + 1) * (MANY / 10);
        let events = sequences.map(|sequence| match sequence % 7 {
            0 => opened("ann"),
            _ => deposited(sequence),
        });
        let append = Append::to(&stream, ExpectedVersion::Any, events);
        bed.store().append(&append).await.must("append");
    }
    stream
}

#[tokio::test]
async fn a_stream_is_read_on_behind_every_hole_and_tells_how_many_events_were_removed() {
    let bed = Testbed::new("holes").await;
    let stream = long_stream(&bed).await;
    let mut expected = Expected::of(&bed, &stream).await;
    check_reads(&bed, &stream, &expected, "no hole").await;
    let holes = [
        ("one event", 50..51),
        ("a page", 40..140),
        ("the beginning", 0..10),
        ("10,000 events", 200..10_200),
        ("the end", MANY - 20..MANY),
    ];
    for (name, hole) in holes {
        remove_events(bed.store(), &stream, hole.clone()).await;
        expected.remove(hole);
        check_reads(&bed, &stream, &expected, name).await;
    }
    append(&bed, &stream, 0..3).await;
    let read = bed.store().read(Read::stream(&stream).from(version(MANY)));
    let new: Vec<_> = read.try_collect().await.must("read the new events");
    expected.events.extend(new.into_iter().map(Some));
    check_reads(&bed, &stream, &expected, "events behind the removed end").await;
}

#[tokio::test]
async fn a_stream_without_any_event_left_is_read_as_empty() {
    let bed = Testbed::new("all_removed").await;
    let stream = account("a");
    append(&bed, &stream, 0..5).await;
    remove_events(bed.store(), &stream, 0..5).await;
    for read in [Read::stream(&stream), Read::stream(&stream).backwards()] {
        let events: Vec<_> = bed.store().read(read).try_collect().await.must("read");
        assert_eq!(told(&events), []);
    }
    let last = bed.store().stream_version(&stream).await.must("read a version");
    assert_eq!(last, Version::new(4), "removed versions are not assigned again");
    append(&bed, &stream, 5..6).await;
    let events: Vec<_> = bed.store().read(Read::stream(&stream)).try_collect().await.must("read");
    assert_eq!(told(&events), [(5, 5)]);
}

#[tokio::test]
async fn who_follows_a_stream_gets_what_is_behind_a_hole_of_any_size() {
    let bed = Testbed::new("followed_holes").await;
    let stream = long_stream(&bed).await;
    for hole in [0..100, 150..10_150, MANY - 30..MANY] {
        remove_events(bed.store(), &stream, hole).await;
    }
    let followed = bed.store().follow_stream(&stream, Version::FIRST);
    let mut followed = pin!(followed);
    let mut next = async || {
        let next = tokio::time::timeout(DEADLINE, followed.try_next()).await;
        let event = next.must("wait for an event").must("follow").must("follow for ever");
        (event.version.get(), event.removed_before)
    };
    let left = (100..150).chain(10_150..MANY - 30);
    for version in left {
        let removed = match version {
            100 => 100,
            10_150 => 10_000,
            _ => 0,
        };
        assert_eq!(next().await, (version, removed));
    }
    // It has reached the end, where events are missing, and new ones come.
    append(&bed, &stream, 0..2).await;
    assert_eq!(next().await, (MANY, 30));
    assert_eq!(next().await, (MANY + 1, 0));
    // It waits for the next event, which is removed before the follower sees it together with the
    // later ones.
    let mut removed = bed.store().pool().begin().await.must("begin");
    let late = Append::to(&stream, ExpectedVersion::Any, (0..200).map(deposited));
    bed.store().append_in(&mut removed, &late).await.must("append");
    remove_events_in(&mut removed, &stream, MANY + 2..MANY + 150).await;
    removed.commit().await.must("commit");
    assert_eq!(next().await, (MANY + 150, 148));
}

#[tokio::test]
async fn an_aggregate_says_how_many_of_its_events_were_removed_and_can_be_appended_to() {
    let bed = Testbed::new("aggregate_holes").await;
    let stream = account("a");
    let events = std::iter::once(opened("ann")).chain((1..=300).map(deposited)).chain([closed()]);
    let append = Append::to(&stream, ExpectedVersion::NoStream, events);
    bed.store().append(&append).await.must("append");
    let whole: i64 = (1..=300).sum();
    // Each gap, the remaining versions, and the total number of removed events.
    let holes = [
        (100..250, whole - (100..250).sum::<i64>(), true, 150),
        (298..302, whole - (100..250).sum::<i64>() - 298 - 299 - 300, false, 154),
        (0..1, whole - (100..250).sum::<i64>() - 298 - 299 - 300, false, 155),
    ];
    for (hole, cents, closed, removed) in holes {
        remove_events(bed.store(), &stream, hole.clone()).await;
        let loaded = bed.store().load::<Account>(&stream).await.must("load");
        assert_eq!((loaded.state.cents, loaded.state.closed), (cents, closed), "without {hole:?}");
        assert_eq!((loaded.version, loaded.removed), (Version::new(301), removed));
    }
    let loaded = bed.store().load::<Account>(&stream).await.must("load");
    let next = Append::to(&stream, loaded.expected(), [deposited(1)]);
    bed.store().append(&next).await.must("append behind the events that were removed");
    let loaded = bed.store().load::<Account>(&stream).await.must("load");
    assert_eq!((loaded.version, loaded.removed), (Version::new(302), 155));

    remove_events(bed.store(), &stream, 0..303).await;
    let loaded = bed.store().load::<Account>(&stream).await.must("load");
    assert_eq!((loaded.version, loaded.removed), (Version::new(302), 303));
    assert_eq!(loaded.state, Account::default());
    let next = Append::to(&stream, loaded.expected(), [deposited(1)]);
    bed.store().append(&next).await.must("append where nothing is left");
}

#[tokio::test]
async fn a_conflict_over_a_hole_asks_to_load_again() {
    let bed = Testbed::new("conflict_hole").await;
    let stream = account("a");
    append(&bed, &stream, 0..3).await;
    let mut loaded = bed.store().load::<Account>(&stream).await.must("load");
    append(&bed, &stream, 3..6).await;
    remove_events(bed.store(), &stream, 3..4).await;
    let next = Append::to(&stream, loaded.expected(), [deposited(1)]).with_conflict_events(10);
    let refused = bed.store().append(&next).await.unwrap_err();
    let conflict = refused.conflict_of(&stream).must("find the conflict");
    assert!(!loaded.catch_up(conflict).must("catch up"), "an event is missing");
    let again = bed.store().load::<Account>(&stream).await.must("load");
    assert_eq!((again.version, again.removed), (Version::new(5), 1));
}

#[tokio::test]
async fn readers_and_followers_by_position_pass_over_removed_events_and_count_them() {
    let bed = Testbed::new("positions_removed").await;
    let (stream, other) = (account("a"), account("b"));
    let correlation_id = Uuid::from_u128(7);
    let metadata = Metadata { correlation_id: Some(correlation_id), ..Metadata::default() };
    let correlated = (0..900).map(|number| deposited(number).with_metadata(metadata.clone()));
    let write = Append::to(&stream, ExpectedVersion::Any, correlated);
    bed.store().append(&write).await.must("append");
    append(&bed, &other, 0..3).await;
    let category = Category::new(CATEGORY).unwrap();

    // A follower starts here: its first window has events that are removed while it is positioned
    // before them.
    let end = bed.store().end_of_log().await.must("find the end");
    append(&bed, &stream, 900..1_000).await;
    remove_events(bed.store(), &stream, 950..990).await;
    remove_events(bed.store(), &stream, 10..710).await;

    let left: Vec<_> = (0..10).chain(710..950).chain(990..1_000).collect();
    let of_stream = |events: &[RecordedEvent]| -> Vec<i64> {
        let own = events.iter().filter(|event| event.stream == stream);
        own.map(|event| event.version.get()).collect()
    };
    for read in [Read::all(), Read::category(&category)] {
        let events: Vec<_> = bed.store().read(read.clone()).try_collect().await.must("read");
        assert_eq!((of_stream(&events), events.len()), (left.clone(), left.len() + 3));
        assert_eq!(counted(&events), [(710, 700), (990, 40)]);
        let mut events: Vec<_> =
            bed.store().read(read.backwards()).try_collect().await.must("read");
        assert_eq!(counted(&events), [(949, 40), (9, 700)]);
        events.reverse();
        assert_eq!(of_stream(&events), left);
    }
    let read = bed.store().read(Read::correlation(correlation_id));
    let events: Vec<_> = read.try_collect().await.must("read");
    assert_eq!(of_stream(&events), (0..10).chain(710..900).collect::<Vec<_>>());

    for (follow, expected, removed) in [
        (Follow::all(), left.clone(), vec![(710, 700), (990, 40)]),
        (Follow::category(&category), left, vec![(710, 700), (990, 40)]),
        (Follow::all().after(end), (900..950).chain(990..1_000).collect(), vec![(990, 40)]),
    ] {
        let mut log = pin!(bed.store().follow(follow));
        let is_all = |seen: &[RecordedEvent]| of_stream(seen).len() == expected.len();
        let followed = take_followed(&mut log, is_all).await;
        let events = followed.into_iter().map(|followed| followed.event).collect::<Vec<_>>();
        assert_eq!((of_stream(&events), counted(&events)), (expected, removed));
    }
}

/// The versions behind removed events, each with the number of these.
fn counted(events: &[RecordedEvent]) -> Vec<(i64, u64)> {
    told(events).into_iter().filter(|(_, removed)| *removed > 0).collect()
}

/// Follows until the events received are all that the caller waits for.
async fn take_followed(
    log: &mut (impl TryStream<Ok = Followed, Error = Error> + Unpin),
    is_all: impl Fn(&[RecordedEvent]) -> bool,
) -> Vec<Followed> {
    let (mut followed, mut events) = (Vec::new(), Vec::new());
    while !is_all(&events) {
        let next = tokio::time::timeout(DEADLINE, log.try_next()).await;
        let next = next.must("wait for an event").must("follow").must("follow for ever");
        events.push(next.event.clone());
        followed.push(next);
    }
    followed
}

#[tokio::test]
async fn a_follower_that_starts_from_any_checkpoint_counts_the_events_removed_behind_it() {
    let bed = Testbed::new("removed_behind").await;
    let (stream, other) = (account("a"), StreamName::new("other-a").unwrap());
    let category = Category::new(CATEGORY).unwrap();
    append(&bed, &stream, 0..1_200).await;
    remove_events(bed.store(), &stream, 1_100..1_200).await;
    // The follower of the category reaches the end of a window behind removed events.
    append(&bed, &other, 0..1).await;
    let mut all = pin!(bed.store().follow(Follow::all()));
    let mut of_category = pin!(bed.store().follow(Follow::category(&category)));
    let followed_all = take_followed(&mut all, |seen| seen.len() == 1_101).await;
    let followed_category = take_followed(&mut of_category, |seen| seen.len() == 1_100).await;

    // Windows of removed events alone; events of another category count for a follower of all.
    append(&bed, &other, 1..4).await;
    remove_events(bed.store(), &other, 1..4).await;
    append(&bed, &stream, 0..2).await;
    remove_events(bed.store(), &stream, 1_200..1_202).await;
    append(&bed, &stream, 0..1).await;

    let is_last =
        |events: &[RecordedEvent]| events.last().is_some_and(|e| e.version.get() == 1_202);
    let events = |followed: Vec<Followed>| -> Vec<_> {
        counted(&followed.into_iter().map(|followed| followed.event).collect::<Vec<_>>())
    };
    assert_eq!(events(take_followed(&mut all, is_last).await), [(1_202, 5)]);
    assert_eq!(events(take_followed(&mut of_category, is_last).await), [(1_202, 102)]);
    for start in [500, 998, 1_098, 1_099] {
        let after = followed_all[start].checkpoint.clone();
        let mut resumed = pin!(bed.store().follow(Follow::all().after(after)));
        let counted = events(take_followed(&mut resumed, is_last).await);
        assert_eq!(counted, [(0, 100), (1_202, 5)], "{start}");
        let after = followed_category[start].checkpoint.clone();
        let mut resumed = pin!(bed.store().follow(Follow::category(&category).after(after)));
        assert_eq!(events(take_followed(&mut resumed, is_last).await), [(1_202, 102)], "{start}");
    }
}
