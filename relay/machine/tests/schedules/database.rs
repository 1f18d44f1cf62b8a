//! A model of PostgreSQL for the machine: sessions and leases, each statement at once.

use std::collections::{BTreeMap, BTreeSet};

use annals_relay_machine::{Lease, Leases, Shard};

use crate::broker::{Checkpoint, Progress, TransactionalId};
use crate::outbox::{Event, Mark, Outbox};
use crate::planted::Plant;

pub(crate) const SHARDS: u16 = 2;

/// A start of a relay, or its next session after a lost lease.
pub(crate) type Session = u8;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Database {
    /// The number of pairs of transactional ids of a session.
    pub(crate) pairs: u8,
    /// Changes with each start of the server, from any data.
    pub(crate) incarnation: u8,
    /// Changes with each promotion.
    pub(crate) timeline: u8,
    pub(crate) sessions: BTreeMap<Session, SessionRow>,
    pub(crate) shards: [Row; SHARDS as usize],
    pub(crate) outbox: Outbox,
    /// The quarantine entries of each shard.
    pub(crate) holds: [Option<HoldRow>; SHARDS as usize],
    next_hold: u8,
    /// The number of changes of each shard's quarantine entries. It only grows.
    pub(crate) hold_changes: [u8; SHARDS as usize],
    pub(crate) copies: [Copied; SHARDS as usize],
    /// The highest recorded end of the published records in the topic.
    pub(crate) end: u8,
    pub(crate) generation: u8,
    /// The start of the generation.
    pub(crate) origins: [Checkpoint; SHARDS as usize],
    /// Events that the topic had before the generation began: they are not published.
    pub(crate) passed: BTreeSet<(usize, Event)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SessionRow {
    pub(crate) relay: usize,
    /// It may acquire shards.
    is_ready: bool,
    incarnation: u8,
}

/// The copy of a shard's checkpoint, and the end of the shard's published records in the topic at
/// that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Copied {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) end: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Row {
    pub(crate) owner: Option<Session>,
    epoch: u64,
    fence: BTreeSet<TransactionalId>,
    /// The number of the last quarantine change in this epoch: a change with an earlier number is
    /// too late.
    step: u64,
}

/// The leases of a quarantine change, and its number among all quarantine changes of the session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Under<'a> {
    pub(crate) session: Session,
    pub(crate) leases: &'a [Lease],
    pub(crate) step: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct HoldRow {
    pub(crate) id: u8,
    pub(crate) place: Mark,
    /// An operator has requested a retry.
    pub(crate) is_wanted: bool,
}

impl Database {
    pub(crate) fn new(events: [u8; SHARDS as usize], pairs: u8) -> Self {
        Self {
            pairs,
            incarnation: 1,
            timeline: 1,
            sessions: BTreeMap::new(),
            shards: Default::default(),
            outbox: Outbox::new(events),
            holds: Default::default(),
            next_hold: 0,
            hold_changes: Default::default(),
            copies: Default::default(),
            end: 0,
            generation: 1,
            origins: Default::default(),
            passed: BTreeSet::new(),
        }
    }

    pub(crate) fn join(&mut self, relay: usize, session: Session, plant: Option<Plant>) {
        self.end_foreign_sessions(plant);
        // The instance's earlier process has ended.
        let is = |(_, row): &(&Session, &SessionRow)| row.relay == relay;
        let earlier: Vec<Session> = self.sessions.iter().filter(is).map(|(s, _)| *s).collect();
        for session in earlier {
            self.expire(session, None);
        }
        let incarnation = self.incarnation;
        self.sessions.insert(session, SessionRow { relay, is_ready: false, incarnation });
        self.outbox.flush();
    }

    /// A session ends with the incarnation in which it joined: a history that went back may not
    /// have its shards.
    fn end_foreign_sessions(&mut self, plant: Option<Plant>) {
        if plant == Some(Plant::SessionsOutliveTheirIncarnation) {
            return;
        }
        let is = |(_, row): &(&Session, &SessionRow)| row.incarnation != self.incarnation;
        let foreign: Vec<Session> = self.sessions.iter().filter(is).map(|(s, _)| *s).collect();
        for session in foreign {
            self.expire(session, plant);
        }
    }

