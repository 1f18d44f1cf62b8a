//! Shard numbers, as PostgreSQL has them.

use annals_relay_machine::Shard;

/// A shard's number in the database.
pub(crate) fn number(Shard(number): Shard) -> i16 {
    i16::try_from(number).unwrap_or(i16::MAX)
}

/// The shard with a number from the database.
pub(crate) fn shard(number: i16) -> Shard {
    Shard(number.unsigned_abs())
}
