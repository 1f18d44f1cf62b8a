//! What is held: a stream or a category of which something cannot be published. What follows waits behind it, in
//! order, while everything else is published; once it can be published it goes on from a place of its own, until it
//! has caught up with its shard.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use annals_relay_core::Lease;
use annals_store::outbox::{Bound, LogEnd};
use serde::Serialize;

use crate::checkpoint::{Checkpoint, LastEvent, Place, Progress};
use crate::leases::number;

/// What a hold holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One stream, since an event of it is refused.
    Stream,
    /// One category, since its topic cannot be written to.
    Category,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream => "stream",
            Self::Category => "category",
        })
    }
}

/// Why something is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// Kafka does not take the record.
    Record,
    /// The registry does not take the schema or does not have it, or the store's definition of it is none.
    Schema,
    /// What the store has of the event is not what an append writes.
    Event,
    /// The topic is missing, or not as it must be.
    Topic,
}

/// What cannot be published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// What has to wait with it.
    pub kind: Kind,
    /// The stream's or the category's name.
    pub name: String,
    /// What is in the way.
    pub cause: Cause,
    /// The same, in the words of whoever refuses.
    pub reason: String,
    /// The event's position.
    pub position: Option<i64>,
}

/// So many of what is held at once are named in the log.
const NAMED_MAX: usize = 20;

/// Says what is held from now on, and what to do about it.
pub(crate) fn say(refusals: &[Refusal]) {
    for Refusal { kind, name, cause, reason, position } in refusals.iter().take(NAMED_MAX) {
        let hint = match kind {
            Kind::Stream => "see `annals-relay quarantine show`, then retry or skip",
            Kind::Category => "goes on by itself once its topic can be written to",
        };
        tracing::warn!(event = "quarantined", %kind, name, ?cause, position, reason, "holding {kind} {name}: {hint}");
    }
    if refusals.len() > NAMED_MAX {
        let more = refusals.len() - NAMED_MAX;
        tracing::warn!(
            event = "quarantined_more",
            more,
            "and holding more: see `annals-relay quarantine list`"
        );
    }
}

/// Whether PostgreSQL knows how far a hold got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It does.
    Noted,
    /// It got further, by its shard's checkpoint.
    Ahead,
    /// It has ended, by its shard's checkpoint.
    Ended,
}

/// One thing that is held in one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hold {
    /// Its number.
    pub(crate) id: i64,
    pub(crate) place: Place,
    pub(crate) standing: Standing,
}

/// A hold with what it holds.
pub(crate) type Named = ((Kind, String), Hold);

/// Everything that is held in one shard, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Holds(Arc<HashMap<(Kind, String), Hold>>);

