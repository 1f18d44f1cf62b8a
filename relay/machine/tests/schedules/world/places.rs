//! The start cursors of shards: checkpoints are read, the published history is verified, and the
//! quarantine entries are read.

use std::collections::BTreeSet;

use annals_relay_machine::{Completion, FailureClass, Input, Lease, Operation};

use super::World;
use super::relay::{Answer, News, Task, What};
use super::work::Executed;
use crate::broker::{Batch, Checkpoint, Progress, TransactionalId};
use crate::database::{HoldRow, SHARDS, Session, Under};
use crate::disturbances::History;
use crate::outbox::Mark;
use crate::planted::Plant;
use crate::reading::{Hold, Place, Standing};

/// The reading of checkpoints, and the steps that belong to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Taking {
    leases: Vec<Lease>,
    number: u64,
    refused: [bool; SHARDS as usize],
    pub(super) step: Step,
    checkpoints: [Checkpoint; SHARDS as usize],
    /// The incarnation of the database in which it began: it ends in the same.
    incarnation: u8,
    /// Whether the history is to be verified.
    is_unverified: bool,
    /// Sessions that have or had producers.
    announced: BTreeSet<Session>,
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Step {
    /// Query the incarnation of the database.
    Begin,
    /// Read the past sessions from Kafka, and fence those that the database does not know.
    Announced,
    Strangers,
    Checkpoints,
    /// Check that every published event is still there.
    Verify,
    Note,
    Hold,
    Load,
}

/// The outcome of a step.
enum Ended {
    Next(Step),
    Done(News),
    Failed(FailureClass),
}

impl Taking {
    /// With a fixed history there is nothing to verify.
    pub(super) fn new(
        leases: Vec<Lease>,
        number: u64,
        refused: [bool; SHARDS as usize],
        history: History,
    ) -> Self {
        Self {
            leases,
            number,
            refused,
            step: match history {
                History::Fixed => Step::Checkpoints,
                History::Moves => Step::Begin,
            },
            checkpoints: Default::default(),
            incarnation: 1,
            is_unverified: false,
            announced: BTreeSet::new(),
        }
    }

    pub(super) fn shards(&self) -> impl Iterator<Item = usize> {
        self.leases.iter().map(|lease| usize::from(lease.shard.0))
    }

    fn after_checkpoints(&self, plant: Option<Plant>) -> Step {
        match plant {
            _ if self.is_unverified => Step::Verify,
            Some(Plant::TakingUpIsNotAlwaysNoted) if self.progress().is_empty() => {
                self.after_noting()
            }
            _ => Step::Note,
        }
    }

    fn after_noting(&self) -> Step {
        if self.refused == [false; SHARDS as usize] { Step::Load } else { Step::Hold }
    }

    /// The progress of quarantine entries in the checkpoints.
    fn progress(&self) -> Vec<Progress> {
        self.shards().filter_map(|shard| self.checkpoints[shard].progress).collect()
    }
}

impl World {
    /// Reads checkpoints, verifies the history, records the progress of quarantine entries from the
    /// checkpoints, quarantines refused events, and reads the entries: the start cursors of the
    /// shards. One step at a time if another step can come between.
    pub(super) fn take_up(&mut self, mut task: Task) -> Executed {
        let (generation, operation) = (task.generation, Operation::ReadCheckpoints);
        let What::ReadCheckpoints(taking) = &mut task.what else { unreachable!() };
        let (input, news) = match self.steps(task.relay, task.session, taking) {
            Ended::Next(_) => return Executed::Further(task),
            Ended::Done(news) => {
                let completion = self.load(task.relay, taking);
                (Input::Completed { generation, completion }, news)
            }
            Ended::Failed(class) => (Input::Failed { generation, operation, class }, News::Nothing),
        };
        Executed::Answered(Answer { generation, operation, input, news })
    }

