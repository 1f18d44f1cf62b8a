//! Claims: which publication a topic belongs to. They stand in one compacted topic for all of a Kafka, so that relays that
//! know nothing of each other find each other there. This file decides; `claims_topic` reads and writes.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config::Config;

/// The form in which claims are written.
const FORMAT: u8 = 1;

/// One publication says that it publishes into one topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    format: u8,
    /// The topic.
    pub topic: String,
    /// The store that is published.
    pub store_id: Uuid,
    /// Its publication: the deployment and what its topics begin with.
    pub publication: String,
    deployment: String,
    prefix: String,
    source: String,
    shared: bool,
    system_identifier: String,
    database_oid: i64,
    database: String,
    history: i32,
    instance: String,
    claimed_at: Timestamp,
    /// The offset of the claim that this one replaces, where that is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seat: Option<i64>,
}

/// A claim that cannot be read: a later version of the relay wrote it, or something else.
#[derive(Debug, thiserror::Error)]
#[error(
    "the claim at offset {offset}, key {key}, cannot be read; a later version wrote it, or it is none"
)]
pub(crate) struct UnreadableClaim {
    offset: i64,
    key: String,
}

/// Why a topic is not published into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The claim that stands against it.
    pub by: Claim,
    why: Conflict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conflict {
    /// Another store's, and not both are shared.
    Store,
    /// Shared, with the same source.
    Source,
    /// Another deployment's of the same store.
    Deployment,
}

/// Why a whole publication must not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotMine {
    /// Another deployment of the same store publishes into topics with this prefix.
    #[error(
        "deployment {mine} would publish every event again into the topics of {}: correct relay.deployment, \
         or set another topics.prefix. Deployments that this database knows: {known}. Is {} given up for good: {}",
        .by, .by.publication, .by.release()
    )]
    Deployment {
        /// The publication that was to run.
        mine: String,
        /// The one whose topics they are.
        by: Box<Claim>,
        /// The publications that the database knows.
        known: String,
    },
    /// The database was copied, and the one it was copied from is there still.
    #[error(
        "this database is a copy of database {original}, whose topics these are: {by}. A copy for another environment needs \
         another topics.prefix; if this one takes the other's place, `annals-relay adopt` says so"
    )]
    Copy {
        /// The claim of the original.
        by: Box<Claim>,
        /// The name of the original now.
        original: String,
    },
    /// The store was moved away from here.
    #[error("this store has moved by `annals-relay adopt`, and is published from there: {by}")]
    Moved {
        /// The claim of the place it has moved to.
        by: Box<Claim>,
    },
}

impl Claim {
    /// The claim of a configured publication to a topic.
    pub(crate) fn new(config: &Config, topic: &str) -> Self {
        let (store, relay, topics) = (&config.store, &config.relay, &config.topics);
        let database = store.databases.get(&store.database_oid).cloned().unwrap_or_default();
        Self {
            format: FORMAT,
            topic: topic.to_owned(),
            store_id: store.id,
            publication: config.publication(),
            deployment: relay.deployment.clone(),
            prefix: topics.prefix.clone(),
            source: relay.source.clone(),
            shared: topics.shared,
            system_identifier: store.system_identifier.clone(),
            database_oid: store.database_oid,
            database,
            history: store.history,
            instance: relay.instance.clone(),
            claimed_at: Timestamp::now(),
            seat: None,
        }
    }

    /// The key of its record. No name in it has a slash.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}/{}", self.topic, self.store_id, self.publication)
    }

    /// The value of its record.
    pub(crate) fn value(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    fn owner(&self) -> (Uuid, &str) {
        (self.store_id, &self.publication)
    }

    /// Whether both say the same, whoever wrote them and when.
    fn says_the_same_as(&self, other: &Self) -> bool {
        let place = |claim: &Self| (claim.system_identifier.clone(), claim.database_oid);
        self.is_as_shared_as(other) && place(self) == place(other) && self.history == other.history
    }

    fn is_as_shared_as(&self, other: &Self) -> bool {
        (self.shared, &self.source) == (other.shared, &other.source)
    }

    fn conflict_with(&self, other: &Self) -> Option<Conflict> {
        if self.owner() == other.owner() {
            None
        } else if self.store_id == other.store_id {
            Some(Conflict::Deployment)
        } else if !(self.shared && other.shared) {
            Some(Conflict::Store)
        } else {
            (self.source == other.source).then_some(Conflict::Source)
        }
    }

    /// The command that gives up what its publication claims.
    fn release(&self) -> String {
        let Self { store_id, publication, .. } = self;
        format!(
            "`annals-relay release-topics --store {store_id} --publication {publication} --reason TEXT`"
        )
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { publication, store_id, source, instance, .. } = self;
        let Self { database, system_identifier, history, claimed_at, .. } = self;
        write!(
            f,
            "deployment {publication} of store {store_id} (source {source}, database {database} of cluster \
             {system_identifier}, history {history}, relay {instance}, since {claimed_at:.0})"
        )
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by, why } = self;
        write!(f, "topic {} belongs to {by}: ", by.topic)?;
        match why {
            Conflict::Store => f.write_str(
                "set another topics.prefix; or, where both have streams of their own, topics.shared and a relay.source \
                 of its own for each",
            )?,
            Conflict::Source => {
                f.write_str("it is shared, and records are told apart by relay.source: set another one")?;
            }
            Conflict::Deployment => f.write_str(
                "two deployments would publish every event twice: set another topics.prefix",
            )?,
        }
        write!(f, ". Is that one given up for good: {}", by.release())
    }
}

