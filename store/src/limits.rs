//! What an append is refused for before it goes to the server.

use std::collections::BTreeSet;

use crate::append::Append;
use crate::error::{AppendError, Refusal};
use crate::event::NewEvent;

/// Most events of one append.
pub const EVENTS_PER_APPEND_MAX: usize = 10_000;
/// Most streams of one append, those that are only checked included.
pub const STREAMS_PER_APPEND_MAX: usize = 1_000;
/// Most bytes of an event's metadata and headers together, as JSON.
pub const METADATA_BYTES_MAX: usize = 16 * 1024;
/// Most bytes of a free header's name.
pub const HEADER_NAME_BYTES_MAX: usize = 200;

impl Append {
    /// What can be refused without asking the server.
    pub(crate) fn check(&self, event_bytes_max: usize) -> Result<(), AppendError> {
        let streams: BTreeSet<_> = self.streams.iter().map(|(name, _)| name).collect();
        let ids: BTreeSet<_> = self.events().map(NewEvent::id).collect();
        let events = self.events.len();
        let named = self.streams.len();
        let whole = [
            ("events of the append", events, EVENTS_PER_APPEND_MAX),
            ("streams of the append", named, STREAMS_PER_APPEND_MAX),
            ("streams of the append, of which some are named twice", named, streams.len()),
            ("events of the append, of which some have the same id", events, ids.len()),
        ];
        let mut refusals: Vec<Refusal> = whole
            .into_iter()
            .filter(|(_, actual, max)| actual > max)
            .map(|(what, actual, max)| Refusal::Limit { what: what.to_owned(), actual, max })
            .collect();
        refusals.extend(self.events().flat_map(|event| event.over(event_bytes_max)));
        refusals.extend(self.events().filter_map(|event| {
            let event_id = event.id;
            event.place_of_nul().map(|place| Refusal::NulCharacter { event_id, place })
        }));
        refusals.extend(self.events().flat_map(NewEvent::illegal_headers));
        if refusals.is_empty() { Ok(()) } else { Err(AppendError::Refused(refusals)) }
    }
}

impl NewEvent {
    /// The limits that the event is over.
    fn over(&self, event_bytes_max: usize) -> impl Iterator<Item = Refusal> {
        let limits = [
            ("payload bytes", self.payload.len(), event_bytes_max),
            ("metadata and header bytes", self.metadata_bytes(), METADATA_BYTES_MAX),
        ];
        limits.into_iter().filter(|(_, actual, max)| actual > max).map(|(what, actual, max)| {
            Refusal::Limit { what: format!("{what} of event {}", self.id), actual, max }
        })
    }

    fn illegal_headers(&self) -> impl Iterator<Item = Refusal> {
        let illegal = self.headers.keys().filter(|name| !is_free_header(name));
        illegal.map(|name| Refusal::HeaderName { event_id: self.id, name: name.clone() })
    }

    /// Where the event has a NUL character, if anywhere.
    fn place_of_nul(&self) -> Option<&'static str> {
        let metadata = &self.metadata;
        let texts = [&metadata.actor, &metadata.traceparent, &metadata.tracestate];
        let mut headers = self.headers.iter().flat_map(|(name, value)| [name, value]);
        if has_escaped_nul(self.data.get()) {
            Some("data")
        } else if texts.into_iter().flatten().any(|text| text.contains('\0')) {
            Some("metadata")
        } else if headers.any(|text| text.contains('\0')) {
            Some("headers")
        } else {
            None
        }
    }

    fn metadata_bytes(&self) -> usize {
        let texts = [&self.metadata.actor, &self.metadata.traceparent, &self.metadata.tracestate];
        let texts = texts.into_iter().flatten().map(String::len).sum::<usize>();
        // Two ids of 36 characters, and what JSON puts around each.
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len() + 6);
        texts + 160 + headers.sum::<usize>()
    }
}

/// Whether a header's name is the service's to use: the relay writes the others.
fn is_free_header(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let lower = name.to_ascii_lowercase();
    (1..=HEADER_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(legal)
        && !lower.starts_with("ce_")
        && !["content-type", "traceparent", "tracestate"].contains(&lower.as_str())
}

/// Whether a JSON text has a string with a NUL character, which is always written as an escape.
fn has_escaped_nul(json: &str) -> bool {
    json.match_indices("\\u0000").any(|(at, _)| {
        // An even number of backslashes before it are escaped backslashes, and this one is its own.
        let before = json.as_bytes()[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
        before % 2 == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_topic_contract_are_not_free() {
        for name in ["tenant", "x-request-id", "a.b_c", "ce", "cex"] {
            assert!(is_free_header(name), "{name}");
        }
        for name in
            ["", "ce_id", "CE_anything", "Content-Type", "traceparent", "a b", "a\0", "\u{430}"]
        {
            assert!(!is_free_header(name), "{name:?}");
        }
        assert!(!is_free_header(&"x".repeat(HEADER_NAME_BYTES_MAX + 1)));
    }

    #[test]
    fn a_nul_is_told_from_text_that_looks_like_one() {
        let json = |text: &str| serde_json::to_string(&[text]).unwrap();
        assert!(has_escaped_nul(&json("a\0b")));
        assert!(has_escaped_nul(&json("\\\0")));
        assert!(!has_escaped_nul(&json("a\\u0000b")));
        assert!(!has_escaped_nul(&json("plain")));
    }
}
