//! Commands: requests that are recorded once, however often they are sent.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use uuid::{Builder, Uuid};

use crate::event::EventId;

/// The id of a command: a request that its sender may send again with the same id.
///
/// The id of event number `n` (from 0) of a command is the UUID of version 5 (RFC 9562) with the
/// command's id as its namespace and `n`, in decimal digits, as its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandId(Uuid);

impl CommandId {
    /// The id as a UUID.
    #[must_use]
    pub const fn get(self) -> Uuid {
        self.0
    }

    /// The id of the command's event with this number, from 0.
    #[must_use]
    pub fn event_id(self, number: usize) -> EventId {
        let hash = Sha1::new().chain_update(self.0.as_bytes());
        let hash = hash.chain_update(number.to_string().as_bytes()).finalize();
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(hash).for_each(|(byte, hashed)| *byte = hashed);
        EventId::from(Builder::from_sha1_bytes(bytes).into_uuid())
    }
}

impl From<Uuid> for CommandId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_ids_are_those_of_any_implementation_of_uuid_version_5() {
        // python3 -c 'import uuid; print(uuid.uuid5(uuid.NAMESPACE_DNS, "0"))'
        let command = CommandId::from(Uuid::from_u128(0x6ba7_b810_9dad_11d1_80b4_00c0_4fd4_30c8));
        assert_eq!(command.event_id(0).to_string(), "6af613b6-569c-5c22-9c37-2ed93f31d3af");
        assert_eq!(command.event_id(12).to_string(), "52524d6e-10dc-5261-aa36-8b2efcbaa5f0");
    }
}
