//! All claims, as they were last read: which one is in force, and whether the configured
//! publication may run.

use crate::model::offsets::RecordOffset;
use std::collections::BTreeMap;

use uuid::Uuid;

use crate::config::Config;
use crate::model::announced_session::{AnnouncedSession, is_key};
use crate::model::claim::{Claim, FORMAT, PublicationRefused, TopicClaimed};

/// A record of the topic of claims that is no claim, or one of a later version of the relay.
#[derive(Debug, thiserror::Error)]
#[error(
    "the claim at offset {offset}, key {key}, cannot be read: a later version of the relay wrote it, or it is no claim"
)]
pub(crate) struct UnreadableClaim {
    offset: RecordOffset,
    key: String,
}

/// A claim with its rank: of claims that exclude each other, the one with the lowest rank is in
/// force.
#[derive(Debug, Clone)]
struct ClaimEntry {
    rank: RecordOffset,
    claim: Claim,
}

/// All claims, as they were last read.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClaimBook {
    topics: BTreeMap<String, Vec<ClaimEntry>>,
    /// The announced sessions, by the keys of their records.
    sessions: BTreeMap<String, AnnouncedSession>,
}

impl ClaimBook {
    /// Takes a record; the last one of each key counts.
    pub(crate) fn take(
        &mut self,
        offset: RecordOffset,
        key: &str,
        value: Option<&[u8]>,
    ) -> Result<(), UnreadableClaim> {
        let unreadable = || UnreadableClaim { offset, key: key.to_owned() };
        if is_key(key) {
            self.sessions.remove(key);
            if let Some(value) = value {
                let session = AnnouncedSession::from_record(key, value).ok_or_else(unreadable)?;
                self.sessions.insert(key.to_owned(), session);
            }
            return Ok(());
        }
        let topic = key.split('/').next().unwrap_or_default();
        let entries = self.topics.entry(topic.to_owned()).or_default();
        entries.retain(|entry| entry.claim.key() != key);
        if let Some(value) = value {
            let claim: Claim = serde_json::from_slice(value).map_err(|_error| unreadable())?;
            if claim.format != FORMAT || claim.key() != key {
                return Err(unreadable());
            }
            entries.push(ClaimEntry { rank: claim.seat.unwrap_or(offset), claim });
        }
        if entries.is_empty() {
            self.topics.remove(topic);
        }
        Ok(())
    }

    fn of(&self, topic: &str) -> impl Iterator<Item = &ClaimEntry> {
        self.topics.get(topic).into_iter().flatten()
    }

    fn own(&self, claim: &Claim) -> Option<&ClaimEntry> {
        self.of(&claim.topic).find(|entry| entry.claim.owner() == claim.owner())
    }

    /// The first claim that excludes a claim not made yet.
    pub(crate) fn against(&self, claim: &Claim) -> Option<TopicClaimed> {
        let mut entries: Vec<&ClaimEntry> = self.of(&claim.topic).collect();
        entries.sort_by_key(|entry| entry.rank);
        entries.into_iter().find_map(|entry| taken(claim, entry))
    }

    /// An earlier claim that excludes a claim that is made.
    pub(crate) fn before(&self, claim: &Claim) -> Option<TopicClaimed> {
        let own = self.own(claim)?;
        let mut earlier = self.of(&claim.topic).filter(|entry| entry.rank < own.rank);
        earlier.find_map(|entry| taken(claim, entry))
    }

    /// The claim to write, unless the same one is made already.
    pub(crate) fn renewed(&self, claim: Claim) -> Option<Claim> {
        let Some(own) = self.own(&claim) else { return Some(claim) };
        if own.claim.says_the_same_as(&claim) {
            return None;
        }
        // A claim that changes how the topic is shared gets a new rank: other publications may rely
        // on the old one.
        let seat = own.claim.is_as_shared_as(&claim).then_some(own.rank);
        Some(Claim { seat, ..claim })
    }

    /// The announced sessions of a publication.
    pub(crate) fn sessions_of(&self, store_id: Uuid, publication: &str) -> Vec<AnnouncedSession> {
        let is_of =
            |of: &&AnnouncedSession| of.store_id == store_id && of.publication == publication;
        self.sessions.values().filter(is_of).cloned().collect()
    }

    /// The claims of a publication.
    pub(crate) fn of_publication(&self, store_id: Uuid, publication: &str) -> Vec<&Claim> {
        let claims = self.topics.values().flatten().map(|entry| &entry.claim);
        claims.filter(|claim| claim.owner() == (store_id, publication)).collect()
    }

    /// Whether the configured publication may run: its claims were made from this database, or from
    /// one that this database replaces.
    pub(crate) fn is_mine(&self, config: &Config) -> Result<(), PublicationRefused> {
        let store = &config.store;
        for claim in self.of_publication(store.id, &config.publication()) {
            let by = || Box::new(claim.clone());
            if claim.history > store.history {
                return Err(PublicationRefused::Moved { by: by() });
            }
            let is_here = claim.system_identifier == store.system_identifier;
            let is_this = is_here && claim.database_oid == store.database_oid;
            if is_this || claim.history < store.history {
                continue;
            }
            match (is_here, store.databases.get(&claim.database_oid)) {
                // The original was dropped, and this one restored in its place.
                (true, None) => {}
                (true, Some(original)) => {
                    return Err(PublicationRefused::Copy { by: by(), original: original.clone() });
                }
                (false, _) => {
                    let original =
                        format!("{} of cluster {}", claim.database, claim.system_identifier);
                    return Err(PublicationRefused::Copy { by: by(), original });
                }
            }
        }
        Ok(())
    }

