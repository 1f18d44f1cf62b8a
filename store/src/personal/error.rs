//! Errors of personal data.

use annals_schemas::EncodeError;
use annals_schemas::personal::{OpenError, Subject};

use crate::error::{AppendError, Error};
use crate::personal::provider::KeyProviderError;

/// Why an operation with personal data failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PersonalError {
    /// The subject is erased, or its erasure has begun: it gets no key any more.
    #[error("subject {0} is erased")]
    Erased(Subject),
    /// The key provider failed.
    #[error(transparent)]
    Provider(#[from] KeyProviderError),
    /// The decrypted secret is not that of the key id: the row in the table was changed, or the
    /// provider has another wrapping key.
    #[error("the secret of subject {0} does not belong to its key id")]
    WrongSecret(String),
    /// A value cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] Error),
    /// The event `SubjectErased` was not appended. The key is destroyed: erase the subject again,
    /// or call [`PersonalKeys::finish_erasures`](crate::PersonalKeys::finish_erasures).
    #[error(
        "the key of subject {subject} is destroyed, and the event SubjectErased is not recorded"
    )]
    Append {
        /// The subject.
        subject: Subject,
        /// The cause.
        #[source]
        source: AppendError,
    },
    /// The event `SubjectErased` cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// Keys are still encrypted with an earlier version of the wrapping key: wrap them again first.
    #[error("{0} or more keys are encrypted with an earlier version of the wrapping key")]
    NotRewrapped(usize),
    /// The wrapping key was rotated during each of several tries.
    #[error("the wrapping key is rotated too often")]
    RotatedTooOften,
}
