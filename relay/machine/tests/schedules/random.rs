//! Random schedules from seeds: some steps with faults, then fair ones without, after which
//! everything must be published.

use std::fmt::Write;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::check::{broken, stuck, unfinished};
use crate::database::SHARDS;
use crate::disturbances::{Disturbances, History, Pages, Quarantine, Replicas};
use crate::planted::Plant;
use crate::world::{Faults, Going, Turn, World};

/// `ANNALS_SCHEDULES` sets another number: `make schedules` runs a million.
const SCHEDULES: u64 = 20_000;
/// One in so many is a schedule with histories, which takes longer.
const SCHEDULES_PER_HISTORY: u64 = 10;
/// Maximum number of steps with faults; with refused events or many transactions, for which a relay
/// needs more steps.
const STEPS_MAX: u64 = 120;
const STEPS_OF_QUARANTINE_MAX: u64 = 300;
/// So many fair steps are enough to publish everything.
const FAIR_STEPS_MAX: usize = 3_000;

#[test]
fn random_schedules_lose_repeat_and_reorder_nothing_and_end() {
    assert_unbroken(schedules(), Theme::with_a_fixed_history);
}

#[test]
fn random_schedules_with_histories_lose_repeat_and_reorder_nothing_and_end() {
    assert_unbroken(schedules() / SCHEDULES_PER_HISTORY, Theme::with_a_moving_history);
}

fn schedules() -> u64 {
    std::env::var("ANNALS_SCHEDULES").map_or(SCHEDULES, |number| number.parse().unwrap())
}

fn assert_unbroken(schedules: u64, theme: fn(u64) -> Theme) {
    if let Some((seed, broken)) = first_broken(0..schedules, theme, None) {
        panic!("seed {seed}: {broken}\n{}", Schedule::new(seed, theme(seed), None).history());
    }
}