    /// The claim of another deployment of the same store to topics with the same prefix: every
    /// event would be published twice.
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

fn taken(claim: &Claim, entry: &ClaimEntry) -> Option<TopicClaimed> {
    let why = claim.conflict_with(&entry.claim)?;
    Some(TopicClaimed { by: entry.claim.clone(), why })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DatabaseOid, StoreFacts};
    use crate::model::claim::ClaimConflict;

    const TOPIC: &str = "flight";

    fn config(store: u128, oid: i64, history: i32) -> Config {
        let facts = StoreFacts {
            id: Uuid::from_u128(store),
            history,
            system_identifier: "7".to_owned(),
            database_oid: DatabaseOid(oid),
            databases: [(1, "one"), (2, "two")]
                .map(|(oid, name)| (DatabaseOid(oid), name.to_owned()))
                .into(),
        };
        Config::example().of_store(facts)
    }

    fn claim(config: &Config) -> Claim {
        Claim::new(config, TOPIC)
    }

    fn book(claims: &[(i64, Claim)]) -> ClaimBook {
        let mut book = ClaimBook::default();
        for (offset, claim) in claims {
            book.take(RecordOffset::new(*offset), &claim.key(), Some(&claim.value().unwrap()))
                .unwrap();
        }
        book
    }

    #[test]
    fn of_two_claims_the_first_is_in_force_until_it_is_withdrawn() {
        let (a, b) = (claim(&config(1, 1, 1)), claim(&config(2, 2, 1)));
        let mut book = book(&[(3, a.clone()), (4, b.clone())]);
        assert_eq!(book.before(&a), None);
        assert_eq!(book.before(&b).unwrap().by.store_id, a.store_id);
        book.take(RecordOffset::new(5), &a.key(), None).unwrap();
        assert_eq!(book.before(&b), None);
    }

    #[test]
    fn a_claim_that_is_written_anew_keeps_its_rank_unless_it_changes_how_the_topic_is_shared() {
        let (a, b) = (claim(&config(1, 1, 1)), claim(&config(2, 2, 1)));
        let mut book = book(&[(3, a.clone()), (4, b.clone())]);
        let moved = book.renewed(claim(&config(1, 2, 2))).unwrap();
        book.take(RecordOffset::new(5), &moved.key(), Some(&moved.value().unwrap())).unwrap();
        assert_eq!(book.before(&a), None, "it keeps its rank");
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
        assert_eq!(book.against(&shared(2, "a")).unwrap().why, ClaimConflict::Source);
        let exclusive = Claim { shared: false, ..shared(2, "b") };
        assert_eq!(book.against(&exclusive).unwrap().why, ClaimConflict::Store);
        let other = Claim { publication: "other".to_owned(), ..shared(1, "b") };
        assert_eq!(book.against(&other).unwrap().why, ClaimConflict::Deployment);
    }

    #[test]
    fn a_store_is_published_from_one_database_and_moves_by_its_history() {
        let of = |oid, history| book(&[(0, claim(&config(1, oid, history)))]);
        assert_eq!(of(1, 1).is_mine(&config(1, 1, 1)), Ok(()));
        let copy = of(1, 1).is_mine(&config(1, 2, 1)).unwrap_err();
        assert!(
            matches!(&copy, PublicationRefused::Copy { original, .. } if original == "one"),
            "{copy}"
        );
        assert_eq!(of(9, 1).is_mine(&config(1, 2, 1)), Ok(()), "the original was dropped");
        assert_eq!(of(1, 1).is_mine(&config(1, 2, 2)), Ok(()), "it was adopted");
        let moved = of(2, 2).is_mine(&config(1, 1, 1)).unwrap_err();
        assert!(matches!(moved, PublicationRefused::Moved { .. }), "{moved}");
        let mut elsewhere = config(1, 1, 1);
        let facts = StoreFacts { system_identifier: "8".to_owned(), ..(*elsewhere.store).clone() };
        elsewhere = elsewhere.of_store(facts);
        let copy = of(9, 1).is_mine(&elsewhere).unwrap_err();
        assert!(matches!(copy, PublicationRefused::Copy { .. }), "{copy}");
        assert_eq!(of(1, 1).is_mine(&config(2, 2, 1)), Ok(()), "another store");
    }

    #[test]
    fn records_that_are_no_claims_are_refused() {
        let claim = claim(&config(1, 1, 1));
        let mut book = ClaimBook::default();
        assert!(book.take(RecordOffset::new(0), &claim.key(), Some(b"{}")).is_err());
        assert!(
            book.take(RecordOffset::new(0), "other/key/x", Some(&claim.value().unwrap())).is_err()
        );
        let later = Claim { format: 2, ..claim };
        assert!(
            book.take(RecordOffset::new(0), &later.key(), Some(&later.value().unwrap())).is_err()
        );
    }
}
