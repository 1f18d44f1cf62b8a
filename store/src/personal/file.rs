//! A wrapping key in a file, for development and tests.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::personal::provider::{KeyProvider, KeyProviderError};

const KEY_BYTES: usize = 32;

/// A wrapping key in a file, readable for its user only: for development. In production the key
/// must not be where the database or its backups are.
///
/// The file is read for each operation, so that a rotation by another process is noticed.
#[derive(Debug, Clone)]
pub struct FileKeyProvider {
    path: PathBuf,
}

/// The content of the file: each version of the wrapping key.
#[derive(Serialize, Deserialize)]
struct Versions(BTreeMap<u32, Zeroized>);

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Zeroized(#[serde(with = "as_array")] Zeroizing<[u8; KEY_BYTES]>);

/// A key as an array of numbers.
mod as_array {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use zeroize::Zeroizing;

    use super::KEY_BYTES;

    pub(super) fn serialize<S: Serializer>(
        key: &Zeroizing<[u8; KEY_BYTES]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        key.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Zeroizing<[u8; KEY_BYTES]>, D::Error> {
        <[u8; KEY_BYTES]>::deserialize(deserializer).map(Zeroizing::new)
    }
}

impl FileKeyProvider {
    /// Uses the wrapping key in a file, and makes a new one if there is no file.
    ///
    /// # Errors
    /// [`KeyProviderError`] if the file cannot be read or created.
    pub fn open_or_create(path: impl Into<PathBuf>) -> Result<Self, KeyProviderError> {
        let provider = Self { path: path.into() };
        if !provider.path.exists() {
            let key = random()?;
            provider.write(&Versions(BTreeMap::from([(1, key)])))?;
        }
        provider.read()?;
        Ok(provider)
    }

    fn read(&self) -> Result<Versions, KeyProviderError> {
        const ACTION: &str = "read the wrapping key";
        let text = fs::read(&self.path).map_err(|error| failed(ACTION, &error))?;
        let text = Zeroizing::new(text);
        let versions = serde_json::from_slice::<Versions>(&text);
        // The cause could quote the key.
        versions.map_err(|_quotes| failed(ACTION, &"the file has another content"))
    }

    /// Replaces the file at once.
    fn write(&self, versions: &Versions) -> Result<(), KeyProviderError> {
        const ACTION: &str = "write the wrapping key";
        let text = serde_json::to_vec(versions).map_err(|error| failed(ACTION, &error))?;
        let text = Zeroizing::new(text);
        let new = self.path.with_extension("new");
        write_private(&new, &text).map_err(|error| failed(ACTION, &error))?;
        fs::rename(&new, &self.path).map_err(|error| failed(ACTION, &error))
    }

    fn wrap_now(&self, secret: &[u8]) -> Result<Vec<u8>, KeyProviderError> {
        const ACTION: &str = "encrypt a key";
        let versions = self.read()?;
        let Some((version, key)) = versions.0.last_key_value() else {
            return Err(failed(ACTION, &"the file has no key"));
        };
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|error| failed(ACTION, &error))?;
        let mut text = secret.to_vec();
        let version = version.to_be_bytes();
        let aad = Aad::from(version);
        cipher(key)
            .and_then(|key| {
                key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut text)
            })
            .map_err(|error| failed(ACTION, &error))?;
        Ok([&version[..], &nonce, &text].concat())
    }

    fn unwrap_now(&self, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyProviderError> {
        const ACTION: &str = "decrypt a key";
        let malformed = || failed(ACTION, &"the bytes were not encrypted by a file provider");
        let (version, rest) = wrapped.split_first_chunk::<4>().ok_or_else(malformed)?;
        let (nonce, text) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(malformed)?;
        let versions = self.read()?;
        let number = u32::from_be_bytes(*version);
        let key = versions.0.get(&number).ok_or_else(|| {
            failed(ACTION, &format!("version {number} of the wrapping key does not exist"))
        })?;
        let mut text = Zeroizing::new(text.to_vec());
        let opened = cipher(key)
            .and_then(|key| {
                let nonce = Nonce::assume_unique_for_key(*nonce);
                Ok(key.open_in_place(nonce, Aad::from(*version), &mut text)?.len())
            })
            .map_err(|error| failed(ACTION, &error))?;
        text.truncate(opened);
        Ok(text)
    }

    fn rotate_now(&self) -> Result<(), KeyProviderError> {
        let mut versions = self.read()?;
        let newest = versions.0.last_key_value().map_or(0, |(version, _)| *version);
        versions.0.insert(newest.saturating_add(1), random()?);
        self.write(&versions)
    }

    fn destroy_earlier_now(&self) -> Result<(), KeyProviderError> {
        let mut versions = self.read()?;
        let newest = versions.0.last_key_value().map_or(0, |(version, _)| *version);
        versions.0.retain(|version, _| *version == newest);
        self.write(&versions)
    }
}

impl KeyProvider for FileKeyProvider {
    fn wrap<'a>(&'a self, secret: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, KeyProviderError>> {
        Box::pin(async { self.wrap_now(secret) })
    }

    fn unwrap<'a>(
        &'a self,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<Zeroizing<Vec<u8>>, KeyProviderError>> {
        Box::pin(async { self.unwrap_now(wrapped) })
    }

    fn rotate(&self) -> BoxFuture<'_, Result<(), KeyProviderError>> {
        Box::pin(async { self.rotate_now() })
    }

    fn destroy_earlier_versions(&self) -> BoxFuture<'_, Result<(), KeyProviderError>> {
        Box::pin(async { self.destroy_earlier_now() })
    }
}

fn random() -> Result<Zeroized, KeyProviderError> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    let filled = SystemRandom::new().fill(&mut key[..]);
    filled.map_err(|error| failed("make a wrapping key", &error))?;
    Ok(Zeroized(key))
}

fn cipher(key: &Zeroized) -> Result<LessSafeKey, ring::error::Unspecified> {
    UnboundKey::new(&AES_256_GCM, &key.0[..]).map(LessSafeKey::new)
}

fn failed(action: &'static str, reason: &dyn std::fmt::Display) -> KeyProviderError {
    let reason = reason.to_string();
    KeyProviderError { provider: "key file", action, reason, is_retryable: false }
}

/// Writes a file that only its user can read, to the disk.
fn write_private(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text)?;
    file.sync_all()
}