/// The first seed in each half of a range whose schedule breaks an invariant, and the broken
/// invariant.
pub(crate) fn first_broken(
    seeds: Range<u64>,
    theme: impl Fn(u64) -> Theme + Sync,
    plant: Option<Plant>,
) -> Option<(u64, String)> {
    let is_found = AtomicBool::new(false);
    let search = |parity: u64| {
        let mut own = seeds.clone().filter(|seed| seed % 2 == parity);
        let found = own.find_map(|seed| {
            if is_found.load(Ordering::Relaxed) {
                return Some(None);
            }
            let broken = Schedule::new(seed, theme(seed), plant).run(&mut |_, _| {})?;
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

/// The disturbances of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Theme {
    /// Faults of relays, of the network and of the broker only.
    Relays,
    /// Three relays that lose their leases while they are frozen, and no other fault.
    Zombies,
    /// The same, and partitions with too few replicas.
    Shortages,
    /// Faults of relays, and refused events. These schedules take longer.
    Quarantine,
    /// The same, with deadlines that end pages halfway.
    HalfReadPages,
    /// A database that goes back, at least once in this way.
    History(Going),
    /// The same, with refused events.
    All(Going),
}

impl Theme {
    pub(crate) const fn with_a_fixed_history(seed: u64) -> Self {
        match seed / 2 % 8 {
            0 => Self::Quarantine,
            2 => Self::Shortages,
            4 => Self::Zombies,
            _ => Self::Relays,
        }
    }

    const fn with_a_moving_history(seed: u64) -> Self {
        let going = Going::ALL[(seed / 2 % 4) as usize];
        match seed / 8 % 8 {
            0 | 4 => Self::All(going),
            2 => Self::HalfReadPages,
            _ => Self::History(going),
        }
    }

    const fn going(self) -> Option<Going> {
        match self {
            Self::History(going) | Self::All(going) => Some(going),
            Self::Relays
            | Self::Zombies
            | Self::Shortages
            | Self::Quarantine
            | Self::HalfReadPages => None,
        }
    }

    fn disturbances(self, dice: &mut Dice) -> Disturbances {
        let history = if self.going().is_some() { History::Moves } else { History::Fixed };
        let quarantine = match self {
            Self::Quarantine | Self::HalfReadPages | Self::All(_) => Quarantine::Possible,
            Self::Relays | Self::Zombies | Self::Shortages | Self::History(_) => {
                Quarantine::Impossible
            }
        };
        let pages = match self {
            Self::HalfReadPages => Pages::UpTo(1 + dice.few(2)),
            Self::History(_) | Self::All(_) => match dice.few(3) {
                0 => Pages::Whole,
                rows => Pages::UpTo(rows),
            },
            Self::Relays | Self::Zombies | Self::Shortages | Self::Quarantine => Pages::Whole,
        };
        let replicas =
            if self == Self::Shortages { Replicas::CanBeTooFew } else { Replicas::Enough };
        Disturbances { history, quarantine, pages, replicas }
    }
}

/// One schedule.
pub(crate) struct Schedule {
    world: World,
    dice: Dice,
    favourite: usize,
    /// For so many steps relays are frozen on average.
    frozen_steps: u64,
    /// The number of times that faults come and end.
    rounds: u8,
    steps_max: u64,
    /// One step out of so many is a fault.
    fault_odds: u64,
    /// Progress is recorded late, and checkpoints are copied late.
    is_lazy: bool,
    actions: Vec<Turn>,
}

impl Schedule {
    pub(crate) fn new(seed: u64, theme: Theme, plant: Option<Plant>) -> Self {
        let mut dice = Dice(seed);
        let relays = if theme == Theme::Zombies { 3 } else { 1 + usize::from(dice.few(3)) };
        let disturbances = theme.disturbances(&mut dice);
        let faults = faults(theme, disturbances, &mut dice);
        let mut world = World::new(relays, disturbances, faults, plant);
        let has_quarantine = disturbances.quarantine == Quarantine::Possible;
        if has_quarantine {
            // One event is refused from the start, and mostly another one later.
            world.take(Turn::Refuse(0, 1));
            if world.faults.refusals > 0 && dice.below(4) > 0 {
                world.take(Turn::Refuse(0, 5));
            }
        }
        let can_go_back = disturbances.history == History::Moves;
        let (steps_max, fault_odds) = match (has_quarantine, can_go_back) {
            (true, _) => (STEPS_OF_QUARANTINE_MAX, 8 << dice.below(3)),
            (false, true) => (STEPS_MAX, 4 << dice.below(3)),
            (false, false) if theme == Theme::Shortages => (STEPS_OF_QUARANTINE_MAX, 16),
            (false, false) => (STEPS_MAX, 8),
        };
        let rounds = if can_go_back { 1 + dice.few(2) } else { 1 };
        let is_lazy = (has_quarantine || can_go_back) && dice.below(2) == 0;
        let frozen_steps = if theme == Theme::Zombies { 24 } else { 16 };
        let actions = Vec::new();
        Self {
            world,
            dice,
            favourite: 0,
            frozen_steps,
            rounds,
            steps_max,
            fault_odds,
            is_lazy,
            actions,
        }
    }

    /// Runs it and reports each step; returns the broken invariant, if any.
    pub(crate) fn run(mut self, tell: &mut dyn FnMut(&Turn, &World)) -> Option<String> {
        for round in 1..=self.rounds {
            if let Some(broken) = self.run_with_faults(tell) {
                return Some(broken);
            }
            if round == self.rounds {
                self.append_to_history(tell);
                self.world.faults = Faults::default();
            }
            let faults = std::mem::take(&mut self.world.faults);
            self.world.faults.starts = u8::MAX;
            self.world.is_tended = false;
            if let Some(broken) = self.run_until(stuck, tell) {
                return Some(broken);
            }
            self.world.faults = Faults { starts: u8::MAX, ..faults };
        }
        self.world.is_tended = true;
        self.run_until(unfinished, tell)
    }

    fn run_with_faults(&mut self, tell: &mut dyn FnMut(&Turn, &World)) -> Option<String> {
        let steps = self.dice.below(self.steps_max);
        let tended_from = self.dice.below(self.steps_max);
        (0..steps).find_map(|step| {
            self.world.is_tended = step >= tended_from;
            self.step(tell)
        })
    }

    /// The last history gets new events in each shard, if there can be several histories.
    fn append_to_history(&mut self, tell: &mut dyn FnMut(&Turn, &World)) {
        if self.world.disturbances.history == History::Moves {
            for shard in 0..usize::from(SHARDS) {
                self.world.faults.appends += 1;
                self.take(Turn::Append(shard), tell);
            }
        }
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
        self.take(action, tell);
        broken(&self.world)
    }

    fn take(&mut self, action: Turn, tell: &mut dyn FnMut(&Turn, &World)) {
        tell(&action, &self.world);
        self.world.take(action);
    }

    /// The next possible steps. One relay runs for a while as if the others were frozen: this
    /// creates zombies.
    fn choose(&mut self) {
        if self.dice.below(self.frozen_steps) == 0 {
            self.favourite = usize::try_from(self.dice.below(3)).unwrap();
        }
        self.actions.clear();
        if self.dice.below(self.fault_odds) == 0 {
            self.world.faults(&mut self.actions);
            self.prefer_some();
        }
        if self.actions.is_empty() {
            self.world.fair_actions(&mut self.actions);
            if self.is_lazy && self.dice.below(16) > 0 {
                self.actions.retain(|action| !self.world.is_recording(action));
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

    /// Prefers the faults that cause failures: late records of progress where recording is slow,
    /// losses of what relays have published or own, and copies of the database from which a crash
    /// or a rollback then differs.
    fn prefer_some(&mut self) {
        let Self { world, actions, dice, .. } = self;
        if self.is_lazy && dice.below(2) == 0 {
            prefer(actions, |action| world.is_noting(action));
        }
        if world.disturbances.history == History::Moves && dice.below(2) == 0 {
            if world.database.outbox.is_flushed() {
                prefer(actions, |action| world.takes_back(action));
            } else {
                prefer(actions, |action| *action == Turn::Keep || world.takes_back(action));
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

/// Keeps these actions only, if there is one.
fn prefer(actions: &mut Vec<Turn>, is_preferred: impl Fn(&Turn) -> bool) {
    if actions.iter().any(&is_preferred) {
        actions.retain(is_preferred);
    }
}

/// The faults of a schedule. In many schedules only some kinds of them can happen: the fewer there
/// are, the more often several of one kind follow each other.
fn faults(theme: Theme, disturbances: Disturbances, dice: &mut Dice) -> Faults {
    if theme == Theme::Zombies {
        return Faults { expiries: 2 + dice.few(2), starts: u8::MAX, ..Faults::default() };
    }
    if theme == Theme::Shortages && dice.below(2) == 0 {
        let (expiries, shortages) = (1 + dice.few(2), 1 + dice.few(2));
        return Faults { expiries, shortages, starts: u8::MAX, ..Faults::default() };
    }
    let kinds = [1, 2, 4][usize::from(dice.few(3))];
    let faults = Faults {
        crashes: dice.few_or_none(kinds, 3),
        expiries: dice.few_or_none(kinds, 4),
        lost: dice.few_or_none(kinds, 4),
        late: dice.few_or_none(kinds, 4),
        timeouts: dice.few_or_none(kinds, 2),
        stops: dice.few_or_none(kinds, 3),
        overdue: dice.few_or_none(kinds, 3),
        stalls: dice.few_or_none(kinds, 2),
        appends: dice.few_or_none(kinds, 3),
        mendings: 2,
        askings: 2,
        shortages: if theme == Theme::Shortages { 1 + dice.few(3) } else { 0 },
        starts: u8::MAX,
        ..Faults::default()
    };
    let refuses = disturbances.quarantine == Quarantine::Possible;
    let refusals = if refuses { 1 + dice.few(3) } else { 0 };
    let faults = Faults { refusals, ..faults };
    match theme.going() {
        Some(going) => histories(going, faults, dice),
        None => faults,
    }
}

/// Possible changes of the database.
fn histories(going: Going, faults: Faults, dice: &mut Dice) -> Faults {
    let kinds = 1 + dice.below(2);
    let mut histories = Going::ALL.map(|of| dice.few_or_none(kinds, 2) + u8::from(of == going));
    histories[0] += dice.few(2);
    Faults {
        appends: dice.few(4),
        hasty: dice.few_or_none(kinds, 3),
        slow: dice.few_or_none(kinds, 3),
        empty: dice.few_or_none(kinds, 3),
        keeps: dice.few(4),
        histories,
        ..faults
    }
}

/// Splitmix64.
struct Dice(u64);

impl Dice {
    fn few(&mut self, sides: u64) -> u8 {
        u8::try_from(self.below(sides)).unwrap()
    }

    /// None but for one of so many kinds.
    fn few_or_none(&mut self, kinds: u64, sides: u64) -> u8 {
        if self.below(kinds) == 0 { self.few(sides) } else { 0 }
    }

    fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}