    pub(crate) fn look(
        &mut self,
        session: Session,
        ready: bool,
        plant: Option<Plant>,
    ) -> Option<Leases> {
        self.end_foreign_sessions(plant);
        self.sessions.get_mut(&session)?.is_ready = ready;
        let ready: Vec<Session> = self
            .sessions
            .iter()
            .filter(|(s, row)| row.is_ready || **s == session)
            .map(|(s, _)| *s)
            .collect();
        let rank = ready.iter().filter(|other| **other < session).count();
        let free = self.rows().filter(|(_, row)| row.owner.is_none()).map(|(shard, _)| shard);
        Some(Leases {
            mine: self.of(session),
            free: free.collect(),
            members: u16::try_from(ready.len()).unwrap(),
            rank: u16::try_from(rank).unwrap(),
        })
    }

    pub(crate) fn take(
        &mut self,
        session: Session,
        shards: &[Shard],
        plant: Option<Plant>,
    ) -> Option<Vec<Lease>> {
        self.end_foreign_sessions(plant);
        if !self.sessions.contains_key(&session) {
            return None;
        }
        let mut taken = Vec::new();
        for shard in shards {
            let row = &mut self.shards[usize::from(shard.0)];
            if row.owner.is_some() && plant != Some(Plant::TakingStealsWhatIsOwned) {
                continue;
            }
            row.owner = Some(session);
            row.epoch += 1;
            row.step = 0;
            taken.push(Lease { shard: *shard, epoch: row.epoch });
        }
        self.outbox.flush();
        Some(taken)
    }

    pub(crate) fn release(&mut self, session: Session, leases: &[Lease]) {
        for lease in leases {
            let row = &mut self.shards[usize::from(lease.shard.0)];
            if row.owner == Some(session) && row.epoch == lease.epoch {
                row.owner = None;
            }
        }
    }

    pub(crate) fn leave(&mut self, session: Session, clean: bool) {
        if clean {
            self.sessions.remove(&session);
            for row in self.shards.iter_mut().filter(|row| row.owner == Some(session)) {
                row.owner = None;
            }
        } else {
            self.expire(session, None);
        }
    }

    /// A session's lease has expired: its shards are free, and the next owner has to fence it.
    pub(crate) fn expire(&mut self, session: Session, plant: Option<Plant>) {
        self.sessions.remove(&session);
        for row in self.shards.iter_mut().filter(|row| row.owner == Some(session)) {
            row.owner = None;
            row.epoch += 1;
            match plant {
                Some(Plant::ExpiryForgetsToFence) => {}
                Some(Plant::ExpiryForgetsEarlierFences) => {
                    row.fence = TransactionalId::of(session, self.pairs).collect();
                }
                Some(Plant::OnlyTheFirstPairIsFenced) => {
                    row.fence.extend(TransactionalId::of(session, 1));
                }
                _ => row.fence.extend(TransactionalId::of(session, self.pairs)),
            }
        }
    }

    /// The ids to fence before the shards of these leases are published; none if the session no
    /// longer has one of the leases: the ids recorded there may be the next owner's to fence.
    pub(crate) fn to_fence(
        &self,
        session: Session,
        leases: &[Lease],
        plant: Option<Plant>,
    ) -> Option<BTreeSet<TransactionalId>> {
        let is_owned = self.owns(session, leases);
        let ids = self.owned(session, leases).flat_map(|shard| self.shards[shard].fence.clone());
        (is_owned || plant == Some(Plant::FencingDoesNotAskWhoOwns)).then(|| ids.collect())
    }

    pub(crate) fn fenced(
        &mut self,
        session: Session,
        leases: &[Lease],
        ids: &BTreeSet<TransactionalId>,
    ) {
        let owned: Vec<usize> = self.owned(session, leases).collect();
        for shard in owned {
            self.shards[shard].fence.retain(|id| !ids.contains(id));
        }
    }

    /// A shard's quarantine entry with a requested retry.
    pub(crate) fn wanted(&self, shard: usize) -> Option<u8> {
        self.holds[shard].filter(|hold| hold.is_wanted).map(|hold| hold.id)
    }

    /// Records the progress of quarantine entries. False, and no change, if the session no longer
    /// has one of the leases, or if a later change was made.
    pub(crate) fn went_on(
        &mut self,
        under: Under<'_>,
        progress: &[Progress],
        plant: Option<Plant>,
    ) -> bool {
        let asks_who_owns = plant != Some(Plant::NotesDoNotAskWhoOwns);
        let asks_for_later = plant != Some(Plant::LateNotesCount);
        if !self.step(under, asks_who_owns, asks_for_later) {
            return false;
        }
        progress.iter().for_each(|progress| self.apply(*progress));
        true
    }