/// A claim, and how early it was made: of claims that exclude each other the earliest is in force.
#[derive(Debug, Clone)]
struct Entry {
    rank: i64,
    claim: Claim,
}

/// All claims, as they were last read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Book {
    topics: BTreeMap<String, Vec<Entry>>,
}

impl Book {
    /// Takes a record; the last one of a key counts.
    pub(crate) fn take(
        &mut self,
        offset: i64,
        key: &str,
        value: Option<&[u8]>,
    ) -> Result<(), UnreadableClaim> {
        let unreadable = || UnreadableClaim { offset, key: key.to_owned() };
        let topic = key.split('/').next().unwrap_or_default();
        let entries = self.topics.entry(topic.to_owned()).or_default();
        entries.retain(|entry| entry.claim.key() != key);
        if let Some(value) = value {
            let claim: Claim = serde_json::from_slice(value).map_err(|_error| unreadable())?;
            if claim.format != FORMAT || claim.key() != key {
                return Err(unreadable());
            }
            entries.push(Entry { rank: claim.seat.unwrap_or(offset), claim });
        }
        if entries.is_empty() {
            self.topics.remove(topic);
        }
        Ok(())
    }

    fn of(&self, topic: &str) -> impl Iterator<Item = &Entry> {
        self.topics.get(topic).into_iter().flatten()
    }

    fn own(&self, claim: &Claim) -> Option<&Entry> {
        self.of(&claim.topic).find(|entry| entry.claim.owner() == claim.owner())
    }

    /// What stands against a claim that is not made yet.
    pub(crate) fn against(&self, claim: &Claim) -> Option<Taken> {
        let mut entries: Vec<&Entry> = self.of(&claim.topic).collect();
        entries.sort_by_key(|entry| entry.rank);
        entries.into_iter().find_map(|entry| taken(claim, entry))
    }

    /// What stands before a claim that is made.
    pub(crate) fn before(&self, claim: &Claim) -> Option<Taken> {
        let own = self.own(claim)?;
        let mut earlier = self.of(&claim.topic).filter(|entry| entry.rank < own.rank);
        earlier.find_map(|entry| taken(claim, entry))
    }

    /// Whether a claim is made as it is to be; if not, what is to be written.
    pub(crate) fn renewed(&self, claim: Claim) -> Option<Claim> {
        let Some(own) = self.own(&claim) else { return Some(claim) };
        if own.claim.says_the_same_as(&claim) {
            return None;
        }
        // One that says otherwise with whom the topic is shared is a new one: others may have come to rely on the old one.
        let seat = own.claim.is_as_shared_as(&claim).then_some(own.rank);
        Some(Claim { seat, ..claim })
    }

    /// The claims of a publication.
    pub(crate) fn of_publication(&self, store_id: Uuid, publication: &str) -> Vec<&Claim> {
        let claims = self.topics.values().flatten().map(|entry| &entry.claim);
        claims.filter(|claim| claim.owner() == (store_id, publication)).collect()
    }

    /// Whether the configured publication may run: its claims are made from this database, or it has taken the place of
    /// the one they were made from.
    pub(crate) fn is_mine(&self, config: &Config) -> Result<(), NotMine> {
        let store = &config.store;
        for claim in self.of_publication(store.id, &config.publication()) {
            let by = || Box::new(claim.clone());
            if claim.history > store.history {
                return Err(NotMine::Moved { by: by() });
            }
            let is_here = claim.system_identifier == store.system_identifier;
            let is_this = is_here && claim.database_oid == store.database_oid;
            if is_this || claim.history < store.history {
                continue;
            }
            match (is_here, store.databases.get(&claim.database_oid)) {
                // It was dropped, and this one restored in its place.
                (true, None) => {}
                (true, Some(original)) => {
                    return Err(NotMine::Copy { by: by(), original: original.clone() });
                }
                (false, _) => {
                    let original =
                        format!("{} of cluster {}", claim.database, claim.system_identifier);
                    return Err(NotMine::Copy { by: by(), original });
                }
            }
        }
        Ok(())
    }

    /// The claim of another deployment of the same store to topics with the same prefix: whatever is published would be
    /// published twice.
    pub(crate) fn of_another_deployment(&self, config: &Config) -> Option<&Claim> {
        let mine = Claim::new(config, "");
        let is_it = |claim: &&Claim| {
            claim.store_id == mine.store_id
                && claim.prefix == mine.prefix
                && claim.publication != mine.publication
        };
        self.topics.values().flatten().map(|entry| &entry.claim).find(is_it)
    }
}

