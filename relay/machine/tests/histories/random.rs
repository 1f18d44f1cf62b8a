//! Random schedules from seeds: some steps with faults, then fair ones without, after which
//! everything must be published.

use std::fmt::Write;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::check::{broken, stuck, unfinished};
use crate::planted::Plant;
use crate::world::{Faults, Turn, World};

const SCHEDULES: u64 = 100_000;
/// Maximum number of steps with faults; with refused events, for which a relay needs more steps.
const STEPS_MAX: u64 = 120;
const STEPS_OF_HOLDS_MAX: u64 = 300;
const STEPS_OF_HISTORIES_MAX: u64 = 200;
/// So many fair steps are enough to publish everything.
const FAIR_STEPS_MAX: usize = 3_000;

#[test]
fn a_hundred_thousand_schedules_lose_repeat_and_reorder_nothing_and_end() {
    if let Some((seed, broken)) = first_broken(0..SCHEDULES, None) {
        panic!("seed {seed}: {broken}\n{}", Schedule::new(seed, None).history());
    }
}

/// The first seed in each half of a range whose schedule breaks an invariant, and the broken
/// invariant.
pub(crate) fn first_broken(seeds: Range<u64>, plant: Option<Plant>) -> Option<(u64, String)> {
    let is_found = AtomicBool::new(false);
    let search = |parity: u64| {
        let is_of_use = |seed| plant.is_none_or(|plant| Theme::of(seed).is_of_use(plant));
        let mut own = seeds.clone().filter(|seed| seed % 2 == parity && is_of_use(*seed));
        let found = own.find_map(|seed| {
            if is_found.load(Ordering::Relaxed) {
                return Some(None);
            }
            let broken = Schedule::new(seed, plant).run(&mut |_, _| {})?;
            Some(Some((seed, broken)))
        });
        is_found.fetch_or(found.is_some(), Ordering::Relaxed);
        found.flatten()
    };
    std::thread::scope(|scope| {
        let odd = scope.spawn(|| search(1));
        search(0).or(odd.join().unwrap())
    })
}

/// The first such seed among schedules in which the database keeps its history and pages have no
/// deadline.
pub(crate) fn first_broken_without_histories(
    mut seeds: Range<u64>,
    plant: Plant,
) -> Option<(u64, String)> {
    seeds.find_map(|seed| {
        if Theme::of(seed).has_histories() {
            return None;
        }
        let mut schedule = Schedule::new(seed, Some(plant));
        schedule.world.take_all_the_time();
        Some((seed, schedule.run(&mut |_, _| {})?))
    })
}

/// The faults of a schedule, by its seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Theme {
    /// Relays and the network.
    Plain,
    /// Also refused events. These schedules take longer.
    Holds,
    /// Also a database that goes back.
    Histories,
    /// All of these.
    All,
}

impl Theme {
    const fn of(seed: u64) -> Self {
        match seed / 2 % 16 {
            0 | 8 => Self::Holds,
            4 => Self::All,
            2 | 6 | 10 | 14 => Self::Histories,
            _ => Self::Plain,
        }
    }

    const fn has_holds(self) -> bool {
        matches!(self, Self::Holds | Self::All)
    }

    const fn has_histories(self) -> bool {
        matches!(self, Self::Histories | Self::All)
    }

    /// Whether its schedules can catch a planted bug.
    fn is_of_use(self, plant: Plant) -> bool {
        (!plant.is_of_holds() || self.has_holds())
            && (!plant.is_of_histories() || self.has_histories())
    }
}

/// One schedule.
pub(crate) struct Schedule {
    world: World,
    dice: Dice,
    favourite: usize,
    steps_max: u64,
    /// One step out of so many is a fault.
    fault_odds: u64,
    /// Progress is recorded late.
    is_lazy: bool,
    actions: Vec<Turn>,
}

impl Schedule {
    pub(crate) fn new(seed: u64, plant: Option<Plant>) -> Self {
        let mut dice = Dice(seed);
        let mut few = |sides: u64| u8::try_from(dice.below(sides)).unwrap();
        let faults = Faults {
            crashes: few(3),
            expiries: few(4),
            lost: few(4),
            late: few(4),
            timeouts: few(2),
            stops: few(3),
            overdue: few(3),
            stalls: few(2),
            appends: few(3),
            mendings: 2,
            askings: 2,
            starts: u8::MAX,
            ..Faults::default()
        };
        let relays = 1 + usize::from(few(3));
        let theme = Theme::of(seed);
        let faults = if theme.has_histories() { histories(faults, &mut dice) } else { faults };
        if theme.has_holds() {
            return Self::of_holds(relays, faults, plant, dice);
        }
        let fault_odds = if theme.has_histories() { 4 << dice.below(3) } else { 8 };
        Self {
            world: World::new(relays, faults, plant),
            dice,
            favourite: 0,
            steps_max: if theme.has_histories() { STEPS_OF_HISTORIES_MAX } else { STEPS_MAX },
            fault_odds,
            is_lazy: false,
            actions: Vec::new(),
        }
    }