    fn apply(&mut self, Progress { hold, place }: Progress) {
        for (row, changes) in self.holds.iter_mut().zip(&mut self.hold_changes) {
            if row.is_some_and(|row| row.id == hold) {
                *row = place.and_then(|place| row.map(|row| HoldRow { place, ..row }));
                *changes += 1;
            }
        }
    }

    /// Quarantines refused events, from these cursors on. Existing entries keep their cursor.
    /// False, and no change, if the session no longer has one of the leases, or if a later change
    /// was made.
    pub(crate) fn hold(
        &mut self,
        under: Under<'_>,
        places: [Mark; SHARDS as usize],
        refused: [bool; SHARDS as usize],
        plant: Option<Plant>,
    ) -> bool {
        let asks_who_owns = plant != Some(Plant::HoldingDoesNotAskWhoOwns);
        let asks_for_later = plant != Some(Plant::LateHoldsCount);
        if !self.step(under, asks_who_owns, asks_for_later) {
            return false;
        }
        let shards = under.leases.iter().map(|lease| usize::from(lease.shard.0));
        for shard in shards.filter(|shard| refused[*shard]) {
            let next = &mut self.next_hold;
            let fresh = || {
                *next += 1;
                HoldRow { id: *next, place: places[shard], is_wanted: false }
            };
            self.holds[shard].get_or_insert_with(fresh).is_wanted = false;
            self.hold_changes[shard] += 1;
        }
        true
    }

    /// Whether this change is to be made; then no earlier one is made from now on.
    fn step(&mut self, under: Under<'_>, asks_who_owns: bool, asks_for_later: bool) -> bool {
        let Under { session, leases, step } = under;
        if asks_who_owns && !self.owns(session, leases) {
            return false;
        }
        let is_later = |lease: &Lease| self.shards[usize::from(lease.shard.0)].step > step;
        if asks_who_owns && asks_for_later && leases.iter().any(is_later) {
            return false;
        }
        for lease in leases {
            let last = &mut self.shards[usize::from(lease.shard.0)].step;
            *last = step.max(*last);
        }
        self.outbox.flush();
        true
    }

    /// Copies checkpoints of shards with the ends of their published records.
    pub(crate) fn copy(&mut self, shard: usize, copied: Copied) {
        if copied.end > self.copies[shard].end {
            self.copies[shard] = copied;
        }
        self.end = self.end.max(copied.end);
        self.outbox.flush();
    }

    /// Transactional ids of earlier owners that are not fenced yet.
    pub(crate) fn unfenced(&self) -> impl Iterator<Item = TransactionalId> {
        self.shards.iter().flat_map(|row| row.fence.clone())
    }

    /// Begins a generation at the copies; records that the topic has beyond them are skipped.
    pub(crate) fn begin_generation(&mut self, generation: u8, end: u8, plant: Option<Plant>) {
        self.generation = generation;
        for shard in 0..usize::from(SHARDS) {
            let Checkpoint { place, progress, timeline, .. } = self.copies[shard].checkpoint;
            if plant != Some(Plant::RebaseForgetsProgress) {
                progress.into_iter().for_each(|progress| self.apply(progress));
            }
            let hold_changes = self.hold_changes[shard];
            let checkpoint = Checkpoint { place, progress: None, hold_changes, timeline };
            self.origins[shard] = checkpoint;
            self.copies[shard] = Copied { checkpoint, end };
        }
        self.end = end;
        self.outbox.flush();
    }

    pub(crate) fn owners(&self) -> [Option<Session>; SHARDS as usize] {
        [0, 1].map(|shard: usize| self.shards[shard].owner)
    }

    fn owns(&self, session: Session, leases: &[Lease]) -> bool {
        self.owned(session, leases).count() == leases.len()
    }

    fn owned<'a>(
        &'a self,
        session: Session,
        leases: &'a [Lease],
    ) -> impl Iterator<Item = usize> + 'a {
        let is = move |lease: &&Lease| {
            let row = &self.shards[usize::from(lease.shard.0)];
            row.owner == Some(session) && row.epoch == lease.epoch
        };
        leases.iter().filter(is).map(|lease| usize::from(lease.shard.0))
    }

    fn of(&self, session: Session) -> Vec<Lease> {
        self.rows()
            .filter(|(_, row)| row.owner == Some(session))
            .map(|(shard, row)| Lease { shard, epoch: row.epoch })
            .collect()
    }

    fn rows(&self) -> impl Iterator<Item = (Shard, &Row)> {
        (0..).map(Shard).zip(&self.shards)
    }
}
