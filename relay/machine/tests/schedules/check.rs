//! What must hold in every state.

use crate::broker::State;
use crate::database::SHARDS;
use crate::reading::{STREAMS, stream};
use crate::world::World;

/// Every stream's committed records are its events from the first, each once, in order: at every moment, in the order
/// of the log, since that is the order in which readers of committed records get them.
pub(crate) fn broken(world: &World) -> Option<String> {
    for shard in 0..usize::from(SHARDS) {
        // A shard's events are numbered through, and its streams take turns.
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

/// Without anybody's help, everything but the streams that can be held becomes published.
pub(crate) fn stuck(world: &World) -> Option<String> {
    missing(world, |event| stream(event) == 0)
}

/// When nothing fails any more, everything becomes published, nothing is held, and nothing holds readers back.
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
