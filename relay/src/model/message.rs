//! Messages: the Kafka record of an event.

use std::sync::Arc;

use annals_relay_machine::Shard;
use annals_schemas::{Framing, SchemaId};
use annals_store::outbox::{OutboxEvent, UnreadableDetail};
use annals_store::{Position, Version};
use jiff::Timestamp;
use serde::Serialize;

use crate::model::event_format::{EventFormat, WriterSchema};
use crate::model::headers::{Headers, REPLAYED, headers};

/// One record, complete: sending it looks nothing up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition; `None` leaves it to the hash of the key.
    pub partition: Option<i32>,
    /// The stream's name: it keeps a stream in one partition, and so in order.
    pub key: String,
    /// The event in Avro, framed.
    pub payload: Vec<u8>,
    /// The id of the schema, for the header of [`Framing::Header`].
    pub schema_header: Option<SchemaId>,
    /// When the event was recorded: the timestamp of the record, in milliseconds.
    pub recorded_at: Timestamp,
    /// The event's version; none for a record that is no event.
    pub version: Option<Version>,
    /// The free headers of the event, then those of the topic contract.
    pub headers: Headers,
    /// The event's position; [`Position::ORIGIN`] for a record that is no event.
    pub position: Position,
    /// The largest batch that the topic takes, in bytes, if that is known.
    pub batch_bytes_max: Option<usize>,
}

impl Message {
    /// The message of an event by the topic contract: the key is the stream and determines the
    /// partition, the value is Avro in the framing of the format, the headers are a CloudEvent in
    /// binary mode.
    ///
    /// Free headers come first: where a name occurs twice, readers that keep the last value see the
    /// contract's.
    ///
    /// # Errors
    /// [`UnreadableDetail`] if a part of the event's row cannot be read.
    pub fn new(
        event: &OutboxEvent<'_>,
        to: &Destination,
        schema: &WriterSchema,
        format: &EventFormat,
    ) -> Result<Self, UnreadableDetail> {
        let details = event.details.as_ref().map_err(Clone::clone)?;
        Ok(Self {
            topic: Arc::clone(&to.topic),
            partition: Some(to.partition_of(event.stream)),
            key: event.stream.to_owned(),
            payload: schema.value(format.framing, event.payload),
            schema_header: (format.framing == Framing::Header).then_some(schema.id),
            recorded_at: details.recorded_at,
            version: Some(event.version),
            headers: headers(event, details, schema, format),
            position: event.position,
            batch_bytes_max: to.batch_bytes_max,
        })
    }

    /// A record of the topic of checkpoints, about one shard: its checkpoint, or a pointer to it.
    pub(crate) fn about(
        shard: Shard,
        topic: &Arc<str>,
        partition: Shard,
        what: &impl Serialize,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self {
            topic: Arc::clone(topic),
            partition: Some(partition.0.into()),
            key: shard.0.to_string(),
            payload: serde_json::to_vec(what)?,
            schema_header: None,
            recorded_at: Timestamp::now(),
            version: None,
            headers: Headers::default(),
            position: Position::ORIGIN,
            batch_bytes_max: None,
        })
    }

    /// Names the previous published event of the stream, by its version, where it is not the event
    /// before: the events between are never published. None: no earlier event is.
    pub(crate) fn name_previous(&mut self, previous: Option<Version>) {
        let version = previous.map_or(-1, Version::get);
        self.headers.push("ce_previousversion", &version.to_string());
    }

    /// A record of the progress of a replay.
    pub(crate) fn of_progress(
        replay: i64,
        topic: &Arc<str>,
        progress: &impl Serialize,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self { key: replay.to_string(), ..Self::about(Shard(0), topic, Shard(0), progress)? })
    }

    /// The same message, written again by a replay.
    #[must_use]
    pub(crate) fn replayed(mut self, replay: i64) -> Self {
        self.headers.push(REPLAYED, &replay.to_string());
        self
    }

    /// The size of the message on the wire, uncompressed and without the protocol's own bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.key.len() + self.payload.len() + self.headers.bytes()
    }
}

/// The topic of a category.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The topic.
    pub topic: Arc<str>,
    /// Its partition count when it was first published to. Added partitions move no stream.
    pub partitions: i32,
    /// The largest batch that it takes, in bytes, if the broker returns that.
    pub batch_bytes_max: Option<usize>,
}

impl Destination {
    /// The partition of a key, as Kafka's default partitioner and Kafka Streams choose it.
    #[must_use]
    pub fn partition_of(&self, key: &str) -> i32 {
        let hash = murmur2(key.as_bytes()) & i32::MAX.unsigned_abs();
        i32::try_from(hash).unwrap_or_default() % self.partitions.max(1)
    }
}

