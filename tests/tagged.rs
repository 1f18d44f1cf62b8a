//! An append under a condition on tags: of two that would both pass, one does; only appends that
//! share a tag wait for each other.

use annals_store::{
    Append, AppendCondition, AppendError, Appended, ExpectedVersion, NewEvent, Position, Read,
    RecordedEvent, Refusal, Store, StreamName, TAGS_PER_APPEND_MAX, Tag, TagConflict, Version,
};
use annals_testkit::{DEADLINE, Must, Testbed, account, closed, deposited, opened};
use futures_util::TryStreamExt;
use sqlx::{Connection, PgConnection};
use tokio::task::JoinHandle;

const COURSES: usize = 4;
const STUDENTS: usize = 12;
const PLACES: usize = 5;

fn tag(name: &str) -> Tag {
    Tag::new(name).must("make a tag")
}

async fn with_tag(store: &Store, tag: &Tag) -> Vec<RecordedEvent> {
    store.read(Read::tag(tag)).try_collect().await.must("read")
}

/// An event with a tag, to a stream of its own, if nothing else has the tag.
fn first_of(tag: &Tag, stream: &StreamName) -> Append {
    Append::to(stream, ExpectedVersion::NoStream, [opened("ann").with_tag(tag)])
        .under(AppendCondition::no_event_with(tag.clone()))
        .with_conflict_events(10)
}

fn conflict<'a>(result: &'a Result<Appended, AppendError>, tag: &Tag) -> &'a TagConflict {
    match result {
        Ok(appended) => panic!("recorded: {appended:?}"),
        Err(error) => error.conflict_of_tag(tag).unwrap_or_else(|| panic!("{error}")),
    }
}

