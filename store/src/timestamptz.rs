//! `timestamptz` as [`jiff::Timestamp`].

use jiff::Timestamp;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Type};

/// Microseconds from 1970-01-01 to 2000-01-01, the epoch of PostgreSQL.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// A `timestamptz` of PostgreSQL, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PgTimestamp(pub(crate) Timestamp);

impl Type<Postgres> for PgTimestamp {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("timestamptz")
    }
}

impl PgHasArrayType for PgTimestamp {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::array_of("timestamptz")
    }
}

impl<'r> Decode<'r, Postgres> for PgTimestamp {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let since_2000_us = <i64 as Decode<Postgres>>::decode(value)?;
        let us =
            since_2000_us.checked_add(POSTGRES_EPOCH_US).ok_or("a timestamptz out of range")?;
        Ok(Self(Timestamp::from_microsecond(us)?))
    }
}

impl<'q> Encode<'q, Postgres> for PgTimestamp {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let since_2000_us = self.0.as_microsecond() - POSTGRES_EPOCH_US;
        <i64 as Encode<Postgres>>::encode_by_ref(&since_2000_us, buffer)
    }
}