impl Holds {
    pub(crate) fn new(holds: impl IntoIterator<Item = Named>) -> Self {
        Self(Arc::new(holds.into_iter().collect()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One that goes on still.
    pub(crate) fn get(&self, name: &(Kind, String)) -> Option<&Hold> {
        self.0.get(name).filter(|hold| hold.standing != Standing::Ended)
    }

    /// Those that go on still, with their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&(Kind, String), &Hold)> {
        self.0.iter().filter(|(_, hold)| hold.standing != Standing::Ended)
    }

    /// Whether an event of this category and stream waits.
    pub(crate) fn holds(&self, category: &str, stream: &str) -> bool {
        !self.is_empty() && (self.has(Kind::Category, category) || self.has(Kind::Stream, stream))
    }

    /// Whether this is held by itself.
    pub(crate) fn has(&self, kind: Kind, name: &str) -> bool {
        // A pair of texts has no borrowed form; there are few holds, and mostly none.
        self.get(&(kind, name.to_owned())).is_some()
    }

    /// Takes a hold to another place, or to its end.
    pub(crate) fn go_on(&mut self, name: &(Kind, String), place: Place, is_ended: bool) {
        if let Some(hold) = Arc::make_mut(&mut self.0).get_mut(name) {
            hold.place = place;
            hold.standing = if is_ended { Standing::Ended } else { Standing::Ahead };
        }
    }

    /// What PostgreSQL knows by now need not stand in checkpoints any more.
    pub(crate) fn note(&mut self, noted: &HashMap<i64, Option<Place>>) {
        let is_news = |hold: &Hold| {
            hold.standing != Standing::Noted && noted.get(&hold.id) == Some(&progress(hold).place)
        };
        if !self.0.values().any(is_news) {
            return;
        }
        let holds = Arc::make_mut(&mut self.0);
        holds.retain(|_, hold| !(hold.standing == Standing::Ended && is_news(hold)));
        for hold in holds.values_mut().filter(|hold| is_news(hold)) {
            hold.standing = Standing::Noted;
        }
    }

    /// What PostgreSQL does not know yet.
    fn progress(&self) -> Vec<Progress> {
        let unknown = self.0.values().filter(|hold| hold.standing != Standing::Noted);
        unknown.map(progress).collect()
    }
}

fn progress(hold: &Hold) -> Progress {
    let place = (hold.standing != Standing::Ended).then(|| hold.place.clone());
    Progress { hold: hold.id, place }
}

/// Where one shard stands, with what is held in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardPlace {
    pub(crate) lease: Lease,
    /// The end of the log when the place was read: says which history it is in.
    pub(crate) known: Arc<LogEnd>,
    pub(crate) place: Place,
    /// The last event that was published of the shard.
    pub(crate) last: Option<LastEvent>,
    pub(crate) holds: Holds,
}

impl ShardPlace {
    /// The shard's number as the database has it.
    pub(crate) fn shard(&self) -> i16 {
        number(self.lease.shard)
    }

    /// What is to be written of it.
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        let (history, holds) = (self.known.history.clone(), self.holds.progress());
        Checkpoint::new(history, self.place.clone(), holds).ending_with(self.last)
    }

    /// The end of the window that a hold can be read up to; none while that must wait for the shard.
    pub(crate) fn window_of<'a>(&'a self, hold: &'a Hold) -> Option<&'a Bound> {
        // In the window that the shard is in, the shard goes first.
        let is_before = hold.place.since != self.place.since;
        is_before.then(|| hold.place.until.as_ref().unwrap_or(&self.place.since))
    }

    /// Whether what is held here has caught up.
    pub(crate) fn is_caught_up(&self, place: &Place) -> bool {
        let is_between = place.until.is_none() && self.place.until.is_none();
        is_between && place.since == self.place.since
    }
}

