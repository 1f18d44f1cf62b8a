//! Names and numbers of streams and events, checked when they are constructed.

use std::fmt;
use std::str::FromStr;

use annals_schemas::EventSet;
use serde::{Deserialize, Serialize};

use crate::bigint::bigint;

/// Longest stream name, in bytes.
pub const STREAM_NAME_BYTES_MAX: usize = 200;
/// Longest category, in bytes.
pub const CATEGORY_BYTES_MAX: usize = 100;

/// A text that is not a legal name of a stream or a category, and the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} cannot name a {what}: {reason}")]
pub struct NameError {
    /// `stream` or `category`.
    pub what: &'static str,
    /// The illegal text.
    pub text: String,
    /// The broken rule.
    pub reason: &'static str,
}

/// The category of a stream: the text before the first `-` of its name.
///
/// Begins with a letter; letters, digits and `_` follow; at most [`CATEGORY_BYTES_MAX`] bytes.
/// Every category is a legal end of a Kafka topic name, and no two collide in Kafka's metric names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Category(Box<str>);

impl Category {
    /// Checks `text` as a category.
    ///
    /// # Errors
    /// [`NameError`] when it is empty, too long or has a character outside the alphabet.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        match category_fault(&text) {
            Some(reason) => Err(NameError { what: "category", text, reason }),
            None => Ok(Self(text.into_boxed_str())),
        }
    }

    /// The category of a set of events; it is checked at compile time.
    pub(crate) fn of<E: EventSet>() -> Self {
        Self(E::CATEGORY.into())
    }

    /// The category as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a stream: its category, and an identifier after a `-`: `order-42`.
///
/// The part after the first `-` has letters, digits and `. _ : @ + = ~ -`; the whole at most
/// [`STREAM_NAME_BYTES_MAX`] bytes. A category alone (`heartbeat`) is a legal stream name, too. The
/// name is the key of the stream's records in Kafka.
///
/// ```
/// use annals_store::StreamName;
///
/// let order: StreamName = "order-42".parse()?;
/// assert_eq!(order.category(), "order");
/// assert!(StreamName::new("order 42").is_err());
/// # Ok::<(), annals_store::NameError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StreamName(Box<str>);

impl StreamName {
    /// Checks `text` as a stream name.
    ///
    /// # Errors
    /// [`NameError`] when it is empty, too long or has a character outside the alphabet.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        match stream_fault(&text) {
            Some(reason) => Err(NameError { what: "stream", text, reason }),
            None => Ok(Self(text.into_boxed_str())),
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The category as text: the part before the first `-`.
    #[must_use]
    pub fn category(&self) -> &str {
        self.0.split_once('-').map_or(&*self.0, |(category, _)| category)
    }
}

fn category_fault(text: &str) -> Option<&'static str> {
    if text.is_empty() || text.len() > CATEGORY_BYTES_MAX {
        return Some("a category has 1 to 100 bytes");
    }
    let legal = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let begins = text.as_bytes().first().is_some_and(u8::is_ascii_alphabetic);
    (!legal || !begins)
        .then_some("a category begins with a letter A-Z a-z; letters, digits and _ follow")
}

fn stream_fault(text: &str) -> Option<&'static str> {
    if text.len() > STREAM_NAME_BYTES_MAX {
        return Some("a stream name has at most 200 bytes");
    }
    let (category, id) = match text.split_once('-') {
        Some((category, id)) => (category, Some(id)),
        None => (text, None),
    };
    if let Some(reason) = category_fault(category) {
        return Some(reason);
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._:@+=~-".contains(&byte);
    match id {
        Some("") => Some("an identifier must follow the category's -"),
        Some(id) if !id.bytes().all(legal) => {
            Some("after the category, letters A-Z a-z, digits and . _ : @ + = ~ - are allowed")
        }
        Some(_) | None => None,
    }
}