/// Kafka's `Utils.murmur2`.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let (words, rest) = data.as_chunks::<4>();
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    for word in words {
        let k = u32::from_le_bytes(*word).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ (k ^ (k >> 24)).wrapping_mul(M);
    }
    if !rest.is_empty() {
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u32::from_le_bytes(last)).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use annals_schemas::{Fingerprint, Schema};
    use annals_store::Metadata;
    use annals_store::outbox::Details;
    use uuid::Uuid;

    use super::*;

    fn event() -> OutboxEvent<'static> {
        OutboxEvent {
            position: Position::new(4711).unwrap(),
            shard: 3,
            stream: "flight-UA-1545",
            version: Version::new(2).unwrap(),
            event_id: Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001),
            category: "flight",
            event_type: "FlightDeparted",
            fingerprint: Fingerprint::from(42),
            payload: &[1, 2, 3],
            details: Ok(details()),
        }
    }

    fn details() -> Details {
        Details {
            recorded_at: "2013-01-01T10:17:00.123456Z".parse().unwrap(),
            metadata: Metadata::default(),
            headers: [("tenant".to_owned(), "b\u{e4}r".to_owned())].into(),
        }
    }

    fn format(framing: Framing) -> EventFormat {
        let registry_url = "http://registry:8081".to_owned();
        EventFormat { source: "annals".to_owned(), framing, registry_url }
    }

    fn schema() -> WriterSchema {
        let definition = r#"{"type":"record","name":"air.FlightDeparted","fields":[]}"#;
        format(Framing::Prefix).schema(SchemaId(258), Schema::parse(definition).unwrap(), None)
    }

    fn message(event: &OutboxEvent<'_>) -> Message {
        let to = Destination { topic: "air.flight".into(), partitions: 4, batch_bytes_max: None };
        Message::new(event, &to, &schema(), &format(Framing::Prefix)).unwrap()
    }

    #[test]
    fn an_event_becomes_the_message_of_the_topic_contract() {
        let message = message(&event());
        assert_eq!((&*message.topic, message.partition), ("air.flight", Some(2)));
        assert_eq!(message.key, "flight-UA-1545");
        assert_eq!(message.payload, [0, 0, 0, 1, 2, 1, 2, 3]);
        assert_eq!(message.recorded_at.as_millisecond(), 1_357_035_420_123);
        assert_eq!(message.position.get(), 4711);
        let headers: Vec<(&str, &str)> = message.headers.iter().collect();
        assert_eq!(
            headers,
            [
                ("tenant", "b\u{e4}r"),
                ("ce_specversion", "1.0"),
                ("ce_id", "01920000-0000-7000-8000-000000000001"),
                ("ce_source", "annals"),
                ("ce_type", "air.FlightDeparted"),
                ("ce_dataschema", "http://registry:8081/schemas/ids/258"),
                ("ce_subject", "flight-UA-1545"),
                ("ce_time", "2013-01-01T10:17:00.123456Z"),
                ("ce_streamversion", "2"),
                ("ce_position", "4711"),
                ("content-type", "application/vnd.confluent.avro"),
            ]
        );
    }

    #[test]
    fn the_value_and_its_content_type_are_those_of_the_framing() {
        let to = Destination { topic: "air.flight".into(), partitions: 4, batch_bytes_max: None };
        let cases: [(Framing, &[u8], Option<SchemaId>, &str); 3] = [
            (Framing::Prefix, &[0, 0, 0, 1, 2, 1, 2, 3], None, "application/vnd.confluent.avro"),
            (Framing::Header, &[1, 2, 3], Some(SchemaId(258)), "application/avro"),
            (Framing::None, &[1, 2, 3], None, "application/avro"),
        ];
        for (framing, value, header, content_type) in cases {
            let message = Message::new(&event(), &to, &schema(), &format(framing)).unwrap();
            assert_eq!((&*message.payload, message.schema_header), (value, header), "{framing:?}");
            let last = message.headers.iter().last();
            assert_eq!(last, Some(("content-type", content_type)));
        }
    }

    /// The values of Kafka's own test of its hash.
    #[test]
    fn keys_are_hashed_as_kafka_does() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn what_is_known_of_an_events_origin_travels_with_it() {
        let metadata = Metadata {
            correlation_id: Some(Uuid::from_u128(1)),
            causation_id: Some(Uuid::from_u128(2)),
            actor: Some("the clerk at desk 7".to_owned()),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            tracestate: Some("vendor=1".to_owned()),
            ..Metadata::default()
        };
        let details = Details { metadata, headers: [].into(), ..details() };
        let message = message(&OutboxEvent { details: Ok(details), ..event() });
        let headers: Vec<(&str, &str)> = message.headers.iter().skip(9).collect();
        assert_eq!(
            headers,
            [
                ("ce_correlationid", "00000000-0000-0000-0000-000000000001"),
                ("ce_causationid", "00000000-0000-0000-0000-000000000002"),
                ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
                ("tracestate", "vendor=1"),
                ("content-type", "application/vnd.confluent.avro"),
            ]
        );
    }

    #[test]
    fn bytes_are_those_of_key_value_and_headers() {
        let message = message(&event());
        let headers: usize =
            message.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert_eq!(message.bytes(), 14 + 8 + headers);
    }
}
