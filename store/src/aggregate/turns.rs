//! The order of decisions of one process on one stream.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::stream::StreamName;

type Turn = Arc<tokio::sync::Mutex<()>>;

/// Lets the decisions of a process on a stream wait for each other instead of for conflicts: of
/// many concurrent tries on one version, only one can be recorded.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<Mutex<HashMap<StreamName, Turn>>>);

/// The turn of a decision on its streams; others wait until it is dropped.
#[derive(Debug)]
pub(crate) struct TurnGuard {
    turns: Turns,
    streams: Vec<StreamName>,
    guards: Vec<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits for the turn on all streams, in the order of their names, so that two decisions cannot
    /// wait for each other. Decisions on one stream take their turns in the order of their calls.
    pub(crate) async fn take(&self, mut streams: Vec<StreamName>) -> TurnGuard {
        streams.sort();
        streams.dedup();
        let turns = self.clone();
        let mut taken = TurnGuard { turns, streams: Vec::new(), guards: Vec::new() };
        for stream in streams {
            let turn = Arc::clone(self.turns().entry(stream.clone()).or_default());
            // Before the wait, so that a decision that is dropped meanwhile leaves nothing behind.
            taken.streams.push(stream);
            taken.guards.push(turn.lock_owned().await);
        }
        taken
    }

    /// No operation under this lock can leave a partial state.
    fn turns(&self) -> MutexGuard<'_, HashMap<StreamName, Turn>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TurnGuard {
    fn drop(&mut self) {
        let mut turns = self.turns.turns();
        self.guards.clear();
        for stream in &self.streams {
            // In the map alone: no other decision waits for it.
            if turns.get(stream).is_some_and(|turn| Arc::strong_count(turn) == 1) {
                turns.remove(stream);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams(names: &[&str]) -> Vec<StreamName> {
        names.iter().map(|name| StreamName::new(*name).unwrap()).collect()
    }

    async fn wait(turns: Turns, names: &[&str]) {
        drop(turns.take(streams(names)).await);
    }

    #[tokio::test]
    async fn a_turn_lasts_until_it_is_dropped_and_leaves_nothing_behind() {
        let turns = Turns::default();
        let first = turns.take(streams(&["a-2", "a-1", "a-2"])).await;
        let other = turns.take(streams(&["a-3"])).await;
        let waiting = tokio::spawn(wait(turns.clone(), &["a-1"]));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap();
        drop(other);
        assert!(turns.turns().is_empty());
    }

    #[tokio::test]
    async fn a_decision_that_is_dropped_while_it_waits_keeps_no_turn() {
        let turns = Turns::default();
        let first = turns.take(streams(&["a-2"])).await;
        let waiting = tokio::spawn(wait(turns.clone(), &["a-1", "a-2"]));
        tokio::task::yield_now().await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        drop(turns.take(streams(&["a-1"])).await);
        drop(first);
        drop(turns.take(streams(&["a-1", "a-2"])).await);
        assert!(turns.turns().is_empty());
    }
}
