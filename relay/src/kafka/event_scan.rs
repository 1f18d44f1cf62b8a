//! Reads the events of topics, with their values.

use std::sync::Arc;

use annals_schemas::{Framing, Layout, from_wire_format};
use annals_store::{Position, Version};
use rdkafka::message::{BorrowedMessage, Headers, Message as _};
use uuid::Uuid;

use super::client::Result;
use crate::config::Config;
use crate::kafka::scan::{Unread, finished, scan_messages};
use crate::model::headers::REPLAYED;
use crate::model::offsets::RecordOffset;

/// A record of an event. A part that it lacks, or that cannot be read, is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventRecord<'a> {
    pub(crate) topic: &'a Arc<str>,
    pub(crate) partition: i32,
    pub(crate) offset: RecordOffset,
    /// Its key: the stream.
    pub(crate) stream: Option<&'a str>,
    /// The event in Avro, without its framing.
    pub(crate) datum: Option<&'a [u8]>,
    pub(crate) headers: EventHeaders,
}

/// The headers of an event that identify it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct EventHeaders {
    pub(crate) event_id: Option<Uuid>,
    pub(crate) version: Option<Version>,
    pub(crate) position: Option<Position>,
    pub(crate) source: Option<String>,
    /// Whether the value begins with the registry's prefix, by its content type.
    pub(crate) has_prefix: bool,
    /// Whether a replay wrote it.
    pub(crate) is_replayed: bool,
}

impl EventHeaders {
    fn datum<'v>(&self, value: &'v [u8], layout: Option<Layout>) -> Option<&'v [u8]> {
        let datum = if self.has_prefix { from_wire_format(value).ok()?.1 } else { value };
        match layout {
            None | Some(Layout::Record) => Some(datum),
            // Behind the index of the branch.
            Some(Layout::Union | Layout::Envelope) => {
                let end = datum.iter().position(|byte| byte & 0x80 == 0)?;
                datum.get(end + 1..)
            }
        }
    }
}

/// Reads every committed record of unread topics. Blocks.
pub(crate) fn scan_events(
    config: &Config,
    unread: &Unread,
    mut take: impl FnMut(EventRecord<'_>),
) -> Result<()> {
    let unfinished = scan_messages(config, unread, |message| {
        let Some((topic, _)) = unread.get_key_value(message.topic()) else { return };
        let headers = headers(message);
        let layout = config.category(topic).map(|category| config.topics.layout(category));
        take(EventRecord {
            topic,
            partition: message.partition(),
            offset: RecordOffset::new(message.offset()),
            stream: message.key().and_then(|key| std::str::from_utf8(key).ok()),
            datum: message.payload().and_then(|value| headers.datum(value, layout)),
            headers,
        });
    })?;
    finished(unfinished)
}

fn headers(message: &BorrowedMessage<'_>) -> EventHeaders {
    let mut found = EventHeaders::default();
    for header in message.headers().into_iter().flat_map(Headers::iter) {
        let text = header.value.and_then(|value| std::str::from_utf8(value).ok());
        // The last one of a name counts: those of the contract follow the event's own.
        match header.key {
            "ce_id" => found.event_id = text.and_then(|id| id.parse().ok()),
            "ce_streamversion" => {
                found.version = text.and_then(|version| Version::new(version.parse().ok()?));
            }
            "ce_position" => {
                found.position = text.and_then(|position| Position::new(position.parse().ok()?));
            }
            "content-type" => found.has_prefix = text == Some(Framing::Prefix.content_type()),
            "ce_source" => found.source = text.map(str::to_owned),
            REPLAYED => found.is_replayed = true,
            _ => {}
        }
    }
    found
}
