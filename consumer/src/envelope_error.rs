//! Records that violate the topic contract.

use annals_schemas::WireFormatError;

use crate::position::RecordLocation;
use crate::raw_record::RecordBytes;

/// A record that is not an event of Annals.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read record {location}: {problem}")]
#[non_exhaustive]
pub struct EnvelopeError {
    /// The record.
    pub location: RecordLocation,
    /// The first violation of the topic contract.
    pub problem: EnvelopeProblem,
    /// Its key, value and headers.
    pub record: Box<RecordBytes>,
}

/// A violation of the topic contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeProblem {
    /// The key, which names the stream, is missing or not UTF-8.
    #[error("its key is not a stream name")]
    Key,
    /// A required header is missing.
    #[error("header {name} is missing")]
    HeaderMissing {
        /// The header's name.
        name: &'static str,
    },
    /// A header has a wrong value.
    #[error("header {name} is {found:?} and should be {expected}")]
    HeaderWrong {
        /// The header's name.
        name: &'static str,
        /// Its value, cut to 64 characters.
        found: String,
        /// The expected value.
        expected: &'static str,
    },
    /// There is no value: the record is a tombstone.
    #[error("it has no value")]
    NoValue,
    /// The value does not start with the Confluent prefix.
    #[error(transparent)]
    Frame(#[from] WireFormatError),
}
