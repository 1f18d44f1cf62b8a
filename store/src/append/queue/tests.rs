//! The queue of appends, without a server.

use annals_schemas::Schema;
use serde_json::value::RawValue;

use super::*;
use crate::event::{EventId, NewEvent};
use crate::metadata::Metadata;
use crate::stream::ExpectedVersion;

fn append(stream: &str, id: EventId) -> (Append, StreamName) {
    let stream = StreamName::new(stream).unwrap();
    let event = NewEvent {
        id,
        event_type: "E",
        category: stream.category().to_owned().into(),
        schema: Schema::parse(r#"{"type":"record","name":"E","fields":[]}"#).unwrap(),
        set: &[],
        payload: Vec::new(),
        data: RawValue::from_string("{}".to_owned()).unwrap(),
        metadata: Metadata::default(),
        headers: std::collections::BTreeMap::new(),
        tags: std::collections::BTreeSet::new(),
        draft: None,
    };
    (Append::to(&stream, ExpectedVersion::Any, [event]), stream)
}

fn push(queue: &AppendQueue, stream: &str, id: EventId) -> oneshot::Receiver<Reply> {
    let (append, stream) = append(stream, id);
    queue.push(append, stream, None).unwrap()
}

fn new(queue: &AppendQueue, stream: &str) -> oneshot::Receiver<Reply> {
    push(queue, stream, EventId::generate())
}

/// The appends of the next call.
fn call(queue: &AppendQueue) -> Option<Vec<QueuedAppend>> {
    match queue.start() {
        Some(Start::Call) => Some(queue.select()),
        Some(Start::Alone(append)) => panic!("{append:?} goes alone"),
        None => None,
    }
}

fn streams(appends: &[QueuedAppend]) -> Vec<&str> {
    appends.iter().map(|append| append.stream.as_str()).collect()
}

fn names(appends: &[QueuedAppend]) -> Vec<StreamName> {
    appends.iter().map(|append| append.stream.clone()).collect()
}

#[test]
fn a_stream_is_in_one_call_at_a_time_and_keeps_its_order() {
    let queue = AppendQueue::new(Coalescing::default(), 10);
    let _first = [new(&queue, "a"), new(&queue, "b"), new(&queue, "a")];
    let first = call(&queue).unwrap();
    assert_eq!(streams(&first), ["a", "b", "a"]);
    let _second = [new(&queue, "a"), new(&queue, "c")];
    let second = call(&queue).unwrap();
    assert_eq!(streams(&second), ["c"]);
    assert!(call(&queue).is_none(), "a stream is in progress");
    queue.finish_call(Some(&names(&first)), Vec::new());
    assert_eq!(streams(&call(&queue).unwrap()), ["a"]);
}

#[test]
fn appends_that_arrive_before_a_call_selects_join_it() {
    let queue = AppendQueue::new(Coalescing::default(), 10);
    let _first = new(&queue, "a");
    assert!(matches!(queue.start(), Some(Start::Call)));
    let _second = new(&queue, "b");
    assert!(queue.start().is_none(), "a call is about to select");
    let both = queue.select();
    assert_eq!(streams(&both), ["a", "b"]);
    let _third = new(&queue, "c");
    assert_eq!(streams(&call(&queue).unwrap()), ["c"]);
}

#[test]
fn a_call_that_ends_before_it_selects_leaves_its_appends_to_the_next() {
    let queue = AppendQueue::new(Coalescing::default().calls_max(NonZeroUsize::MIN), 10);
    let _receiver = new(&queue, "a");
    assert!(matches!(queue.start(), Some(Start::Call)));
    queue.finish_call(None, Vec::new());
    assert_eq!(streams(&call(&queue).unwrap()), ["a"]);
}

#[test]
fn appends_with_a_common_id_are_in_different_calls() {
    let queue = AppendQueue::new(Coalescing::default(), 10);
    let id = EventId::generate();
    let _receivers = [push(&queue, "a", id), push(&queue, "b", id), new(&queue, "b")];
    assert_eq!(streams(&call(&queue).unwrap()), ["a"], "b keeps its order");
    assert_eq!(streams(&call(&queue).unwrap()), ["b", "b"]);
}

#[test]
fn skipped_appends_go_alone_in_their_order_before_later_ones_of_their_stream() {
    let queue = AppendQueue::new(Coalescing::default(), 10);
    let _receivers = [new(&queue, "a"), new(&queue, "a")];
    let skipped = call(&queue).unwrap();
    let _later = new(&queue, "a");
    queue.finish_call(Some(&names(&skipped)), skipped);
    for _ in 0..2 {
        let Some(Start::Alone(alone)) = queue.start() else { panic!("nothing goes alone") };
        assert!(queue.start().is_none(), "one at a time");
        queue.finish_alone(&alone.stream);
    }
    assert_eq!(streams(&call(&queue).unwrap()), ["a"]);
}

#[test]
fn appends_without_a_caller_are_not_sent_and_calls_have_limits() {
    let one = NonZeroUsize::MIN;
    let queue = AppendQueue::new(Coalescing::default().call_events_max(one).calls_max(one), 10);
    drop(new(&queue, "a"));
    let _receivers = [new(&queue, "b"), new(&queue, "c")];
    assert_eq!(streams(&call(&queue).unwrap()), ["b"]);
    assert!(call(&queue).is_none(), "one call at a time");
    assert!(queue.bypass(&StreamName::new("d").unwrap()).is_none(), "an append waits");
}

#[test]
fn appends_that_can_wait_for_locks_leave_connections_to_the_calls() {
    for connections in 1..20 {
        for calls in 1..20 {
            let calls = NonZeroUsize::new(calls).unwrap();
            let queue = AppendQueue::new(Coalescing::default().calls_max(calls), connections);
            let stream = StreamName::new("a").unwrap();
            let _entered = queue.enter().unwrap();
            let bypassing: Vec<_> = std::iter::from_fn(|| queue.bypass(&stream)).collect();
            let left = usize::try_from(connections).unwrap().checked_sub(bypassing.len()).unwrap();
            assert!(!bypassing.is_empty());
            assert!(left >= queue.options.calls_max.get() || connections == 1);
        }
    }
}

#[test]
fn a_call_has_at_most_so_many_bytes_and_events() {
    let new = |options: Coalescing| {
        let queue = AppendQueue::new(options, 10);
        let receivers = ["a", "b", "c"].map(|stream| {
            let (mut append, stream) = append(stream, EventId::generate());
            append.events[0].1.payload = vec![0; 1_000];
            queue.push(append, stream, None).unwrap()
        });
        (queue, receivers)
    };
    let (queue, _receivers) = new(Coalescing::default());
    let bytes = call(&queue).unwrap().iter().map(|append| append.bytes).max().unwrap();
    assert!(bytes >= 1_000);
    for (bytes_max, appends) in [(3 * bytes, 3), (3 * bytes - 1, 2), (bytes, 1)] {
        let bytes_max = NonZeroUsize::new(bytes_max).unwrap();
        let (queue, _receivers) = new(Coalescing::default().call_bytes_max(bytes_max));
        assert_eq!(call(&queue).unwrap().len(), appends, "{bytes_max} bytes");
    }
    let (queue, _receivers) = new(Coalescing::default().call_events_max(NonZeroUsize::MIN));
    assert_eq!(call(&queue).unwrap().len(), 1);
    let too_large = Coalescing::default().call_bytes_max(NonZeroUsize::MIN);
    assert_eq!(
        AppendQueue::new(too_large, 10).stream_of(&append("a", EventId::generate()).0),
        None
    );
}

#[test]
fn a_call_that_is_dropped_with_its_appends_ends_them_and_frees_their_streams() {
    let queue = AppendQueue::new(Coalescing::default(), 10);
    let mut receivers = [new(&queue, "a"), new(&queue, "b")];
    let appends = call(&queue).unwrap();
    let streams_of_call = names(&appends);
    let _later = new(&queue, "a");
    drop(appends);
    queue.finish_call(Some(&streams_of_call), Vec::new());
    for receiver in &mut receivers {
        assert_eq!(receiver.try_recv().unwrap_err(), oneshot::error::TryRecvError::Closed);
    }
    assert_eq!(streams(&call(&queue).unwrap()), ["a"]);
}