fn spawn(store: &Store, append: Append) -> JoinHandle<Result<Appended, AppendError>> {
    let store = store.clone();
    tokio::spawn(async move { store.append(&append).await })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_open_appends_under_one_condition_the_second_is_refused_with_the_event() {
    let bed = Testbed::new("tagged_two").await;
    let (store, tag) = (bed.store(), tag("course:7"));
    let mut open = store.pool().begin().await.must("begin");
    let first = first_of(&tag, &account("ann"));
    let recorded = store.append_in(&mut open, &first).await.must("append");
    let second = spawn(store, first_of(&tag, &account("bob")));
    bed.until_waiting_for_a_lock().await;
    open.commit().await.must("commit");

    let refused = second.await.must("append");
    let conflict = conflict(&refused, &tag);
    let position = recorded.events[0].1;
    assert_eq!((conflict.after, conflict.last), (Position::ORIGIN, position));
    let events: Vec<_> = conflict.events.iter().map(|event| event.position).collect();
    assert_eq!(events, [position]);
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("course:7"), "{text}");
    // Decided again on what came first.
    let condition = AppendCondition::no_event_with(tag.clone()).after(Some(position));
    let again = Append::to(&account("bob"), ExpectedVersion::NoStream, [opened("bob")]);
    store.append(&again.under(condition)).await.must("append behind the event");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolled_back_append_breaks_no_condition() {
    let bed = Testbed::new("tagged_rollback").await;
    let (store, tag) = (bed.store(), tag("course:7"));
    let mut open = store.pool().begin().await.must("begin");
    store.append_in(&mut open, &first_of(&tag, &account("ann"))).await.must("append");
    let second = spawn(store, first_of(&tag, &account("bob")));
    bed.until_waiting_for_a_lock().await;
    open.rollback().await.must("roll back");
    second.await.must("append").must("be first");
    assert_eq!(with_tag(store, &tag).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_with_other_tags_and_without_tags_do_not_wait() {
    let bed = Testbed::new("tagged_beside").await;
    let (store, held) = (bed.store(), tag("held"));
    let mut open = store.pool().begin().await.must("begin");
    store.append_in(&mut open, &first_of(&held, &account("held"))).await.must("append");
    for number in 0..100 {
        let other = tag(&format!("other:{number}"));
        let beside = [
            first_of(&other, &account(format!("other{number}"))),
            Append::to(&account(number), ExpectedVersion::Any, [deposited(1)]),
        ];
        for append in beside {
            let appended = tokio::time::timeout(DEADLINE, store.append(&append)).await;
            appended.must("append beside an open transaction").must("append");
        }
    }
    open.rollback().await.must("roll back");
}

/// Else a reader of the tag could pass over an event that commits later with a lower position.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_with_a_tag_commit_in_the_order_of_their_positions_also_without_a_condition() {
    let bed = Testbed::new("tagged_order").await;
    let (store, tag) = (bed.store(), tag("course:7"));
    let append = |name: &str| {
        Append::to(&account(name), ExpectedVersion::Any, [deposited(1).with_tag(&tag)])
    };
    let mut open = store.pool().begin().await.must("begin");
    store.append_in(&mut open, &append("ann")).await.must("append");
    let later = spawn(store, append("bob"));
    bed.until_waiting_for_a_lock().await;
    assert!(with_tag(store, &tag).await.is_empty(), "the later event is seen first");
    open.commit().await.must("commit");
    later.await.must("append").must("append");
    let streams: Vec<_> = with_tag(store, &tag).await.into_iter().map(|e| e.stream).collect();
    assert_eq!(streams, [account("ann"), account("bob")]);
}

/// Reads how many students a course has, and enrols if there is a place, until there is none.
async fn enrol(store: Store, student: usize, courses: Vec<Tag>) -> usize {
    let mut enrolled = 0;
    for (number, course) in courses.iter().enumerate() {
        let student = tag(&format!("student:{student}"));
        loop {
            let events = with_tag(&store, course).await;
            let own = with_tag(&store, &student).await;
            if events.len() >= PLACES {
                break;
            }
            let condition = |tag: &Tag, events: &[RecordedEvent]| {
                let last = events.last().map(|event| event.position);
                AppendCondition::no_event_with(tag.clone()).after(last)
            };
            let event = opened("ann").with_tag(course).with_tag(&student);
            let stream = account(format!("{student}:{number}"));
            let append = Append::to(&stream, ExpectedVersion::NoStream, [event])
                .under(condition(course, &events))
                .under(condition(&student, &own));
            match store.append(&append).await {
                Ok(_) => {
                    enrolled += 1;
                    break;
                }
                Err(error) => assert!(error.conflict_of_tag(course).is_some(), "{error}"),
            }
        }
    }
    enrolled
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_place_of_a_course_is_given_twice_to_concurrent_students() {
    let bed = Testbed::new("tagged_courses").await;
    let courses: Vec<_> = (0..COURSES).map(|number| tag(&format!("course:{number}"))).collect();
    let students = (0..STUDENTS).map(|student| {
        // Some in the opposite order: locks of two tags do not deadlock.
        let mut courses = courses.clone();
        if student % 2 == 0 {
            courses.reverse();
        }
        tokio::spawn(enrol(bed.store().clone(), student, courses))
    });
    let mut enrolled = 0;
    for student in students.collect::<Vec<_>>() {
        enrolled += student.await.must("enrol");
    }
    assert_eq!(enrolled, COURSES * PLACES);
    for course in &courses {
        assert_eq!(with_tag(bed.store(), course).await.len(), PLACES);
    }
}

#[tokio::test]
async fn a_repetition_gets_the_original_answer_although_its_events_break_its_condition() {
    let bed = Testbed::new("tagged_repeated").await;
    let (store, tag) = (bed.store(), tag("course:7"));
    let append = first_of(&tag, &account("ann"));
    let first = store.append(&append).await.must("append");
    let again = store.append(&append).await.must("repeat");
    assert!(again.repeated, "{again:?}");
    assert_eq!(again.events, first.events);
    assert_eq!(with_tag(store, &tag).await.len(), 1);
}

#[tokio::test]
async fn only_events_of_the_types_of_a_condition_break_it() {
    let bed = Testbed::new("tagged_types").await;
    let (store, tag) = (bed.store(), tag("course:7"));
    store.append(&first_of(&tag, &account("ann"))).await.must("append");
    let under = |types: [&'static str; 1]| {
        let condition = AppendCondition::no_event_with(tag.clone()).of_types(types);
        Append::to(&account("bob"), ExpectedVersion::Any, [deposited(1).with_tag(&tag)])
            .under(condition)
    };
    store.append(&under(["AccountClosed"])).await.must("append beside another type");
    conflict(&store.append(&under(["MoneyDeposited"])).await, &tag);
    let read = Read::tag(&tag).of_types(["MoneyDeposited"]).backwards();
    let events: Vec<_> = store.read(read).try_collect().await.must("read");
    assert_eq!(events.len(), 1);
}

#[tokio::test]
async fn a_version_conflict_of_an_append_with_tags_writes_nothing() {
    let bed = Testbed::new("tagged_version").await;
    let (store, tag, stream) = (bed.store(), tag("course:7"), account("ann"));
    let append = Append::to(
        &stream,
        ExpectedVersion::Exactly(Version::FIRST),
        [deposited(1).with_tag(&tag)],
    );
    let error = store.append(&append).await.unwrap_err();
    assert!(error.conflict_of(&stream).is_some(), "{error}");
    assert!(with_tag(store, &tag).await.is_empty());
    let rows: i64 = sqlx::query_scalar(include_str!("sql/count_tags.sql"))
        .fetch_one(store.pool())
        .await
        .must("count tags");
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn a_transaction_above_read_committed_is_refused_and_stays_usable() {
    let bed = Testbed::new("tagged_isolation").await;
    let (store, tag) = (bed.store(), tag("course:7"));
    let mut connection = PgConnection::connect(&bed.database_url()).await.must("connect");
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let begin = match level {
            "SERIALIZABLE" => "begin isolation level serializable",
            _ => "begin isolation level repeatable read",
        };
        let mut open = connection.begin_with(begin).await.must("begin");
        let refused = store.append_in(&mut open, &first_of(&tag, &account("ann"))).await;
        let error = refused.unwrap_err();
        let AppendError::Refused(refusals) = &error else { panic!("{error}") };
        assert!(matches!(&refusals[..], [Refusal::Isolation { .. }]), "{error}");
        assert!(error.to_string().contains(level), "{error}");
        let plain = Append::to(&account(level.len()), ExpectedVersion::NoStream, [opened("bob")]);
        store.append_in(&mut open, &plain).await.must("append without tags");
        open.commit().await.must("commit");
    }
}

#[tokio::test]
async fn tags_leave_with_a_removed_event_and_stay_with_an_archived_one() {
    let bed = Testbed::new("tagged_removed").await;
    let (store, tag) = (bed.store(), tag("ann@example.org"));
    let [truncated, archived] = ["truncated", "archived"].map(account);
    for stream in [&truncated, &archived] {
        let events = [opened("ann").with_tag(&tag), closed()];
        store.append(&Append::to(stream, ExpectedVersion::NoStream, events)).await.must("append");
    }
    let second = Version::new(1).must("make a version");
    store.truncate_stream(&truncated, second, "on request").await.must("truncate");
    store.close_stream(&archived, "old").await.must("close");
    store.archive_stream(&archived, "old").await.must("archive");
    assert!(with_tag(store, &tag).await.is_empty());
    store.append(&first_of(&tag, &account("new"))).await.must("append under the condition");

    store.restore_stream(&archived, "needed").await.must("restore");
    let streams: Vec<_> = with_tag(store, &tag).await.into_iter().map(|e| e.stream).collect();
    assert_eq!(streams, [archived, account("new")]);
    let rows: i64 = sqlx::query_scalar(include_str!("sql/count_tags.sql"))
        .fetch_one(store.pool())
        .await
        .must("count tags");
    assert_eq!(rows, 2, "a tag of a removed event stays");
}

#[tokio::test]
async fn an_append_with_too_many_tags_is_refused() {
    let bed = Testbed::new("tagged_many").await;
    let tags: Vec<_> = (0..=TAGS_PER_APPEND_MAX).map(|number| tag(&number.to_string())).collect();
    let with = |tags: &[Tag]| {
        let event = tags.iter().fold(opened("ann"), NewEvent::with_tag);
        Append::to(&account("ann"), ExpectedVersion::NoStream, [event])
    };
    let error = bed.store().append(&with(&tags)).await.unwrap_err();
    assert!(error.to_string().contains("tags of the append: 101, at most 100"), "{error}");
    bed.store().append(&with(&tags[1..])).await.must("append with the most tags");
}
