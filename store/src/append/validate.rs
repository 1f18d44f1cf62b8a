//! Checks of an append that need no server.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::append::request::Append;
use crate::error::{AppendError, Refusal};
use crate::event::NewEvent;
use crate::limits::{
    APPEND_BYTES_MAX, EVENTS_PER_APPEND_MAX, HEADER_NAME_BYTES_MAX, METADATA_BYTES_MAX,
    STREAMS_PER_APPEND_MAX, TAGS_PER_APPEND_MAX,
};

/// The fields of [`Metadata`](crate::Metadata).
const RESERVED_FIELDS: [&str; 5] =
    ["correlation_id", "causation_id", "actor", "traceparent", "tracestate"];

impl Append {
    /// Refuses an append that no server can accept.
    pub(crate) fn validate(&self, event_bytes_max: usize) -> Result<(), AppendError> {
        let streams: BTreeSet<_> = self.streams.iter().map(|(name, _)| name).collect();
        let ids: BTreeSet<_> = self.events().map(NewEvent::id).collect();
        let events = self.events.len();
        let named = self.streams.len();
        let whole = [
            ("events of the append", events, EVENTS_PER_APPEND_MAX),
            ("bytes of the append", self.bytes(), APPEND_BYTES_MAX),
            ("streams of the append", named, STREAMS_PER_APPEND_MAX),
            ("tags of the append", self.tags().len(), TAGS_PER_APPEND_MAX),
            ("streams of the append, of which some are named twice", named, streams.len()),
            ("events of the append, of which some have the same id", events, ids.len()),
        ];
        let mut refusals: Vec<Refusal> = whole
            .into_iter()
            .filter(|(_, actual, max)| actual > max)
            .map(|(what, actual, max)| Refusal::Limit { what: what.to_owned(), actual, max })
            .collect();
        refusals.extend(self.events().flat_map(|event| event.exceeded_limits(event_bytes_max)));
        refusals.extend(self.events().filter_map(|event| {
            let event_id = event.id;
            event.field_with_nul().map(|field| Refusal::NulCharacter { event_id, field })
        }));
        refusals.extend(self.events().flat_map(NewEvent::illegal_headers));
        refusals.extend(self.events().filter_map(NewEvent::reserved_field));
        refusals.extend(self.events_of_other_categories());
        if refusals.is_empty() { Ok(()) } else { Err(AppendError::Refused(refusals)) }
    }

    /// Refusals of the events that a topic of the stream's category does not have.
    fn events_of_other_categories(&self) -> impl Iterator<Item = Refusal> {
        self.events.iter().filter_map(|(index, event)| {
            let (stream, _) = self.streams.get(*index)?;
            (event.category != stream.category()).then(|| Refusal::OtherCategory {
                event_id: event.id,
                event_type: event.event_type,
                category: event.category.clone().into_owned(),
                stream: stream.clone(),
            })
        })
    }
}

impl NewEvent {
    /// The limits that the event exceeds.
    fn exceeded_limits(&self, event_bytes_max: usize) -> impl Iterator<Item = Refusal> {
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

    /// The refusal of a custom field that has the name of a field of [`Metadata`].
    fn reserved_field(&self) -> Option<Refusal> {
        let is_reserved = |name: &String| RESERVED_FIELDS.contains(&name.as_str());
        let (event_id, field) = (self.id, "metadata".to_owned());
        let has_reserved = self.metadata.custom.keys().any(is_reserved);
        has_reserved.then_some(Refusal::Malformed { event_id, field })
    }

    /// The field that contains a NUL character, if any.
    fn field_with_nul(&self) -> Option<&'static str> {
        let metadata = &self.metadata;
        let texts = [&metadata.actor, &metadata.traceparent, &metadata.tracestate];
        let mut headers = self.headers.iter().flat_map(|(name, value)| [name, value]);
        if has_escaped_nul(self.data.get()) {
            Some("data")
        } else if texts.into_iter().flatten().any(|text| text.contains('\0'))
            || self.metadata.custom.iter().any(has_nul)
        {
            Some("metadata")
        } else if headers.any(|text| text.contains('\0')) {
            Some("headers")
        } else {
            None
        }
    }

    /// The size of the event, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.payload.len() + self.data.get().len() + self.metadata_bytes()
    }

    fn metadata_bytes(&self) -> usize {
        let texts = [&self.metadata.actor, &self.metadata.traceparent, &self.metadata.tracestate];
        let texts = texts.into_iter().flatten().map(String::len).sum::<usize>();
        // Two ids of 36 characters each, and the JSON syntax around them.
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len() + 6);
        let custom = self.metadata.custom.iter();
        let custom = custom.map(|(name, value)| name.len() + value.to_string().len() + 6);
        texts + 160 + headers.sum::<usize>() + custom.sum::<usize>()
    }
}

/// Whether a service may set a header of this name. The relay writes the other headers itself.
fn is_free_header(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let lower = name.to_ascii_lowercase();
    (1..=HEADER_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(legal)
        && !lower.starts_with("ce_")
        // Kafka's clients have names of their own here, such as that of the schema's id.
        && !lower.starts_with("__")
        && !["content-type", "traceparent", "tracestate"].contains(&lower.as_str())
}

/// Whether the name or the value of a custom field contains a NUL character.
fn has_nul((name, value): (&String, &Value)) -> bool {
    name.contains('\0') || has_escaped_nul(&value.to_string())
}

/// Whether a JSON text has a string with a NUL character, which JSON always writes as an escape.
fn has_escaped_nul(json: &str) -> bool {
    json.match_indices("\\u0000").any(|(at, _)| {
        // After an even number of backslashes, this backslash begins the escape.
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
    fn a_nul_is_distinguished_from_text_that_looks_like_one() {
        let json = |text: &str| serde_json::to_string(&[text]).unwrap();
        assert!(has_escaped_nul(&json("a\0b")));
        assert!(has_escaped_nul(&json("\\\0")));
        assert!(!has_escaped_nul(&json("a\\u0000b")));
        assert!(!has_escaped_nul(&json("plain")));
    }
}
