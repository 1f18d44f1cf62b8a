//! Tags of events: what a decision reads when it is not one stream.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::stream::NameError;

/// Longest tag, in bytes.
pub const TAG_BYTES_MAX: usize = 200;

/// A tag of an event: a thing that the event concerns, besides its stream: `course:7`.
///
/// 1 to [`TAG_BYTES_MAX`] bytes of text without control characters. An event has its tags from its
/// append on ([`NewEvent::with_tag`](crate::NewEvent::with_tag)). [`Read::tag`](crate::Read::tag)
/// reads the events with a tag, and an [`AppendCondition`](crate::AppendCondition) refuses an
/// append if there are later ones. Consumers of the topics do not receive tags.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(Box<str>);

impl Tag {
    /// Checks `text` as a tag.
    ///
    /// # Errors
    /// [`NameError`] when it is empty, too long or has a control character.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        let reason = if text.is_empty() || text.len() > TAG_BYTES_MAX {
            "a tag has 1 to 200 bytes"
        } else if text.chars().any(char::is_control) {
            "a tag has no control characters"
        } else {
            return Ok(Self(text.into_boxed_str()));
        };
        Err(NameError { what: "tag", text, reason })
    }

    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Tag {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl TryFrom<String> for Tag {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> Self {
        tag.0.into_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_cannot_be_a_tag_is_refused() {
        for text in [String::new(), "a".repeat(201), "a\0b".to_owned(), "line\n".to_owned()] {
            assert!(Tag::new(text.clone()).is_err(), "{text:?} was taken");
        }
        for text in ["course:7", "Žluťoučký kůň", &"a".repeat(200)] {
            assert_eq!(Tag::new(text).unwrap().as_str(), text);
        }
    }
}
