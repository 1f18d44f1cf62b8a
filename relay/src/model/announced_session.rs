//! Announcements of sessions: records in the topic of claims, beside the claims. A session
//! announces its transactional ids before it opens its producers. So it can be fenced by relays on
//! a database that does not have its row: a promoted standby, or a restored copy.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The version of the format.
const FORMAT: u8 = 1;
/// The first part of the keys.
const KEY: &str = "sessions";
/// The number of parts of a key; the key of a claim has fewer.
const KEY_PARTS: usize = 4;

/// A session that has producers, or had some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AnnouncedSession {
    format: u8,
    pub(crate) store_id: Uuid,
    pub(crate) publication: String,
    instance: String,
    pub(crate) transactional_ids: Vec<String>,
    announced_at: Timestamp,
}

/// The subject of an announcement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AnnouncedBy<'a> {
    pub(crate) store_id: Uuid,
    pub(crate) publication: &'a str,
    pub(crate) instance: &'a str,
}

impl AnnouncedSession {
    pub(crate) fn new(by: AnnouncedBy<'_>, transactional_ids: &[String]) -> Self {
        Self {
            format: FORMAT,
            store_id: by.store_id,
            publication: by.publication.to_owned(),
            instance: by.instance.to_owned(),
            transactional_ids: transactional_ids.to_vec(),
            announced_at: Timestamp::now(),
        }
    }

    /// The key of its record. None of its parts has a slash.
    pub(crate) fn key(&self) -> String {
        let id = self.transactional_ids.first().map_or("", |id| start_of(id));
        format!("{KEY}/{}/{}/{id}", self.store_id, self.publication)
    }

    /// Reads a record; none if it is no announcement, or one of a later version.
    pub(super) fn from_record(key: &str, value: &[u8]) -> Option<Self> {
        let session: Self = serde_json::from_slice(value).ok()?;
        (session.format == FORMAT && session.key() == key).then_some(session)
    }

    /// The value of its record.
    pub(crate) fn value(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
}

/// Whether a key is that of an announcement.
pub(super) fn is_key(key: &str) -> bool {
    let mut parts = key.split('/');
    parts.next() == Some(KEY) && parts.count() + 1 == KEY_PARTS
}

/// The part of a transactional id that is common to the session's.
fn start_of(transactional_id: &str) -> &str {
    transactional_id.rsplit_once('.').map_or(transactional_id, |(start, _)| start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_is_told_from_a_claim_and_read_back() {
        let by = AnnouncedBy { store_id: Uuid::nil(), publication: "port@air.", instance: "a" };
        let ids = ["air.port.12.a", "air.port.12.b"].map(str::to_owned);
        let session = AnnouncedSession::new(by, &ids);
        let key = session.key();
        assert_eq!(key, format!("sessions/{}/port@air./air.port.12", Uuid::nil()));
        assert!(is_key(&key) && !is_key("sessions/store/port@air."));
        let value = session.value().unwrap();
        assert_eq!(AnnouncedSession::from_record(&key, &value), Some(session));
        assert_eq!(AnnouncedSession::from_record("sessions/other/key/1", &value), None);
        assert_eq!(AnnouncedSession::from_record(&key, b"{}"), None);
    }
}