fn taken(claim: &Claim, entry: &Entry) -> Option<Taken> {
    let why = claim.conflict_with(&entry.claim)?;
    Some(Taken { by: entry.claim.clone(), why })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StoreFacts;

    const TOPIC: &str = "flight";

    fn config(store: u128, oid: i64, history: i32) -> Config {
        let facts = StoreFacts {
            id: Uuid::from_u128(store),
            history,
            system_identifier: "7".to_owned(),
            database_oid: oid,
            databases: [(1, "one".to_owned()), (2, "two".to_owned())].into(),
        };
        Config::example().of_store(facts)
    }

    fn claim(config: &Config) -> Claim {
        Claim::new(config, TOPIC)
    }

    fn book(claims: &[(i64, Claim)]) -> Book {
        let mut book = Book::default();
        for (offset, claim) in claims {
            book.take(*offset, &claim.key(), Some(&claim.value().unwrap())).unwrap();
        }
        book
    }

    #[test]
    fn of_two_claims_the_first_is_in_force_until_it_is_withdrawn() {
        let (a, b) = (claim(&config(1, 1, 1)), claim(&config(2, 2, 1)));
        let mut book = book(&[(3, a.clone()), (4, b.clone())]);
        assert_eq!(book.before(&a), None);
        assert_eq!(book.before(&b).unwrap().by.store_id, a.store_id);
        book.take(5, &a.key(), None).unwrap();
        assert_eq!(book.before(&b), None);
    }

    #[test]
    fn a_claim_that_is_written_anew_keeps_its_place_unless_it_says_with_whom_it_is_shared() {
        let (a, b) = (claim(&config(1, 1, 1)), claim(&config(2, 2, 1)));
        let mut book = book(&[(3, a.clone()), (4, b.clone())]);
        let moved = book.renewed(claim(&config(1, 2, 2))).unwrap();
        book.take(5, &moved.key(), Some(&moved.value().unwrap())).unwrap();
        assert_eq!(book.before(&a), None, "it stands where it stood");
        assert!(book.renewed(claim(&config(1, 2, 2))).is_none());
        let shared = book.renewed(Claim { shared: true, ..claim(&config(1, 2, 2)) }).unwrap();
        assert_eq!(shared.seat, None);
    }

    #[test]
    fn a_topic_is_shared_only_by_stores_that_all_say_so_with_sources_of_their_own() {
        let shared = |store, source: &str| {
            let source = source.to_owned();
            Claim { shared: true, source, ..claim(&config(store, 1, 1)) }
        };
        let book = book(&[(3, shared(1, "a"))]);
        assert_eq!(book.against(&shared(2, "b")), None);
        assert_eq!(book.against(&shared(2, "a")).unwrap().why, Conflict::Source);
        let exclusive = Claim { shared: false, ..shared(2, "b") };
        assert_eq!(book.against(&exclusive).unwrap().why, Conflict::Store);
        let other = Claim { publication: "other".to_owned(), ..shared(1, "b") };
        assert_eq!(book.against(&other).unwrap().why, Conflict::Deployment);
    }

    #[test]
    fn a_store_is_published_from_one_database_and_moves_by_its_history() {
        let of = |oid, history| book(&[(0, claim(&config(1, oid, history)))]);
        assert_eq!(of(1, 1).is_mine(&config(1, 1, 1)), Ok(()));
        let copy = of(1, 1).is_mine(&config(1, 2, 1)).unwrap_err();
        assert!(matches!(&copy, NotMine::Copy { original, .. } if original == "one"), "{copy}");
        assert_eq!(of(9, 1).is_mine(&config(1, 2, 1)), Ok(()), "the original was dropped");
        assert_eq!(of(1, 1).is_mine(&config(1, 2, 2)), Ok(()), "it was adopted");
        let moved = of(2, 2).is_mine(&config(1, 1, 1)).unwrap_err();
        assert!(matches!(moved, NotMine::Moved { .. }), "{moved}");
        let mut elsewhere = config(1, 1, 1);
        let facts = StoreFacts { system_identifier: "8".to_owned(), ..(*elsewhere.store).clone() };
        elsewhere = elsewhere.of_store(facts);
        let copy = of(9, 1).is_mine(&elsewhere).unwrap_err();
        assert!(matches!(copy, NotMine::Copy { .. }), "{copy}");
        assert_eq!(of(1, 1).is_mine(&config(2, 2, 1)), Ok(()), "another store");
    }

    #[test]
    fn what_is_no_claim_is_refused() {
        let claim = claim(&config(1, 1, 1));
        let mut book = Book::default();
        assert!(book.take(0, &claim.key(), Some(b"{}")).is_err());
        assert!(book.take(0, "other/key/x", Some(&claim.value().unwrap())).is_err());
        let later = Claim { format: 2, ..claim };
        assert!(book.take(0, &later.key(), Some(&later.value().unwrap())).is_err());
    }
}
