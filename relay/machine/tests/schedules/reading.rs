//! Reading as the relay does it: what is held first, where somebody wants it to go on, and then the shard, which passes
//! over what is held still.

use annals_relay_machine::{Lease, Page, Shard};

use crate::broker::{Batch, Checkpoint, Progress, Records};
use crate::database::Database;
use crate::planted::Plant;

/// How many streams a shard has. The last of them can be held.
pub(crate) const STREAMS: u8 = 2;

/// The stream of an event. A shard's events are numbered through, and its streams take turns.
pub(crate) fn stream(event: u8) -> usize {
    usize::from(event % STREAMS)
}

fn can_be_held(event: u8) -> bool {
    event % STREAMS == STREAMS - 1
}

/// Where a shard stands: before this event; and what is held in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) lease: Lease,
    pub(crate) at: u8,
    pub(crate) hold: Option<Hold>,
}

/// A stream that is held, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Hold {
    pub(crate) id: u8,
    pub(crate) place: u8,
    pub(crate) standing: Standing,
}

/// Whether the database knows how far a hold got.
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

    /// What the database knows by now need not stand in checkpoints any more.
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

    /// Takes the hold on by at most one event, which is to be published; or to its end, where it has caught up.
    fn go_on(&mut self) -> Option<u8> {
        let hold = self.hold.as_mut()?;
        let event = (hold.place..self.at).find(|event| can_be_held(*event));
        hold.place = event.map_or(self.at, |event| event + 1);
        let is_ended = hold.place == self.at;
        hold.standing = if is_ended { Standing::Ended } else { Standing::Ahead };
        event
    }

    /// Takes the shard on by at most one event, which is to be published unless it is held.
    fn pass(&mut self, events: u8, plant: Option<Plant>) -> Option<u8> {
        let event = (self.at < events).then_some(self.at)?;
        self.at += 1;
        let is_held = self.holds(event) && plant != Some(Plant::WhatIsHeldIsNotPassedOver);
        (!is_held).then_some(event)
    }
}

/// What follows these places: of each shard at most one event, and one of what was held.
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
        // Where nothing of a hold is left to publish, Kafka has to know that it has ended.
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
