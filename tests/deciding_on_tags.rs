//! A decision on the events with some tags is recorded only if no other event with one of them came
//! first; otherwise it is made again with that event.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use annals_store::{
    Aggregate, Append, AppendError, CommandId, Decide, DecideError, Decided, EventStore,
    ExpectedVersion, MemoryStore, Read, Refusal, Store, Tag,
};
use annals_testkit::{AccountEvent, Must, Testbed, account, deposited, opened};
use futures_util::TryStreamExt;
use uuid::Uuid;

const COURSES: usize = 4;
const STUDENTS: usize = 12;
const PLACES: usize = 5;
const COURSES_OF_STUDENT: usize = 2;

/// The number of events with a tag.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Enrolled(usize);

impl Aggregate for Enrolled {
    type Event = AccountEvent;

    fn apply(&mut self, _event: AccountEvent) {
        self.0 += 1;
    }
}

/// The refusal of a decision.
#[derive(Debug, PartialEq, Eq)]
struct Declined(String);

impl std::fmt::Display for Declined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Declined {}

fn declined(why: impl Into<String>) -> Declined {
    Declined(why.into())
}

fn tag(name: &str) -> Tag {
    Tag::new(name).must("make a tag")
}

async fn count(store: &impl EventStore, tag: &Tag) -> usize {
    let events: Vec<_> = store.read(Read::tag(tag)).try_collect().await.must("read");
    events.len()
}

/// An event with these tags, to a stream of its own.
fn enrolment(stream: &str, tags: &[&Tag]) -> Append {
    let event = tags.iter().fold(opened("ann"), |event, tag| event.with_tag(tag));
    Append::to(&account(stream), ExpectedVersion::NoStream, [event])
}