    /// The next step; all of them at once if no relevant step can come between.
    fn steps(&mut self, relay: usize, session: Session, taking: &mut Taking) -> Ended {
        loop {
            let ended = self.step(relay, session, taking);
            let Ended::Next(step) = ended else { return ended };
            taking.step = step;
            if self.can_go_back() || self.can_refuse() {
                return ended;
            }
        }
    }

    fn step(&mut self, relay: usize, session: Session, taking: &mut Taking) -> Ended {
        let is_of_database = matches!(
            taking.step,
            Step::Strangers | Step::Verify | Step::Note | Step::Hold | Step::Load
        );
        if is_of_database && taking.incarnation != self.database.incarnation {
            // The earlier answers of the database no longer hold.
            return Ended::Failed(FailureClass::Resync);
        }
        match taking.step {
            Step::Begin => self.begin(relay, taking),
            Step::Announced => {
                taking.announced.clone_from(&self.broker.announced);
                Ended::Next(Step::Strangers)
            }
            Step::Strangers => {
                self.fence_strangers(session, taking);
                Ended::Next(Step::Checkpoints)
            }
            Step::Checkpoints => {
                taking.checkpoints = self.checkpoints(relay);
                let is_writing = self.can_go_back() || self.can_refuse();
                Ended::Next(if is_writing {
                    taking.after_checkpoints(self.plant)
                } else {
                    Step::Load
                })
            }
            Step::Verify if self.is_forked(taking) => Ended::Failed(FailureClass::DivergedHistory),
            Step::Verify => Ended::Next(Step::Note),
            Step::Note | Step::Hold => self.write_holds(relay, session, taking),
            Step::Load if taking.is_unverified => {
                Ended::Done(News::Verified(taking.leases.clone(), taking.incarnation))
            }
            Step::Load => Ended::Done(News::Nothing),
        }
    }

    fn begin(&self, relay: usize, taking: &mut Taking) -> Ended {
        taking.incarnation = self.database.incarnation;
        let verified = self.relays[relay].as_ref().map_or_else(Default::default, |r| r.verified);
        let is_verified = |shard| match self.plant {
            Some(Plant::HistoryIsVerifiedAtTheStartOnly) => verified[shard] > 0,
            _ => verified[shard] == taking.incarnation,
        };
        taking.is_unverified = self.can_go_back() && !taking.shards().all(is_verified);
        Ended::Next(if taking.is_unverified { Step::Announced } else { Step::Checkpoints })
    }

    /// Sessions that the database has lost can still publish: no list of ids to fence has them.
    fn fence_strangers(&mut self, session: Session, taking: &Taking) {
        if self.plant == Some(Plant::LostSessionsAreNotFenced) {
            return;
        }
        let is_stranger =
            |other: &&Session| **other != session && !self.database.sessions.contains_key(*other);
        let strangers: Vec<Session> =
            taking.announced.iter().filter(is_stranger).copied().collect();
        for stranger in strangers {
            for id in TransactionalId::of(stranger, self.database.pairs) {
                self.broker.init(id);
            }
            self.broker.announced.remove(&stranger);
        }
    }

    fn checkpoints(&self, relay: usize) -> [Checkpoint; SHARDS as usize] {
        let early = self.relays[relay].as_ref().map(|relay| relay.early.checkpoints);
        let found = match (self.plant, early) {
            (Some(Plant::CheckpointsAreReadBeforeFencing), Some(early)) => early,
            _ => self.checkpoints_now(),
        };
        [0, 1].map(|shard| found[shard].unwrap_or(self.database.origins[shard]))
    }

    pub(super) fn checkpoints_now(&self) -> [Option<Checkpoint>; SHARDS as usize] {
        [0, 1].map(|shard| self.broker.checkpoint(shard, self.database.generation))
    }

