//! A personal value: open, sealed or erased.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Visitor};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::personal::draft;
use crate::personal::finite::is_finite;
use crate::personal::key::{KeyId, KeyRing, RingKey, SubjectKey};
use crate::personal::place::{ERASED, FieldPlace, SEALED};

/// A value that belongs to a subject, in an event or in state that is made from events.
///
/// `T` is written as JSON before it is encrypted, so that it may have no number that is NaN or
/// infinite ([`EncodeError::NotFinite`](crate::EncodeError::NotFinite)). The field's Avro type is
/// `bytes`, `["null", "bytes"]` with `Option<Personal<T>>`, or an array or map of bytes.
///
/// Serialized, it is bytes: sealed or erased. An open value is serialized only as part of an event
/// that is made for an append, which seals it; anywhere else it is an error. In JSON, in the column
/// `data`, it is the text `sealed` or `erased`.
///
/// ```
/// use annals_schemas::personal::{Personal, Subject, SubjectKey};
///
/// let key = SubjectKey::generate(&Subject::new("customer-17")?);
/// let name = Personal::new(key, "Ann".to_owned());
/// assert_eq!(name.value().map(String::as_str), Some("Ann"));
/// assert_eq!(format!("{name:?}"), "Personal(open)");
/// assert!(serde_json::to_string(&name).is_err(), "it would leave the event");
/// # Ok::<(), annals_schemas::personal::SubjectError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Personal<T>(State<T>);

#[derive(Clone, PartialEq, Eq)]
enum State<T> {
    Open {
        key: SubjectKey,
        value: T,
    },
    /// As recorded, with its place in front if it was decoded from an event.
    Sealed(Vec<u8>),
    Erased,
}

/// Why a sealed value cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No key with this id is known: neither present nor destroyed. A destroyed key is no error.
    #[error("open a personal value: key {0} is unknown, and not known to be destroyed")]
    UnknownKey(KeyId),
    /// The value was changed, or copied from another field or event.
    #[error("open a personal value of {event_type} in field `{path}`: it was changed or moved")]
    Forged {
        /// The type of the event.
        event_type: String,
        /// The path of the field.
        path: String,
    },
    /// The bytes are no sealed value of this version, or their place is not known since they were
    /// not decoded from a recorded event.
    #[error("open a personal value: its bytes have no known format")]
    Malformed,
    /// The value is no `T`.
    #[error("open a personal value: {0}")]
    OtherType(String),
}

impl<T> Personal<T> {
    /// An open value of the subject that the key belongs to.
    #[must_use]
    pub const fn new(key: SubjectKey, value: T) -> Self {
        Self(State::Open { key, value })
    }

    /// The value, if it is open.
    #[must_use]
    pub const fn value(&self) -> Option<&T> {
        match &self.0 {
            State::Open { value, .. } => Some(value),
            State::Sealed(_) | State::Erased => None,
        }
    }

    /// Whether the value is sealed: open it.
    #[must_use]
    pub const fn is_sealed(&self) -> bool {
        matches!(self.0, State::Sealed(_))
    }

    /// Whether the value is known to be erased. A sealed value may be erased: opening it tells.
    #[must_use]
    pub const fn is_erased(&self) -> bool {
        matches!(self.0, State::Erased)
    }

    /// The id of the key; none if the value is erased or its bytes have no known format.
    #[must_use]
    pub fn key_id(&self) -> Option<KeyId> {
        match &self.0 {
            State::Open { key, .. } => Some(key.id()),
            State::Sealed(bytes) => {
                let sealed = FieldPlace::take_from(bytes).map_or(&bytes[..], |(_, sealed)| sealed);
                let rest = sealed.strip_prefix(&[SEALED])?;
                rest.first_chunk::<16>().and_then(|id| KeyId::from_slice(id))
            }
            State::Erased => None,
        }
    }
}

impl<T: DeserializeOwned + Clone> Personal<T> {
    /// The value, open or erased.
    ///
    /// # Errors
    /// [`OpenError`]; a destroyed key is none: the value is erased.
    pub fn open(&self, keys: &KeyRing) -> Result<Self, OpenError> {
        let State::Sealed(bytes) = &self.0 else { return Ok(self.clone()) };
        let id = self.key_id().ok_or(OpenError::Malformed)?;
        let key = match keys.get(id).ok_or(OpenError::UnknownKey(id))? {
            RingKey::Destroyed => return Ok(Self(State::Erased)),
            RingKey::Present(key) => key,
        };
        let (place, sealed) = FieldPlace::take_from(bytes).ok_or(OpenError::Malformed)?;
        let sealed = sealed.get(1 + id.as_bytes().len()..).ok_or(OpenError::Malformed)?;
        let forged = || OpenError::Forged {
            event_type: place.event_type.to_owned(),
            path: place.path.to_owned(),
        };
        let plain = key.open(&place.authenticated(id), sealed).ok_or_else(forged)?;
        let value = serde_json::from_slice(&plain);
        // The cause could quote the value.
        let value =
            value.map_err(|error| OpenError::OtherType(format!("{:?}", error.classify())))?;
        Ok(Self::new(key.clone(), value))
    }
}

/// Never the value.
impl<T> fmt::Debug for Personal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            State::Open { .. } => "Personal(open)",
            State::Sealed(_) => "Personal(sealed)",
            State::Erased => "Personal(erased)",
        })
    }
}

impl<T: Serialize> Serialize for Personal<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const OUTSIDE: &str = "an open personal value outside an event that is made for an append";
        let is_text = serializer.is_human_readable();
        match &self.0 {
            State::Erased if is_text => serializer.serialize_str("erased"),
            State::Erased => serializer.serialize_bytes(&[ERASED]),
            State::Sealed(_) if is_text => serializer.serialize_str("sealed"),
            State::Sealed(bytes) => serializer.serialize_bytes(bytes),
            State::Open { .. } if !draft::is_encoding() => Err(S::Error::custom(OUTSIDE)),
            State::Open { .. } if is_text => serializer.serialize_str("sealed"),
            State::Open { key, value } => {
                let plain = serde_json::to_vec(value).map_err(S::Error::custom)?;
                let noted = draft::note(key, Zeroizing::new(plain), is_finite(value));
                let noted = noted.ok_or_else(|| S::Error::custom(OUTSIDE))?;
                serializer.serialize_bytes(&noted)
            }
        }
    }
}

impl<'de, T> Deserialize<'de> for Personal<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(Bytes(PhantomData))
    }
}

struct Bytes<T>(PhantomData<T>);

impl<T> Visitor<'_> for Bytes<T> {
    type Value = Personal<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes of a personal value")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        self.visit_byte_buf(bytes.to_vec())
    }

    fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Self::Value, E> {
        Ok(Personal(match bytes[..] {
            [ERASED] => State::Erased,
            // Any other bytes are an error when they are opened, where the event is known.
            _ => State::Sealed(bytes),
        }))
    }
}