/// Shards by where they stand: normally all at one place, and apart only after a takeover, until each has
/// finished its window.
pub(crate) fn groups(places: &[ShardPlace]) -> Vec<(Place, Vec<i16>)> {
    let mut groups: Vec<(Place, Vec<i16>)> = Vec::new();
    for shard in places {
        match groups.iter_mut().find(|(place, _)| *place == shard.place) {
            Some((_, shards)) => shards.push(shard.shard()),
            None => groups.push((shard.place.clone(), vec![shard.shard()])),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use annals_relay_core::Shard;
    use annals_store::outbox::History;
    use uuid::Uuid;

    use super::*;

    fn bound(position: i64) -> Bound {
        let snapshot = format!("{position}:{position}:");
        Bound { snapshot, next_xid: position, position, event_id: None, settled: 0 }
    }

    fn shard(shard: u16, place: Place) -> ShardPlace {
        let history = History {
            store_id: Uuid::nil(),
            number: 1,
            system_identifier: "7".into(),
            timeline: "00000001".into(),
        };
        let known = LogEnd { history, incarnation: "a".into(), bound: Bound::origin() };
        let lease = Lease { shard: Shard(shard), epoch: 1 };
        ShardPlace { lease, known: Arc::new(known), place, last: None, holds: Holds::default() }
    }

    fn name() -> (Kind, String) {
        (Kind::Stream, "account-1".to_owned())
    }

    fn held(place: Place) -> Holds {
        let hold = Hold { id: 7, place, standing: Standing::Noted };
        Holds::new([(name(), hold)])
    }

    #[test]
    fn shards_apart_are_read_apart_and_together_where_they_meet() {
        let behind = Place::origin().within(&bound(99), 42);
        let read = |places: [Place; 3]| {
            let places: Vec<_> =
                (0..).zip(places).map(|(number, place)| shard(number, place)).collect();
            groups(&places).into_iter().map(|(_, shards)| shards).collect::<Vec<_>>()
        };
        assert_eq!(read([Place::origin(), behind, Place::origin()]), [vec![0, 2], vec![1]]);
        let done = Place::done(&bound(99));
        assert_eq!(read([done.clone(), done.clone(), done]), [[0, 1, 2]]);
    }

    #[test]
    fn what_is_held_waits_and_nothing_else() {
        let holds = held(Place::origin());
        assert!(holds.holds("account", "account-1"));
        assert!(!holds.holds("account", "account-2"));
        let category = Hold { id: 8, place: Place::origin(), standing: Standing::Noted };
        let holds = Holds::new([((Kind::Category, "account".to_owned()), category)]);
        assert!(holds.holds("account", "account-2"));
        assert!(!holds.holds("ledger", "ledger-1"));
    }

    #[test]
    fn in_the_window_of_its_shard_a_hold_waits_and_then_goes_on_to_the_end_of_windows_it_left() {
        let mut shard = shard(1, Place::origin().within(&bound(9), 5));
        let hold = Place::origin().within(&bound(9), 3);
        let hold = Hold { id: 7, place: hold, standing: Standing::Noted };
        assert_eq!(shard.window_of(&hold), None);
        shard.place = Place::done(&bound(9));
        assert_eq!(shard.window_of(&hold), Some(&bound(9)));
        shard.place = Place::done(&bound(12));
        assert_eq!(shard.window_of(&hold), Some(&bound(9)), "its own window has its own end");
        let next = Hold { place: Place::done(&bound(9)), ..hold };
        assert_eq!(shard.window_of(&next), Some(&bound(12)));
    }

    #[test]
    fn a_hold_has_caught_up_where_its_shard_stands_between_two_windows() {
        let mut shard = shard(1, Place::done(&bound(9)));
        assert!(shard.is_caught_up(&Place::done(&bound(9))));
        assert!(!shard.is_caught_up(&Place::done(&bound(5))));
        shard.place = shard.place.within(&bound(12), 10);
        assert!(
            !shard.is_caught_up(&Place::done(&bound(9))),
            "the shard has left out what came later"
        );
    }

    #[test]
    fn how_far_a_hold_got_stands_in_checkpoints_until_it_is_noted() {
        let mut shard = shard(1, Place::origin());
        shard.holds = held(Place::origin());
        assert_eq!(shard.checkpoint().holds, []);
        let further = Place::done(&bound(5));
        shard.holds.go_on(&name(), further.clone(), false);
        let progress = Progress { hold: 7, place: Some(further.clone()) };
        assert_eq!(shard.checkpoint().holds, [progress]);
        shard.holds.note(&HashMap::from([(7, Some(Place::origin()))]));
        assert_eq!(shard.checkpoint().holds.len(), 1, "an older place is noted");
        shard.holds.note(&HashMap::from([(7, Some(further.clone()))]));
        assert_eq!(shard.checkpoint().holds, []);
        shard.holds.go_on(&name(), further, true);
        assert_eq!(shard.checkpoint().holds, [Progress { hold: 7, place: None }]);
        assert!(!shard.holds.holds("account", "account-1"), "it has ended, noted or not");
        shard.holds.note(&HashMap::from([(7, None)]));
        assert!(shard.holds.is_empty());
    }
}
