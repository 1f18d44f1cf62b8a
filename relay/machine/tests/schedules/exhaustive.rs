//! Every schedule of some small worlds, up to a number of preemptions.
//!
//! One relay runs until it can only wait; an earlier interruption is a preemption. Its work in
//! flight is executed and answered in the order in which it was begun; any other order is a
//! reordering. With few of both, and each fault at every place, every schedule can be tried.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use crate::check::broken;
use crate::disturbances::Disturbances;
use crate::world::{Faults, Turn, World};

/// A world, the running relay, and the remaining budget of preemptions and faults.
#[derive(Clone, Hash)]
struct Node {
    world: World,
    running: usize,
    preemptions: u8,
    reorderings: u8,
}

impl Node {
    /// Every next step, with the world after it.
    fn next(&self) -> Vec<(Turn, Self)> {
        let mut fair = Vec::new();
        self.world.fair_actions(&mut fair);
        let mut next = self.by_relays(&fair);
        // Steps of brokers and expired leases need no relay.
        let of_nobody = fair.iter().filter(|action| action.relay().is_none());
        next.extend(of_nobody.map(|action| self.after(*action)));
        let mut faults = Vec::new();
        self.world.faults(&mut faults);
        next.extend(faults.iter().map(|action| self.after(*action)));
        next
    }

    fn by_relays(&self, fair: &[Turn]) -> Vec<(Turn, Self)> {
        let mut next = Vec::new();
        let due = |relay| fair.iter().copied().filter(move |action| action.relay() == Some(relay));
        let is_waiting = |action: &Turn| matches!(action, Turn::Tick(_) | Turn::Resume(_));
        let is_blocked = due(self.running).all(|action| is_waiting(&action));
        for relay in 0..self.world.relays.len() {
            let (mut node, is_running) = (self.clone(), relay == self.running);
            node.running = relay;
            let is_preempted = !is_running && !is_blocked;
            if is_preempted && node.preemptions == 0 {
                continue;
            }
            node.preemptions -= u8::from(is_preempted);
            let first = due(relay).find(|action| !is_waiting(action)).or_else(|| due(relay).next());
            next.extend(first.map(|action| node.after(action)));
            if node.reorderings > 0 {
                node.reorderings -= 1;
                let others = due(relay).filter(|action| Some(*action) != first);
                next.extend(others.map(|action| node.after(action)));
            }
        }
        next
    }

    fn after(&self, action: Turn) -> (Turn, Self) {
        let mut node = self.clone();
        node.world.take(action);
        (action, node)
    }
}

/// Visits every reachable state, and returns their number.
///
/// # Panics
/// In the first state that breaks an invariant.
fn explore(relays: usize, allowed: (u8, u8), faults: Faults) {
    let hasher = BuildHasherDefault::<Mixer>::default();
    let world = World::new(relays, Disturbances::default(), faults, None);
    let (preemptions, reorderings) = allowed;
    let mut open = vec![Node { world, running: 0, preemptions, reorderings }];
    let mut seen = HashSet::with_hasher(hasher.clone());
    while let Some(node) = open.pop() {
        for (action, next) in node.next() {
            if seen.insert(hasher.hash_one(&next)) {
                let broken = broken(&next.world);
                let what = node.world.describe(&action);
                assert!(broken.is_none(), "{broken:?} after {what}\n{:#?}", next.world);
                open.push(next);
            }
        }
    }
    println!("{} states", seen.len());
}

/// Some million states need no hash that resists attacks: this one is several times as fast as the
/// standard one.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u8(*byte));
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(word.into());
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    /// Each step can be undone, so that no bit is lost.
    fn write_u64(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[test]
fn one_relay_that_crashes_anywhere_and_starts_again() {
    explore(1, (0, 0), Faults { crashes: 1, lost: 1, late: 1, starts: 2, ..Faults::default() });
}

#[test]
fn two_relays_of_which_one_loses_its_lease_at_any_moment() {
    explore(2, (2, 0), Faults { expiries: 1, starts: 2, ..Faults::default() });
}

#[test]
fn two_relays_one_crash_and_one_stop_at_any_moment() {
    explore(2, (0, 0), Faults { crashes: 1, stops: 1, starts: 3, ..Faults::default() });
}

#[test]
#[ignore = "takes a minute of processor time: part of make schedules"]
fn two_relays_one_crash_one_stop_and_one_lost_answer_at_any_moment() {
    explore(2, (0, 0), Faults { crashes: 1, stops: 1, lost: 1, starts: 3, ..Faults::default() });
}

#[test]
fn three_relays_of_which_two_lose_their_leases_at_any_moment() {
    explore(3, (1, 0), Faults { expiries: 2, starts: 3, ..Faults::default() });
}

#[test]
fn two_relays_of_which_one_cannot_reach_kafka_or_has_work_that_is_not_answered() {
    explore(2, (0, 0), Faults { lost: 1, overdue: 1, starts: 2, ..Faults::default() });
    explore(2, (1, 0), Faults { stalls: 1, starts: 2, ..Faults::default() });
}
