//! What must hold in every state.

use crate::broker::State;
use crate::world::World;

/// Every stream's committed records are its versions from 0, each once, in order: at every moment, in the order of
/// the log, since that is the order in which readers of committed records get them.
pub(crate) fn broken(world: &World) -> Option<String> {
    for (shard, log) in world.broker.log.iter().enumerate() {
        let mut next = 0;
        let is_committed = |state| matches!(state, State::Committed | State::Committing);
        for (offset, entry) in log.iter().enumerate().filter(|(_, entry)| is_committed(entry.state))
        {
            let (from, to) = entry.versions;
            if from != next {
                return Some(format!(
                    "shard {shard}: version {next} should follow, offset {offset} has version {from}"
                ));
            }
            next = to;
        }
    }
    None
}

/// When nothing fails any more, everything becomes published and nothing holds readers back.
pub(crate) fn unfinished(world: &World) -> Option<String> {
    for (shard, events) in world.database.events.iter().enumerate() {
        let published = world.broker.checkpoint(u16::try_from(shard).unwrap());
        if published != *events {
            return Some(format!("shard {shard}: {published} of {events} events are published"));
        }
    }
    let open = world.broker.with(State::Open);
    (!open.is_empty()).then(|| format!("open transactions of {open:?} hold readers back"))
}
