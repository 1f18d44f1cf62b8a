//! The keys of subjects.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

const SECRET_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 16;
pub(super) const NONCE_BYTES: usize = 12;
const SUBJECT_BYTES_MAX: usize = 150;

/// The person or other entity whose data can be erased: an opaque id of the application, such as
/// `customer-17`.
///
/// It stays in the store after an erasure, so that the erased subject gets no new key. So it must
/// not be personal itself: no name and no e-mail address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subject(String);

/// A text that is not a legal subject.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} cannot name a subject: 1 to {SUBJECT_BYTES_MAX} bytes of A-Z a-z 0-9 . _ : + = ~ -")]
pub struct SubjectError(pub String);

impl Subject {
    /// Checks a text as the id of a subject.
    ///
    /// # Errors
    /// [`SubjectError`] for other characters than those of a stream's name, `@` excluded, and for a
    /// text that is too long.
    pub fn new(text: impl Into<String>) -> Result<Self, SubjectError> {
        let text = text.into();
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._:+=~-".contains(&byte);
        match text.len() {
            1..=SUBJECT_BYTES_MAX if text.bytes().all(legal) => Ok(Self(text)),
            _ => Err(SubjectError(text)),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        Self::new(text)
    }
}

impl TryFrom<String> for Subject {
    type Error = SubjectError;

    fn try_from(text: String) -> Result<Self, SubjectError> {
        Self::new(text)
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> Self {
        subject.0
    }
}

/// Names the key of a sealed value. It tells nothing about the subject.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; KEY_ID_BYTES]);

impl KeyId {
    /// The id as bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The id from its bytes; none if these are not 16.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

/// Hexadecimal.
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// The key of one subject, in memory. The secret is overwritten when the last clone is dropped.
#[derive(Clone)]
pub struct SubjectKey(Arc<Inner>);

struct Inner {
    id: KeyId,
    secret: Zeroizing<[u8; SECRET_BYTES]>,
}

impl SubjectKey {
    /// A new random key.
    ///
    /// # Panics
    /// If the operating system has no random numbers.
    #[must_use]
    pub fn generate(subject: &Subject) -> Self {
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        let filled = SystemRandom::new().fill(&mut secret[..]);
        assert!(filled.is_ok(), "the operating system has random numbers");
        Self::new(subject, secret)
    }

    /// The key with this secret; none if the secret has not 32 bytes.
    #[must_use]
    pub fn from_secret(subject: &Subject, secret: &[u8]) -> Option<Self> {
        let secret: [u8; SECRET_BYTES] = secret.try_into().ok()?;
        Some(Self::new(subject, Zeroizing::new(secret)))
    }

    fn new(subject: &Subject, secret: Zeroizing<[u8; SECRET_BYTES]>) -> Self {
        let id = digest(&secret[..], &[b"annals personal 1 id", subject.as_str().as_bytes()]);
        let mut short = [0; KEY_ID_BYTES];
        short.copy_from_slice(&id.as_ref()[..KEY_ID_BYTES]);
        Self(Arc::new(Inner { id: KeyId(short), secret }))
    }

    /// The id, which is part of each value that this key seals.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.0.id
    }

    /// The secret, for a key provider that encrypts it.
    #[must_use]
    pub fn secret(&self) -> &[u8] {
        &self.0.secret[..]
    }

    /// The nonce of a value at its place.
    fn nonce(&self, place: &[u8], value: &[u8]) -> [u8; NONCE_BYTES] {
        let key = digest(self.secret(), &[b"annals personal 1 nonce"]);
        let mac = digest(key.as_ref(), &[place, value]);
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&mac.as_ref()[..NONCE_BYTES]);
        nonce
    }

    /// Nonce, ciphertext and tag; none only if the value is longer than AES-GCM allows.
    pub(super) fn seal(&self, place: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        let nonce = self.nonce(place, value);
        let mut sealed = nonce.to_vec();
        let mut text = value.to_vec();
        let aad = Aad::from(place);
        let key = self.cipher()?;
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut text).ok()?;
        sealed.append(&mut text);
        Some(sealed)
    }

    /// The value; none if it was sealed with another key or for another place, or changed since.
    pub(super) fn open(&self, place: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, text) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let mut text = Zeroizing::new(text.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.cipher()?.open_in_place(nonce, Aad::from(place), &mut text).ok()?.len();
        text.truncate(opened);
        Some(text)
    }

    fn cipher(&self) -> Option<LessSafeKey> {
        let key = digest(self.secret(), &[b"annals personal 1 encryption"]);
        UnboundKey::new(&AES_256_GCM, key.as_ref()).ok().map(LessSafeKey::new)
    }
}

impl PartialEq for SubjectKey {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for SubjectKey {}

/// Shows the id only.
impl fmt::Debug for SubjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubjectKey({})", self.id())
    }
}

fn digest(key: &[u8], parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    parts.iter().for_each(|part| context.update(part));
    context.sign()
}

/// Tags by which equal values are found without being readable, such as e-mail addresses.
///
/// Made from a key of the store, not of a subject, so that values of all subjects are comparable.
/// A holder of that key can test a guess: a tag is a pseudonym, and it remains in events after an
/// erasure. Read models should delete it.
#[derive(Debug, Clone)]
pub struct BlindIndex(SubjectKey);

impl BlindIndex {
    /// The index with this key, which must be used for nothing else.
    #[must_use]
    pub const fn new(key: SubjectKey) -> Self {
        Self(key)
    }

    /// The tag of a value: 32 hexadecimal digits. Bring the value into a normal form first, for
    /// instance an address into lower case.
    #[must_use]
    pub fn tag(&self, value: &str) -> String {
        let key = digest(self.0.secret(), &[b"annals personal 1 blind index"]);
        let mac = digest(key.as_ref(), &[value.as_bytes()]);
        mac.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The state of a key.
#[derive(Debug, Clone)]
pub enum RingKey {
    /// It opens values.
    Present(SubjectKey),
    /// It is destroyed: its values are erased.
    Destroyed,
}

/// Keys by their ids, to open values with.
#[derive(Debug, Clone, Default)]
pub struct KeyRing(BTreeMap<KeyId, RingKey>);

impl KeyRing {
    /// The key with this id, if it is known.
    #[must_use]
    pub fn get(&self, id: KeyId) -> Option<&RingKey> {
        self.0.get(&id)
    }

    /// Adds a key.
    pub fn insert(&mut self, id: KeyId, key: RingKey) {
        self.0.insert(id, key);
    }

    /// Forgets a key, when its subject is erased. Values that were opened stay in memory until they
    /// are dropped.
    pub fn destroy(&mut self, id: KeyId) {
        self.insert(id, RingKey::Destroyed);
    }
}

impl FromIterator<(KeyId, RingKey)> for KeyRing {
    fn from_iter<I: IntoIterator<Item = (KeyId, RingKey)>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}