macro_rules! text_name {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.into()
            }
        }
    };
}
text_name!(Category);
text_name!(StreamName);

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $lowest:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(i64);

        impl $name {
            /// The lowest number.
            pub const FIRST: Self = Self($lowest);

            /// The number, or `None` if it is below the lowest number.
            #[must_use]
            pub const fn new(number: i64) -> Option<Self> {
                if number < $lowest { None } else { Some(Self(number)) }
            }

            /// The number itself.
            #[must_use]
            pub const fn get(self) -> i64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        bigint!($name);
    };
}
number! {
    /// The number of an event within its stream; the first is 0, without gaps.
    Version, 0
}
number! {
    /// The number of an event within the store; the first is 1, with gaps.
    ///
    /// Positions of one stream rise with its versions. Across streams they do not give the order of
    /// commits: an event can become visible below the highest visible position.
    Position, 1
}

impl Version {
    /// The version after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The version of the next event of a stream at this version.
    pub(crate) fn after(version: Option<Self>) -> Self {
        version.map_or(Self::FIRST, Self::next)
    }

    /// The version before this one; none before the first.
    pub(crate) const fn previous(self) -> Option<Self> {
        Self::new(self.0 - 1)
    }
}

impl Position {
    /// Before the first event; no event has this position.
    pub const ORIGIN: Self = Self(0);

    /// The position that is `positions` above this one, or the highest possible position.
    #[must_use]
    pub const fn saturating_add(self, positions: i64) -> Self {
        Self(self.0.saturating_add(positions))
    }

    /// The position before this one.
    #[must_use]
    pub const fn before(self) -> Self {
        Self(self.0 - 1)
    }
}

/// The condition on a stream's version under which an append is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExpectedVersion {
    /// No condition.
    Any,
    /// The stream has no event yet.
    NoStream,
    /// The stream has an event.
    StreamExists,
    /// The stream's last event has this version.
    Exactly(Version),
}

impl ExpectedVersion {
    pub(crate) const fn to_store(self) -> i64 {
        match self {
            Self::Exactly(version) => version.0,
            Self::NoStream => -1,
            Self::Any => -2,
            Self::StreamExists => -3,
        }
    }

    pub(crate) const fn from_store(number: i64) -> Option<Self> {
        match number {
            -3 => Some(Self::StreamExists),
            -2 => Some(Self::Any),
            -1 => Some(Self::NoStream),
            0.. => Some(Self::Exactly(Version(number))),
            _ => None,
        }
    }
}

impl From<Option<Version>> for ExpectedVersion {
    /// The condition for a decision that is based on this version; `None`: there was no stream.
    fn from(version: Option<Version>) -> Self {
        version.map_or(Self::NoStream, Self::Exactly)
    }
}

impl fmt::Display for ExpectedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any version"),
            Self::NoStream => f.write_str("no stream"),
            Self::StreamExists => f.write_str("an existing stream"),
            Self::Exactly(version) => write!(f, "version {version}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_knows_its_category() {
        let stream = StreamName::new("order-42-b").unwrap();
        assert_eq!(stream.category(), "order");
        assert_eq!(StreamName::new("heartbeat").unwrap().category(), "heartbeat");
    }

    #[test]
    fn hostile_names_are_refused_with_the_reason() {
        let hostile = [
            "",
            "-1",
            "order-",
            "../etc",
            "order-../x",
            "__x",
            "1order",
            "order-a b",
            "order-\0",
            "ordér-1",
            "order-\u{430}",
            "order-'x'",
            "order-\"x\"",
            "or.der-1",
            "order/1",
        ];
        for text in hostile {
            let refused = StreamName::new(text);
            assert!(refused.is_err(), "{text:?} was taken for a stream name");
        }
        let long = StreamName::new(format!("order-{}", "x".repeat(300))).unwrap_err();
        assert_eq!(long.reason, "a stream name has at most 200 bytes");
    }

    #[test]
    fn expectations_survive_the_way_to_the_store_and_back() {
        for expected in [
            ExpectedVersion::Any,
            ExpectedVersion::NoStream,
            ExpectedVersion::StreamExists,
            ExpectedVersion::Exactly(Version(7)),
        ] {
            assert_eq!(ExpectedVersion::from_store(expected.to_store()), Some(expected));
        }
        assert_eq!(ExpectedVersion::from_store(-4), None);
    }
}
