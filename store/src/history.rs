//! The history of a store: which database cluster and timeline wrote its log.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One history of one store. Two histories of a store can diverge: an event of one history need not
/// exist in the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The store.
    pub store_id: Uuid,
    /// 1, plus the number of times that another database cluster adopted the store.
    pub number: i32,
    /// The identifier of the database cluster; equal on its standbys.
    pub system_identifier: String,
    /// The timeline, in hexadecimal. The promotion of a standby changes it.
    pub timeline: String,
}

impl std::fmt::Display for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { store_id, number, system_identifier, timeline } = self;
        write!(
            f,
            "store {store_id}, history {number}, cluster {system_identifier}, timeline {timeline}"
        )
    }
}
