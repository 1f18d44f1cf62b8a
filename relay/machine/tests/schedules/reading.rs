//! Reading as the relay does it: first the quarantine entries with a requested retry, then the
//! shard, which passes over the events that are still quarantined.

use annals_relay_machine::{Lease, Page, Shard};

use crate::broker::{Batch, Checkpoint, Progress, Records};
use crate::database::Database;
use crate::planted::Plant;

/// The number of streams of a shard. The last of them can be quarantined.
pub(crate) const STREAMS: u8 = 2;

/// The stream of an event. A shard's events are numbered consecutively, and its streams alternate.
pub(crate) fn stream(event: u8) -> usize {
    usize::from(event % STREAMS)
}

fn can_be_held(event: u8) -> bool {
    event % STREAMS == STREAMS - 1
}

/// The next event of a shard, and its quarantine entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) lease: Lease,
    pub(crate) at: u8,
    pub(crate) hold: Option<Hold>,
}

/// A quarantined stream, and its next event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Hold {
    pub(crate) id: u8,
    pub(crate) place: u8,
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
    fn holds(&self, event: u8) -> bool {
        can_be_held(event) && self.hold.is_some_and(|hold| hold.standing != Standing::Ended)
    }

    /// Progress that the database has by now need not be in checkpoints any more.
    fn note(&mut self, noted: Option<Progress>) {
        if let Some(hold) = &mut self.hold
            && noted == Some(hold.progress())
        {
            match hold.standing {
                Standing::Ended => self.hold = None,
                Standing::Ahead | Standing::Noted => hold.standing = Standing::Noted,
            }
        }
    }

    fn checkpoint(&self) -> Checkpoint {
        let unknown = self.hold.filter(|hold| hold.standing != Standing::Noted);
        Checkpoint { place: self.at, progress: unknown.map(Hold::progress) }
    }

    /// Advances the entry by at most one event, which is to be published; or to its end, if it has
    /// caught up.
    fn go_on(&mut self) -> Option<u8> {
        let hold = self.hold.as_mut()?;
        let event = (hold.place..self.at).find(|event| can_be_held(*event));
        hold.place = event.map_or(self.at, |event| event + 1);
        let is_ended = hold.place == self.at;
        hold.standing = if is_ended { Standing::Ended } else { Standing::Ahead };
        event
    }

    /// Advances the shard by at most one event, which is to be published unless it is quarantined.
    fn pass(&mut self, events: u8, plant: Option<Plant>) -> Option<u8> {
        let event = (self.at < events).then_some(self.at)?;
        self.at += 1;
        let is_held = self.holds(event) && plant != Some(Plant::WhatIsHeldIsNotPassedOver);
        (!is_held).then_some(event)
    }
}

/// The events after these cursors: of each shard at most one event, and one of a quarantine entry.
pub(crate) fn page(
    database: &Database,
    noted: &[Option<Progress>],
    places: &[(Shard, Place)],
    plant: Option<Plant>,
) -> Page<Place, Batch> {
    let mut batch = Batch::default();
    let (mut is_empty, mut more) = (true, false);
    let mut after = Vec::new();
    for (shard, place) in places {
        let (number, mut place) = (usize::from(shard.0), *place);
        let before = place.at;
        place.note(noted[number]);
        let wanted = database.wanted(number);
        let goes_on = place
            .hold
            .is_some_and(|hold| hold.standing != Standing::Ended && wanted == Some(hold.id));
        let of_hold = if goes_on { place.go_on() } else { None };
        let event = place.pass(database.events[number], plant);
        let mut checkpoint = place.checkpoint();
        match plant {
            Some(Plant::ProgressIsLeftOut) => checkpoint.progress = None,
            Some(Plant::ProgressIsForgottenBeforeItIsNoted) => {
                place.note(checkpoint.progress);
            }
            _ => {}
        }
        // If an entry has nothing left to publish, Kafka has to record that it has ended.
        is_empty &= !goes_on && event.is_none();
        if goes_on || place.at > before {
            let events = [of_hold, event];
            batch[number] = Some(Records { lease: place.lease, events, checkpoint });
        }
        let is_behind = place.hold.is_some_and(|hold| hold.standing != Standing::Ended);
        more |= place.at < database.events[number] || goes_on && is_behind;
        after.push((*shard, place));
    }
    Page { batch: (!is_empty).then_some(batch), cursors: after, has_more: more }
}
