//! A test of a decision fails where it should: with what differs, with the refusal, and for an
//! event that could not have been recorded.

use annals_store::testing::{When, given};
use annals_store::{Aggregate, events};
use serde::{Deserialize, Serialize, Serializer};

/// A number that no schema allows.
const ILLEGAL: i32 = 13;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Counted {
    id: i64,
    #[serde(serialize_with = "legal")]
    a: i32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn legal<S: Serializer>(number: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    if *number == ILLEGAL {
        return Err(serde::ser::Error::custom("an illegal number"));
    }
    serializer.serialize_i32(*number)
}

events! {
    #[derive(Debug, Clone, PartialEq, Eq)]
    enum CountEvent in "count" {
        Counted = "avro/Counted.v1.avsc",
    }
}

/// The number of events.
#[derive(Debug, Default)]
struct Count(usize);

impl Aggregate for Count {
    type Event = CountEvent;

    fn apply(&mut self, _event: CountEvent) {
        self.0 += 1;
    }
}

fn counted(a: i32) -> CountEvent {
    Counted { id: 1, a }.into()
}

/// A decision on one event.
fn decide(decided: Result<Vec<CountEvent>, &'static str>) -> When<Count, &'static str> {
    given::<Count>(vec![counted(1)]).when(|_| decided)
}

#[test]
fn the_events_of_a_decision_are_compared_and_applied() {
    decide(Ok(vec![counted(2)])).then(vec![counted(2)]).then_state(|count| assert_eq!(count.0, 2));
    decide(Err("no")).then_refused("no");
}

#[test]
#[should_panic(expected = "-             a: 3,\n+             a: 2,\n")]
fn other_events_are_a_failure_with_the_lines_that_differ() {
    decide(Ok(vec![counted(2)])).then(vec![counted(3)]);
}

#[test]
#[should_panic(expected = "the decision was refused: \"no\"")]
fn a_refusal_where_events_are_expected_is_a_failure() {
    decide(Err("no")).then(vec![counted(2)]);
}

#[test]
#[should_panic(expected = "- \"yes\"\n+ \"no\"\n")]
fn another_refusal_is_a_failure() {
    decide(Err("no")).then_refused("yes");
}

#[test]
#[should_panic(expected = "was not refused, it has the events")]
fn events_where_a_refusal_is_expected_are_a_failure() {
    decide(Ok(vec![counted(2)])).then_refused("no");
}

#[test]
#[should_panic(expected = "an event of the decision does not match its schema")]
fn a_decided_event_that_does_not_match_its_schema_is_a_failure() {
    decide(Ok(vec![counted(ILLEGAL)])).then(vec![counted(ILLEGAL)]);
}

#[test]
#[should_panic(expected = "a given event does not match its schema")]
fn a_given_event_that_does_not_match_its_schema_is_a_failure() {
    given::<Count>(vec![counted(ILLEGAL)]).when(|_| Err("no")).then_refused("no");
}

#[test]
#[should_panic(expected = "left: 2")]
fn another_state_is_a_failure() {
    let then = decide(Ok(vec![counted(2)])).then(vec![counted(2)]);
    then.then_state(|count| assert_eq!(count.0, 3));
}
