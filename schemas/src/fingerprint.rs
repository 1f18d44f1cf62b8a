//! The short name of a schema, which an event stores instead of the definition.

use std::fmt;

use sha2::{Digest, Sha256};

/// Names one schema definition: the first 8 bytes, big endian, of the SHA-256 of
/// [`Schema::definition`](crate::Schema::definition).
///
/// It is stored beside each event as `bigint`, hence the sign. Displays as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(i64);

impl Fingerprint {
    pub(crate) fn of(definition: &str) -> Self {
        let digest: [u8; 32] = Sha256::digest(definition.as_bytes()).into();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        Self(i64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }

    /// The number as the database stores it.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }
}

impl From<i64> for Fingerprint {
    fn from(number: i64) -> Self {
        Self(number)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number) = self;
        write!(f, "{number:016x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_is_the_head_of_the_sha_256_and_survives_the_database() {
        // printf 'abc' | sha256sum starts with ba7816bf8f01cfea
        let fingerprint = Fingerprint::of("abc");
        assert_eq!(fingerprint.to_string(), "ba7816bf8f01cfea");
        assert!(fingerprint.get() < 0);
        assert_eq!(Fingerprint::from(fingerprint.get()), fingerprint);
    }
}
