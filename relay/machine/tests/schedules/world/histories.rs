//! Changes of the database to an earlier state, and the operator's reaction.

use super::relay::Committed;
use super::{Going, Turn, World};
use crate::broker::TransactionalId;
use crate::database::{Database, SHARDS};
use crate::planted::Plant;

impl World {
    pub(super) fn take_of_histories(&mut self, action: Turn) {
        match action {
            Turn::AppendHastily(shard) => {
                self.faults.hasty -= 1;
                self.database.outbox.append_asynchronously(shard);
            }
            Turn::Begin(shard) => {
                self.faults.slow -= 1;
                self.database.outbox.begin(shard);
            }
            Turn::Commit => self.database.outbox.commit(),
            Turn::RollBack => self.database.outbox.roll_back(),
            Turn::Empty => {
                self.faults.empty -= 1;
                self.database.outbox.use_transaction_id();
            }
            Turn::Keep => {
                self.faults.keeps -= 1;
                self.kept = Some(Box::new(self.database.clone()));
            }
            Turn::GoBack(going) => self.go_back(going),
            Turn::Copy(relay) => self.copy(relay),
            Turn::Rebase => self.rebase(),
            other => panic!("{other:?} has nothing to do with histories"),
        }
    }

    fn go_back(&mut self, going: Going) {
        let left = Going::ALL.into_iter().zip(&mut self.faults.histories);
        left.filter(|(of, _)| *of == going).for_each(|(_, left)| *left -= 1);
        let after = self.gone_back(going);
        self.is_lossy |= has_lost(&self.database, &after);
        self.last = after.incarnation;
        self.database = after;
        if going != Going::Crash {
            self.kept = None;
        }
    }

    /// The database after such a change.
    fn gone_back(&self, going: Going) -> Database {
        let kept = self.kept.as_deref().filter(|_| going != Going::Crash);
        let mut database = kept.unwrap_or(&self.database).clone();
        let last = self.last + 1;
        database.incarnation = last;
        database.timeline = match going {
            Going::Crash | Going::Restore => self.database.timeline,
            Going::Promotion | Going::Move => last,
        };
        match going {
            Going::Crash => database.outbox.crash(last),
            Going::Restore | Going::Promotion => database.outbox.start(last),
            Going::Move => {
                database.outbox.start(last);
                database.outbox.move_to_younger_cluster();
            }
        }
        database
    }

    /// Whether the database would lose a published event, a quarantine change or a generation, or
    /// give shards back to earlier owners.
    pub(crate) fn takes_back(&self, action: &Turn) -> bool {
        let Turn::GoBack(going) = *action else { return false };
        let (before, after) = (&self.database, self.gone_back(going));
        let loses_events = |shard| {
            let mut published = self.broker.published(shard);
            published
                .any(|event| before.outbox.has(shard, event) && !after.outbox.has(shard, event))
        };
        let mut shards = 0..usize::from(SHARDS);
        shards.any(loses_events)
            || before.hold_changes != after.hold_changes
            || before.generation != after.generation
            || before.owners() != after.owners()
    }

    /// Copies a relay's committed checkpoints into the history that they belong to.
    fn copy(&mut self, relay: usize) {
        let committed = std::mem::take(&mut self.relay(relay).committed);
        for (shard, committed) in committed.into_iter().enumerate() {
            let Some(Committed { copied, incarnation }) = committed else { continue };
            let is_of_history = incarnation == self.database.incarnation;
            if is_of_history || self.plant == Some(Plant::CopiesGoIntoAnyHistory) {
                self.database.copy(shard, copied);
            }
        }
    }

    /// An operator begins a new generation from the copies: events that the topic has beyond them
    /// are skipped if the store has them, and reported if it does not.
    fn rebase(&mut self) {
        self.fence_everybody();
        let from = self.database.copies.map(|copied| copied.end);
        let last = from[0].max(from[1]);
        for shard in 0..usize::from(SHARDS) {
            let is_late = self.plant == Some(Plant::RebaseGoesByTheHighestEnd);
            let from = if is_late { last } else { from[shard] };
            let known = self.broker.published_from(shard, from);
            let known = known.filter(|event| self.database.outbox.has(shard, *event));
            let passed: Vec<_> = known.map(|event| (shard, event)).collect();
            self.database.passed.extend(passed);
            let lost = self.broker.published(shard);
            let lost = lost.filter(|event| !self.database.outbox.has(shard, *event));
            self.acknowledged.extend(lost.map(|event| (shard, event)));
        }
        let generation = match self.plant {
            Some(Plant::GenerationsAreGivenAgain) => self.database.generation + 1,
            _ => self.broker.generation_after(self.database.generation),
        };
        self.database.begin_generation(generation, self.broker.end, self.plant);
        self.is_halted = false;
        self.is_lossy = false;
    }

    /// Relays that had producers can publish no more, whether the database knows their sessions or
    /// not.
    fn fence_everybody(&mut self) {
        let announced = std::mem::take(&mut self.broker.announced);
        let pairs = self.database.pairs;
        let of = |session| TransactionalId::of(session, pairs);
        let mut ids: Vec<TransactionalId> = announced.into_iter().flat_map(of).collect();
        ids.extend(self.database.unfenced());
        for id in ids {
            self.broker.init(id);
        }
    }
}

/// Whether an event is lost that relays or operators relied on.
fn has_lost(before: &Database, after: &Database) -> bool {
    let is_gone = |shard| {
        let mut events = before.outbox.events(shard);
        events.any(|event| !after.outbox.has(shard, event))
    };
    (0..usize::from(SHARDS)).any(is_gone)
        || before.hold_changes != after.hold_changes
        || before.generation != after.generation
}