    /// Whether the database's history lacks a published event or a quarantine change.
    fn is_forked(&self, taking: &Taking) -> bool {
        if self.plant == Some(Plant::IdentityInsteadOfEvidence) {
            let timelines = taking.shards().map(|shard| taking.checkpoints[shard].timeline);
            return timelines.into_iter().any(|of| of != 0 && of != self.database.timeline);
        }
        let is_later = self.plant != Some(Plant::ALaterGenerationIsNotMissed)
            && self.broker.knows_later(self.database.generation);
        // The recorded end is of the whole topic: it covers the records of all shards.
        is_later
            || (0..usize::from(SHARDS)).any(|shard| self.has_lost_published(shard))
            || taking.shards().any(|shard| self.misses(shard, &taking.checkpoints[shard]))
    }

    /// Whether the topic has an event of the shard, beyond the recorded end, that the database has
    /// not.
    fn has_lost_published(&self, shard: usize) -> bool {
        let published: Vec<_> = self.broker.published_from(shard, self.database.end).collect();
        let verified = match self.plant {
            Some(Plant::OnlyTheLastEventIsVerified) => {
                published.last_chunk::<1>().map_or(&[][..], |last| last)
            }
            _ => &published,
        };
        verified.iter().any(|event| !self.database.outbox.has(shard, *event))
    }

    /// Whether the database lacks the events at the ends of a checkpoint, or its quarantine
    /// changes.
    fn misses(&self, shard: usize, checkpoint: &Checkpoint) -> bool {
        let has_holds = self.plant == Some(Plant::LostHoldsAreNotMissed)
            || checkpoint.hold_changes <= self.database.hold_changes[shard];
        let of_hold = checkpoint.progress.and_then(|progress| progress.place);
        let mut marks = [Some(checkpoint.place), of_hold].into_iter().flatten();
        let has_ends = self.plant == Some(Plant::EndsOfWindowsAreNotVerified)
            || marks.all(|mark: Mark| self.database.outbox.has_ends_of(&mark));
        !has_holds || !has_ends
    }

    /// Records progress and quarantine entries, under the leases.
    fn write_holds(&mut self, relay: usize, session: Session, taking: &Taking) -> Ended {
        let under = Under { session, leases: &taking.leases, step: taking.number };
        let (is_owned, next) = if taking.step == Step::Note {
            let is_owned = self.database.went_on(under, &taking.progress(), self.plant);
            (is_owned, taking.after_noting())
        } else {
            let checkpoints = taking.checkpoints.map(|checkpoint| checkpoint.place);
            let places = self.reader_was(relay).unwrap_or(checkpoints);
            (self.database.hold(under, places, taking.refused, self.plant), Step::Load)
        };
        if is_owned { Ended::Next(next) } else { Ended::Failed(FailureClass::Fenced) }
    }

    /// For a planted bug: the reader's cursor.
    fn reader_was(&self, relay: usize) -> Option<[Mark; SHARDS as usize]> {
        let relay = self.relays[relay].as_ref()?;
        (self.plant == Some(Plant::HoldsBeginWhereTheReaderWas)).then_some(relay.early.places)
    }

    fn load(&self, relay: usize, taking: &Taking) -> Completion<Place, Batch> {
        let mut early = [None; SHARDS as usize];
        if let (Some(Plant::HoldsAreReadBeforeTheCheckpoint), Some(relay)) =
            (self.plant, &self.relays[relay])
        {
            early = relay.early.holds;
        }
        let place = |lease: &Lease| {
            let shard = usize::from(lease.shard.0);
            let row = early[shard].or(self.database.holds[shard]);
            let standing = Standing::Noted;
            let place = Place {
                lease: *lease,
                at: taking.checkpoints[shard].place,
                hold: row.map(|HoldRow { id, place, .. }| Hold { id, place, standing }),
                hold_changes: self.database.hold_changes[shard],
                incarnation: taking.incarnation,
            };
            (*lease, place)
        };
        Completion::CheckpointsRead(taking.leases.iter().map(place).collect())
    }
}