/// Whether there was a place, and the student had fewer courses than the limit.
async fn enrol(store: &Store, student: &Tag, course: &Tag) -> bool {
    let stream = format!("{student}-{course}");
    let decided = store.decide_on_tags((course, student), |state: &(Enrolled, Enrolled)| {
        let (Enrolled(in_course), Enrolled(of_student)) = state;
        if *in_course >= PLACES || *of_student >= COURSES_OF_STUDENT {
            return Err(declined("full"));
        }
        Ok(enrolment(&stream, &[course, student]))
    });
    match decided.await {
        Ok(_) => true,
        Err(DecideError::Refused(_)) => false,
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_decisions_on_two_tags_keep_the_limits_of_both() {
    let bed = Testbed::new("tags_limits").await;
    let courses: Vec<_> = (0..COURSES).map(|number| tag(&format!("course:{number}"))).collect();
    let students: Vec<_> = (0..STUDENTS).map(|number| tag(&format!("student:{number}"))).collect();
    let pairs = students.iter().flat_map(|student| courses.iter().map(move |of| (student, of)));
    let enrolling = pairs.map(|(student, course)| {
        let (store, student, course) = (bed.store().clone(), student.clone(), course.clone());
        tokio::spawn(async move {
            let is_enrolled = enrol(&store, &student, &course).await;
            (student, course, is_enrolled)
        })
    });
    let mut refused = Vec::new();
    for enrolling in enrolling.collect::<Vec<_>>() {
        let (student, course, is_enrolled) = enrolling.await.must("enrol");
        if !is_enrolled {
            refused.push((student, course));
        }
    }
    for course in &courses {
        assert!(count(bed.store(), course).await <= PLACES, "{course}");
    }
    for student in &students {
        assert!(count(bed.store(), student).await <= COURSES_OF_STUDENT, "{student}");
    }
    // A limit that is reached stays reached.
    for (student, course) in &refused {
        let counts = (count(bed.store(), course).await, count(bed.store(), student).await);
        let is_full = counts.0 == PLACES || counts.1 == COURSES_OF_STUDENT;
        assert!(is_full, "{student} was refused {course}: {counts:?}");
    }
}

async fn append_all(store: Store, appends: Vec<Append>, is_over: Arc<AtomicBool>) {
    for append in appends {
        store.append(&append).await.must("append");
    }
    is_over.store(true, Ordering::Release);
}

/// Refuses states of different moments.
fn equal(state: &(Enrolled, Enrolled)) -> Result<Append, Declined> {
    if state.0 == state.1 { Ok(Append::default()) } else { Err(declined(format!("{state:?}"))) }
}

/// Each append has an event with both tags: their numbers are equal at every moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_states_of_two_tags_are_of_one_moment() {
    const EVENTS: usize = 300;
    let bed = Testbed::new("tags_moment").await;
    let (one, other) = (tag("one"), tag("other"));
    let is_over = Arc::new(AtomicBool::new(false));
    let writer = {
        let store = bed.store().clone();
        let appends: Vec<_> =
            (0..EVENTS).map(|number| enrolment(&number.to_string(), &[&one, &other])).collect();
        tokio::spawn(append_all(store, appends, Arc::clone(&is_over)))
    };
    let mut last = 0;
    while last < EVENTS {
        let was_over = is_over.load(Ordering::Acquire);
        let decided = bed.store().decide_on_tags((&one, &other), equal);
        last = decided.await.must("decide").state.0.0;
        assert!(!was_over || last == EVENTS, "{last}");
    }
    writer.await.must("write");
}

/// Decides to add an event; also returns the states that it was decided on.
async fn decide_seeing(
    store: Store,
    course: Tag,
    tries_max: u32,
) -> (Result<Decided<Enrolled>, DecideError<Declined>>, Vec<usize>) {
    let on = Decide::on(&course).tries_max(NonZeroU32::new(tries_max).must("set tries"));
    let mut seen = Vec::new();
    let decided = store.decide_on_tags(on, |state: &Enrolled| {
        seen.push(state.0);
        Ok(enrolment(&format!("bob-{tries_max}"), &[&course]))
    });
    (decided.await, seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_came_first_is_part_of_the_next_decision() {
    let bed = Testbed::new("tags_first").await;
    let (store, course) = (bed.store(), tag("course:7"));
    let mut open = store.pool().begin().await.must("begin");
    store.append_in(&mut open, &enrolment("ann", &[&course])).await.must("append");
    let deciding =
        |tries_max| tokio::spawn(decide_seeing(store.clone(), course.clone(), tries_max));
    let once = deciding(1);
    bed.until_waiting_for_a_lock().await;
    open.commit().await.must("commit");
    let (contended, seen) = once.await.must("decide");
    assert_eq!(seen, [0]);
    let Err(error @ DecideError::ContendedTags { tries: 1, .. }) = contended else {
        panic!("{contended:?}")
    };
    assert!(error.is_retryable() && error.to_string().contains("tag course:7 after 1 tries"));

    let mut open = store.pool().begin().await.must("begin");
    store.append_in(&mut open, &enrolment("eve", &[&course])).await.must("append");
    let twice = deciding(2);
    bed.until_waiting_for_a_lock().await;
    open.commit().await.must("commit");
    let (decided, seen) = twice.await.must("decide");
    let decided = decided.must("decide");
    assert_eq!((seen, decided.tries, decided.state), (vec![1, 2], 2, Enrolled(3)));
}

async fn repeated_commands(store: &impl EventStore) {
    let course = tag("course:9");
    let command = CommandId::from(Uuid::now_v7());
    let take_the_only_place = async |command: CommandId, stream: &str| {
        let on = Decide::on(&course).command(command);
        let decided = store.decide_on_tags(on, |state: &Enrolled| match state.0 {
            0 => Ok(enrolment(stream, &[&course])),
            _ => Err(declined("full")),
        });
        decided.await
    };
    let first = take_the_only_place(command, "ann").await.must("decide");
    let again = take_the_only_place(command, "ann").await.must("repeat");
    assert!(!first.appended.repeated && again.appended.repeated);
    assert_eq!((&again.appended.events, &again.state), (&first.appended.events, &Enrolled(1)));
    let other = take_the_only_place(CommandId::from(Uuid::now_v7()), "bob").await;
    assert_eq!(other.unwrap_err().refused(), Some(declined("full")));
    let nothing =
        store.decide_on_tags(&course, |_: &Enrolled| Ok::<_, Declined>(Append::default()));
    assert!(nothing.await.must("decide nothing").appended.events.is_empty());
    assert_eq!(count(store, &course).await, 1);
}

#[tokio::test]
async fn a_repeated_command_gets_its_original_answer() {
    repeated_commands(Testbed::new("tags_command").await.store()).await;
    repeated_commands(&MemoryStore::new()).await;
}

async fn other_categories_and_streams(store: &impl EventStore) {
    let course = tag("course:8");
    let ledger = annals_store::StreamName::new("ledger-1").must("name a stream");
    let event = deposited(1).for_category("ledger").with_tag(&course);
    store.append(&Append::to(&ledger, ExpectedVersion::Any, [event])).await.must("append");
    let mut seen = Vec::new();
    let decide = async |stream: &str, seen: &mut Vec<usize>| {
        let decided = store.decide_on_tags(&course, |state: &Enrolled| {
            seen.push(state.0);
            Ok::<_, Declined>(enrolment(stream, &[&course]))
        });
        decided.await
    };
    decide("ann", &mut seen).await.must("decide");
    let refused = decide("ann", &mut seen).await;
    assert_eq!(seen, [0, 1], "an event of another category is applied, or decided on again");
    let Err(DecideError::Append(AppendError::Refused(refusals))) = &refused else {
        panic!("{refused:?}")
    };
    assert!(matches!(&refusals[..], [Refusal::Conflict(_)]), "{refusals:?}");
}

#[tokio::test]
async fn a_state_has_the_events_of_its_category_and_a_conflict_of_a_stream_ends_the_decision() {
    other_categories_and_streams(Testbed::new("tags_category").await.store()).await;
    other_categories_and_streams(&MemoryStore::new()).await;
}
