//! The invariants of every state.

use crate::broker::State;
use crate::database::SHARDS;
use crate::reading::{STREAMS, stream};
use crate::world::World;

/// Every stream's committed records are its events from the first, each once, in order. This holds
/// at every moment, in the order of the log, in which readers of committed records receive them.
pub(crate) fn broken(world: &World) -> Option<String> {
    for shard in 0..usize::from(SHARDS) {
        // A shard's events are numbered consecutively, and its streams alternate.
        let mut next = [0, 1];
        for (offset, event) in world.broker.published(shard).enumerate() {
            let expected = &mut next[stream(event)];
            if event != *expected {
                return Some(format!(
                    "shard {shard}: event {expected} should follow, offset {offset} has event {event}"
                ));
            }
            *expected += STREAMS;
        }
    }
    None
}

/// Without an operator, everything is eventually published, except the streams that can be
/// quarantined.
pub(crate) fn stuck(world: &World) -> Option<String> {
    missing(world, |event| stream(event) == 0)
}

/// When faults end, everything is eventually published, no entry is left in quarantine, and no
/// transaction blocks readers.
pub(crate) fn unfinished(world: &World) -> Option<String> {
    if let Some(missing) = missing(world, |_| true) {
        return Some(missing);
    }
    let holds = &world.database.holds;
    if holds.iter().any(Option::is_some) {
        return Some(format!("all is published, and {holds:?} are held"));
    }
    let open = world.broker.with(State::Open);
    (!open.is_empty()).then(|| format!("open transactions of {open:?} hold readers back"))
}

fn missing(world: &World, is_wanted: impl Fn(u8) -> bool) -> Option<String> {
    for (shard, events) in world.database.events.iter().enumerate() {
        let all = (0..*events).filter(|event| is_wanted(*event)).count();
        let published = world.broker.published(shard).filter(|event| is_wanted(*event)).count();
        if published != all {
            return Some(format!("shard {shard}: {published} of {all} events are published"));
        }
    }
    None
}
