//! Personal data: keys of subjects, and erasure by the destruction of a key.
//!
//! The format of sealed values is that of [`annals_schemas::personal`]. The secret of each subject
//! is in the table `personal_keys`, encrypted by a [`KeyProvider`]: the database alone opens
//! nothing, nor do Kafka, replicas and backups.

mod erase;
mod error;
mod file;
mod keys;
mod provider;
mod rotation;
#[cfg(feature = "vault")]
mod vault;

pub use self::erase::{Erased, PersonalDataEvent, SubjectErased};
pub use self::error::PersonalError;
pub use self::file::FileKeyProvider;
pub use self::keys::PersonalKeys;
pub use self::provider::{KeyProvider, KeyProviderError};
#[cfg(feature = "vault")]
pub use self::vault::VaultKeyProvider;
