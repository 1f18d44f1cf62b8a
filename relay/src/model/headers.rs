//! The headers of a record: those of the topic contract, after the free ones of the event.

use annals_store::outbox::{Details, OutboxEvent};
use uuid::Uuid;

use crate::model::event_format::{EventFormat, WriterSchema};

/// The header of a record that a replay wrote: the replay's number.
pub(crate) const REPLAYED: &str = "ce_replayed";

/// The headers of one message, in one allocation, since thousands of messages are in memory at a
/// time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// Each name, followed by its value.
    text: String,
    /// The ends of each name and of its value in `text`.
    ends: Vec<(usize, usize)>,
}

impl Headers {
    /// With room for a number of headers, of so many bytes in total.
    fn with_room(headers: usize, bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), ends: Vec::with_capacity(headers) }
    }

    /// Adds a header at the end.
    pub fn push(&mut self, name: &str, value: &str) {
        self.text.push_str(name);
        let name_end = self.text.len();
        self.text.push_str(value);
        self.ends.push((name_end, self.text.len()));
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut start = 0;
        self.ends.iter().map(move |&(name_end, end)| {
            let header = (&self.text[start..name_end], &self.text[name_end..end]);
            start = end;
            header
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.text.len()
    }
}

/// The headers of an event.
pub(crate) fn headers(
    event: &OutboxEvent<'_>,
    details: &Details,
    schema: &WriterSchema,
    format: &EventFormat,
) -> Headers {
    const CONTRACT_HEADERS_TYPICAL: usize = 10;
    const BYTES_TYPICAL: usize = 384;
    let mut headers =
        Headers::with_room(CONTRACT_HEADERS_TYPICAL + details.headers.len(), BYTES_TYPICAL);
    for (name, value) in &details.headers {
        headers.push(name, value);
    }
    headers.push("ce_specversion", "1.0");
    headers.push("ce_id", uuid_text(&event.event_id, &mut Uuid::encode_buffer()));
    headers.push("ce_source", &format.source);
    headers.push("ce_type", schema.full_name);
    headers.push("ce_dataschema", &schema.uri);
    headers.push("ce_subject", event.stream);
    headers.push("ce_time", &details.recorded_at.to_string());
    headers.push("ce_streamversion", &event.version.to_string());
    headers.push("ce_position", &event.position.to_string());
    let metadata = &details.metadata;
    let ids =
        [("ce_correlationid", metadata.correlation_id), ("ce_causationid", metadata.causation_id)];
    for (name, id) in ids.into_iter().filter_map(|(name, id)| Some((name, id?))) {
        headers.push(name, uuid_text(&id, &mut Uuid::encode_buffer()));
    }
    let traces = [("traceparent", &metadata.traceparent), ("tracestate", &metadata.tracestate)];
    for (name, value) in
        traces.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)))
    {
        headers.push(name, value);
    }
    headers.push("content-type", format.framing.content_type());
    headers
}

fn uuid_text<'a>(id: &Uuid, buffer: &'a mut [u8]) -> &'a str {
    id.hyphenated().encode_lower(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_value_stays_a_header() {
        let mut headers = Headers::default();
        headers.push("a", "");
        headers.push("b", "x");
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("a", ""), ("b", "x")]);
        assert_eq!((headers.len(), headers.is_empty()), (2, false));
    }
}