    /// A schedule in which one event is refused from the start, and mostly another one later.
    fn of_holds(relays: usize, faults: Faults, plant: Option<Plant>, mut dice: Dice) -> Self {
        let refusals = 1 + u8::try_from(dice.below(3)).unwrap();
        let rows = u8::try_from(dice.below(3)).unwrap();
        let mut world = World::new(relays, Faults { refusals, rows, ..faults }, plant);
        world.take(Turn::Refuse(0, 1));
        if world.faults.refusals > 0 && dice.below(4) > 0 {
            world.take(Turn::Refuse(0, 5));
        }
        let fault_odds = 8 << dice.below(3);
        let is_lazy = dice.below(2) == 0;
        let steps_max = STEPS_OF_HOLDS_MAX;
        Self { world, dice, favourite: 0, steps_max, fault_odds, is_lazy, actions: Vec::new() }
    }

    /// Runs it and reports each step; returns the broken invariant, if any.
    pub(crate) fn run(mut self, tell: &mut dyn FnMut(&Turn, &World)) -> Option<String> {
        let steps = self.dice.below(self.steps_max);
        let tended_from = self.dice.below(self.steps_max);
        for step in 0..steps {
            self.world.is_tended = step >= tended_from;
            if let Some(broken) = self.step(tell) {
                return Some(broken);
            }
        }
        self.world.faults = Faults { starts: u8::MAX, ..Faults::default() };
        self.world.is_tended = false;
        if let Some(broken) = self.run_until(stuck, tell) {
            return Some(broken);
        }
        self.world.is_tended = true;
        self.run_until(unfinished, tell)
    }

    /// Continues without faults until nothing is missing; returns the broken or missing part that
    /// remains, if any.
    fn run_until(
        &mut self,
        missing: impl Fn(&World) -> Option<String>,
        tell: &mut dyn FnMut(&Turn, &World),
    ) -> Option<String> {
        for _ in 0..FAIR_STEPS_MAX {
            missing(&self.world)?;
            if let Some(broken) = self.step(tell) {
                return Some(broken);
            }
        }
        missing(&self.world)
    }

    fn step(&mut self, tell: &mut dyn FnMut(&Turn, &World)) -> Option<String> {
        self.choose();
        let number = self.dice.below(u64::try_from(self.actions.len()).unwrap());
        let action = self.actions[usize::try_from(number).unwrap()];
        tell(&action, &self.world);
        self.world.take(action);
        broken(&self.world)
    }

    /// The next possible steps. One relay runs for a while as if the others were frozen: this
    /// creates zombies.
    fn choose(&mut self) {
        if self.dice.below(16) == 0 {
            self.favourite = usize::try_from(self.dice.below(3)).unwrap();
        }
        self.actions.clear();
        if self.dice.below(self.fault_odds) == 0 {
            self.world.faults(&mut self.actions);
            self.prefer_notes();
        }
        if self.actions.is_empty() {
            self.world.fair_actions(&mut self.actions);
            if self.is_lazy && self.dice.below(16) > 0 {
                self.actions.retain(|action| !self.world.is_noting(action));
            }
            let (favourite, is_tick) = (self.favourite, self.dice.below(8) == 0);
            let is_chosen = |action: &Turn| {
                action.relay() == Some(favourite) && matches!(action, Turn::Tick(_)) == is_tick
            };
            if self.dice.below(8) > 0 && self.actions.iter().any(is_chosen) {
                self.actions.retain(is_chosen);
            }
        }
    }

    /// Late records of progress are rare, and cause half of the failures with slow recording.
    fn prefer_notes(&mut self) {
        if self.is_lazy && self.dice.below(2) == 0 {
            let is_noting = |action: &Turn| self.world.is_noting(action);
            if self.actions.iter().any(is_noting) {
                self.actions.retain(is_noting);
            }
        }
    }

    /// The same for people: a line per step, and the broken invariant at the end.
    pub(crate) fn history(self) -> String {
        let mut history = String::new();
        let broken = self.run(&mut |action, world| {
            let _infallible = writeln!(history, "{}", world.describe(action));
        });
        history + &broken.unwrap_or_else(|| "nothing is broken".to_owned())
    }
}

/// Possible changes of the database.
fn histories(faults: Faults, dice: &mut Dice) -> Faults {
    let mut few = |sides: u64| u8::try_from(dice.below(sides)).unwrap();
    let mut histories = [few(3), few(2), few(2), few(2)];
    histories[usize::from(few(4))] += 1;
    Faults {
        appends: 1 + few(4),
        hasty: few(3),
        slow: few(3),
        empty: few(3),
        keeps: few(4),
        histories,
        rows: few(3),
        ..faults
    }
}

/// Splitmix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}
