//! Reading as the relay does it: first the quarantine entries with a requested retry, then the
//! shard, which passes over the events that are still quarantined.

use annals_relay_machine::{Lease, Page, Shard};

use crate::broker::{Batch, Checkpoint, Progress, Records};
use crate::database::Database;
use crate::disturbances::Pages;
use crate::outbox::{Event, Mark, Rule};
use crate::planted::Plant;

/// The cursor of a shard, and its quarantine entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) lease: Lease,
    pub(crate) at: Mark,
    pub(crate) hold: Option<Hold>,
    /// The number of changes of its quarantine entries that are known to be in the database.
    pub(crate) hold_changes: u8,
    /// The incarnation of the database that it was read in.
    pub(crate) incarnation: u8,
}

/// A quarantined stream, and its cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Hold {
    pub(crate) id: u8,
    pub(crate) place: Mark,
    pub(crate) standing: Standing,
}

/// Whether the database has an entry's progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Standing {
    Noted,
    Ahead,
    Ended,
}

impl Hold {
    fn progress(self) -> Progress {
        let place = (self.standing != Standing::Ended).then_some(self.place);
        Progress { hold: self.id, place }
    }
}

impl Place {
    fn holds(&self, event: Event) -> bool {
        event.can_be_held() && self.hold.is_some_and(|hold| hold.standing != Standing::Ended)
    }

    /// Progress that the database has by now need not be in checkpoints any more.
    fn note(&mut self, noted: Option<Noted>) {
        let Some(Noted { progress, hold_changes }) = noted else { return };
        self.hold_changes = self.hold_changes.max(hold_changes);
        if let Some(hold) = &mut self.hold
            && progress == hold.progress()
        {
            match hold.standing {
                Standing::Ended => self.hold = None,
                Standing::Ahead | Standing::Noted => hold.standing = Standing::Noted,
            }
        }
    }

    fn checkpoint(&self, timeline: u8) -> Checkpoint {
        let unknown = self.hold.filter(|hold| hold.standing != Standing::Noted);
        let (place, hold_changes) = (self.at, self.hold_changes);
        let progress = unknown.map(Hold::progress);
        Checkpoint { place, progress, hold_changes, timeline }
    }
}

/// The database has this progress of an entry, and so many changes of the shard's entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Noted {
    pub(crate) progress: Progress,
    pub(crate) hold_changes: u8,
}

/// Reads pages.
pub(crate) struct Reader<'a> {
    pub(crate) database: &'a Database,
    pub(crate) noted: &'a [Option<Noted>],
    pub(crate) plant: Option<Plant>,
    pub(crate) pages: Pages,
}

impl Reader<'_> {
    /// The events after these cursors: of each shard at most one event, and one of a quarantine
    /// entry. None if the deadline ended the page and its work is lost, which a relay must not do.
    pub(crate) fn page(&self, places: &[(Shard, Place)]) -> Option<Page<Place, Batch>> {
        let mut batch = Batch::default();
        let (mut is_empty, mut more) = (true, false);
        let mut after = Vec::new();
        for (shard, place) in places {
            let (number, mut place) = (usize::from(shard.0), *place);
            let before = place.at;
            place.note(self.noted[number]);
            let wanted = self.database.wanted(number);
            let goes_on = place
                .hold
                .is_some_and(|hold| hold.standing != Standing::Ended && wanted == Some(hold.id));
            let of_hold = if goes_on { self.go_on(number, &mut place) } else { None };
            let (event, is_passed) = self.pass(number, &mut place)?;
            let checkpoint = self.checkpoint(&mut place);
            // If an entry has nothing left to publish, Kafka has to record that it has ended.
            is_empty &= !goes_on && event.is_none();
            if goes_on || is_passed && place.at != before {
                let (events, generation) = ([of_hold, event], self.database.generation);
                let Place { lease, incarnation, .. } = place;
                batch[number] =
                    Some(Records { lease, events, checkpoint, generation, incarnation });
            }
            let is_behind = place.hold.is_some_and(|hold| hold.standing != Standing::Ended);
            more |= self.has_next(number, place.at) || goes_on && is_behind;
            after.push((*shard, place));
        }
        Some(Page { batch: (!is_empty).then_some(batch), cursors: after, has_more: more })
    }

    fn checkpoint(&self, place: &mut Place) -> Checkpoint {
        let mut checkpoint = place.checkpoint(self.database.timeline);
        match (self.plant, checkpoint.progress) {
            (Some(Plant::ProgressIsLeftOut), _) => checkpoint.progress = None,
            (Some(Plant::ProgressIsForgottenBeforeItIsNoted), Some(progress)) => {
                let hold_changes = place.hold_changes;
                place.note(Some(Noted { progress, hold_changes }));
            }
            _ => {}
        }
        checkpoint
    }

    fn rule(&self) -> Rule {
        match self.plant {
            Some(Plant::TransactionIdAloneSaysSeen) => Rule::TransactionIdAlone,
            Some(Plant::NothingIsSettled) => Rule::NothingIsSettled,
            _ => Rule::PositionAndTransactionId,
        }
    }

    fn has_next(&self, shard: usize, at: Mark) -> bool {
        self.database.outbox.next(shard, at, self.rule()).0.is_some()
    }

    fn is_in_topic(&self, shard: usize, event: Event) -> bool {
        let passed = &self.database.passed;
        !passed.is_empty() && passed.contains(&(shard, event))
    }

    /// Advances the entry by at most one event, which is to be published; or to its end, if it has
    /// caught up.
    fn go_on(&self, shard: usize, place: &mut Place) -> Option<Event> {
        let (at, hold) = (place.at, place.hold.as_mut()?);
        let (event, after) =
            self.database.outbox.next_between(shard, (hold.place, at), self.rule());
        let (another, _) = self.database.outbox.next_between(shard, (after, at), self.rule());
        hold.place = if another.is_some() { after } else { at };
        hold.standing = if another.is_some() { Standing::Ahead } else { Standing::Ended };
        event.filter(|event| !self.is_in_topic(shard, *event))
    }

    /// Advances the shard until there is an event to be published, or time is up; returns whether
    /// it passed any.
    fn pass(&self, shard: usize, place: &mut Place) -> Option<(Option<Event>, bool)> {
        let keeps_nothing = self.plant == Some(Plant::WhatAReadHadDoneIsLost);
        let mut rows = 0;
        loop {
            let (event, at) = self.database.outbox.next(shard, place.at, self.rule());
            place.at = at;
            let Some(event) = event else { return Some((None, rows > 0)) };
            rows += 1;
            let is_held =
                place.holds(event) && self.plant != Some(Plant::WhatIsHeldIsNotPassedOver);
            if !is_held && !self.is_in_topic(shard, event) {
                return Some((Some(event), true));
            }
            if self.pages.are_over(rows) {
                return (!keeps_nothing).then_some((None, true));
            }
        }
    }
}
