//! The invariants of every state.

use std::collections::BTreeSet;

use crate::broker::State;
use crate::database::SHARDS;
use crate::outbox::{Event, STREAMS};
use crate::world::World;

/// The broken invariant of a state, if any.
pub(crate) fn broken(world: &World) -> Option<String> {
    if world.is_halted && !world.is_lossy {
        return Some("a relay halted, and nothing was lost".to_owned());
    }
    (0..usize::from(SHARDS)).find_map(|shard| broken_in(world, shard))
}

/// Every stream's committed records are its events from the first, each once, in order. This holds
/// at every moment, in the order of the log, in which readers of committed records receive them.
/// Events of a lost history may come between them; until an operator has acted, no event of the new
/// history may.
fn broken_in(world: &World, shard: usize) -> Option<String> {
    let outbox = &world.database.outbox;
    let mut next = [0, 1];
    let mut lost = BTreeSet::new();
    let mut latest = 0;
    for (offset, event) in world.broker.published(shard).enumerate() {
        if !outbox.has(shard, event) {
            if !lost.insert(event) {
                return Some(format!("shard {shard}: {event:?} of a lost history stands twice"));
            }
            continue;
        }
        let expected = &mut next[usize::from(event.stream())];
        if event.number != *expected {
            let number = event.number;
            return Some(format!(
                "shard {shard}: event {expected} should follow, offset {offset} has event {number}"
            ));
        }
        *expected += STREAMS;
        latest = latest.max(event.branch);
    }
    let unknown = lost.iter().find(|event| !world.acknowledged.contains(&(shard, **event)))?;
    let is_mixed = latest > unknown.branch;
    is_mixed.then(|| format!("shard {shard}: a new history is published beside {unknown:?}"))
}

/// Without an operator, everything is eventually published, except the streams that can be
/// quarantined.
pub(crate) fn stuck(world: &World) -> Option<String> {
    missing(world, |event| !event.can_be_held())
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

fn missing(world: &World, is_wanted: impl Fn(&Event) -> bool) -> Option<String> {
    for shard in 0..usize::from(SHARDS) {
        let outbox = &world.database.outbox;
        let all = outbox.events(shard).filter(&is_wanted).count();
        let published = world.broker.published(shard);
        let published =
            published.filter(|event| is_wanted(event) && outbox.has(shard, *event)).count();
        if published != all {
            return Some(format!("shard {shard}: {published} of {all} events are published"));
        }
    }
    None
}
