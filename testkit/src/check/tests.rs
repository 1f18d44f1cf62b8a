//! The checker finds each planted fault, names it correctly, and reports nothing else.

use super::*;
use crate::history::AttemptedEvent;

const STREAMS: [&str; 2] = ["account-a", "account-b"];

/// Three events on each of two streams, acknowledged, recorded and consumed; stream b in partition
/// 1.
fn clean() -> History {
    let mut history = History::default();
    for (number, stream) in (0_u8..6).map(|number| (number, STREAMS[usize::from(number % 2)])) {
        let (version, position) = (i64::from(number / 2), i64::from(number) + 1);
        let id = id(number);
        let (stream, payload) = (stream.to_owned(), vec![number]);
        let attempted = AttemptedEvent { id, stream: stream.clone(), version: Some(version) };
        history.attempts.push(Attempt { outcome: Outcome::Acknowledged, events: vec![attempted] });
        history.consumed.push(Consumed {
            id,
            stream: stream.clone(),
            version,
            payload: payload.clone(),
            topic: "t".to_owned(),
            partition: i32::from(number % 2),
            offset: version,
        });
        history.recorded.push(Recorded { id, stream, version, position, payload });
    }
    history
}

fn id(number: u8) -> Uuid {
    Uuid::from_u128(u128::from(number) + 1)
}

/// The indexes of stream a's three versions in the lists of `clean`.
const A: [usize; 3] = [0, 2, 4];

fn stream_a() -> String {
    STREAMS[0].to_owned()
}

#[test]
fn a_clean_run_has_no_violation() {
    assert_eq!(check(&clean()), []);
    assert_eq!(check(&History::default()), []);
}

#[test]
fn an_event_that_never_reached_its_topic_is_found() {
    let mut history = clean();
    history.consumed.remove(A[1]);
    let lost = Violation::Lost { id: id(2), stream: stream_a(), version: 1 };
    assert_eq!(check(&history), [lost, Violation::Gap { stream: stream_a(), version: 1 }]);
}

#[test]
fn a_lost_last_event_is_found_though_it_leaves_no_gap() {
    let mut history = clean();
    history.consumed.remove(A[2]);
    assert_eq!(check(&history), [Violation::Lost { id: id(4), stream: stream_a(), version: 2 }]);
}

#[test]
fn a_gap_on_the_topic_is_found_without_the_store() {
    let mut history = clean();
    history.consumed.remove(A[1]);
    history.recorded.retain(|event| event.id != id(2));
    let found = check(&history);
    assert!(found.contains(&Violation::Gap { stream: stream_a(), version: 1 }), "{found:?}");
}

#[test]
fn an_event_that_came_twice_is_found() {
    let mut history = clean();
    let again = Consumed { offset: 3, ..history.consumed[A[0]].clone() };
    history.consumed.push(again);
    let (first, again) = ("t[0]@0".to_owned(), "t[0]@3".to_owned());
    assert_eq!(check(&history), [Violation::Duplicate { id: id(0), first, again }]);
}

#[test]
fn another_event_at_a_taken_version_is_found() {
    let mut history = clean();
    history.consumed.push(Consumed { id: id(9), offset: 3, ..history.consumed[A[0]].clone() });
    let (first, again) = ("t[0]@0".to_owned(), "t[0]@3".to_owned());
    let twice =
        Violation::VersionTwice { stream: stream_a(), version: 0, first, again: again.clone() };
    assert_eq!(check(&history), [Violation::Ghost { id: id(9), place: again }, twice]);
}

#[test]
fn an_inverted_pair_is_found() {
    let mut history = clean();
    let (first, second) = (history.consumed[A[0]].clone(), history.consumed[A[1]].clone());
    history.consumed[A[0]] = Consumed { offset: 0, ..second };
    history.consumed[A[1]] = Consumed { offset: 1, ..first };
    let place = "t[0]@1".to_owned();
    assert_eq!(
        check(&history),
        [Violation::Inversion { stream: stream_a(), version: 0, after: 1, place }]
    );
}

#[test]
fn a_record_of_an_append_that_was_rolled_back_is_found_on_both_sides() {
    for outcome in [Outcome::RolledBack, Outcome::Refused] {
        let mut history = clean();
        history.attempts[A[2]].outcome = outcome;
        let unwanted = Violation::Unwanted { id: id(4), stream: stream_a(), outcome };
        assert_eq!(check(&history), [unwanted]);
        history.recorded.remove(A[2]);
        let place = "t[0]@2".to_owned();
        assert_eq!(check(&history), [Violation::Ghost { id: id(4), place }]);
    }
}

#[test]
fn an_acknowledged_event_that_the_store_has_not_is_found() {
    let mut history = clean();
    history.recorded.remove(A[2]);
    history.consumed.remove(A[2]);
    let missing = Violation::AcknowledgedMissing { id: id(4), stream: stream_a() };
    assert_eq!(check(&history), [missing]);
}

#[test]
fn an_answer_with_another_version_is_found() {
    let mut history = clean();
    history.attempts[A[2]].events[0].version = Some(1);
    let wrong = Violation::AnswerWrong { id: id(4), answered: 1, recorded: 2 };
    assert_eq!(check(&history), [wrong]);
}

#[test]
fn an_unknown_append_may_be_there_or_not_but_not_half() {
    let mut history = clean();
    let events = history.attempts.drain(..).flat_map(|attempt| attempt.events).collect();
    history.attempts.push(Attempt { outcome: Outcome::Unknown, events });
    assert_eq!(check(&history), []);
    history.recorded.clear();
    history.consumed.clear();
    assert_eq!(check(&history), []);

    let whole = clean();
    history.recorded = whole.recorded[..2].to_vec();
    history.consumed = whole.consumed[..2].to_vec();
    let (ids_recorded, ids_missing) = ((0..2).map(id).collect(), (2..6).map(id).collect());
    assert_eq!(check(&history), [Violation::Torn { ids_recorded, ids_missing }]);
}

#[test]
fn a_hole_in_a_stream_of_the_store_is_found() {
    let mut history = clean();
    history.attempts.clear();
    history.recorded.remove(A[1]);
    history.consumed.remove(A[1]);
    let hole = Violation::HoleInStream { stream: stream_a(), version: 1 };
    assert_eq!(check(&history), [hole, Violation::Gap { stream: stream_a(), version: 1 }]);
}

#[test]
fn positions_that_fall_within_a_stream_are_found() {
    let mut history = clean();
    history.recorded[A[1]].position = 100;
    assert_eq!(check(&history), [Violation::PositionsInverted { stream: stream_a(), version: 2 }]);
}

#[test]
fn a_record_with_another_content_is_found() {
    let mut history = clean();
    history.consumed[A[1]].payload = b"forged".to_vec();
    let place = "t[0]@1".to_owned();
    assert_eq!(check(&history), [Violation::Altered { id: id(2), place }]);
}

#[test]
fn a_stream_in_two_partitions_is_found() {
    let mut history = clean();
    history.consumed[A[2]].partition = 7;
    let partitions = vec!["t[0]".to_owned(), "t[7]".to_owned()];
    assert_eq!(check(&history), [Violation::SplitStream { stream: stream_a(), partitions }]);
}

#[test]
fn offsets_handed_out_of_order_are_found() {
    let mut history = clean();
    history.consumed[A[1]].offset = 0;
    let place = "t[0]@0".to_owned();
    assert_eq!(check(&history), [Violation::OffsetsInverted { place, after: 0 }]);
}
