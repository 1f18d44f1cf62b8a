//! Parses a Kafka record into an event, by the topic contract.

use std::sync::Arc;

use annals_schemas::SchemaId;
use jiff::Timestamp;
use uuid::Uuid;

use crate::envelope_error::{EnvelopeError, EnvelopeProblem};
use crate::known_headers::{KnownHeaders, exact, optional, parsed, required};
use crate::position::{Offset, Position, RecordLocation, Version};
use crate::raw_record::RawRecord;

/// One event of a topic, not decoded yet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivered {
    /// The stream: the record's key.
    pub stream: String,
    /// The event's number within its stream.
    pub version: Version,
    /// The version of the event before it in the topic; none if it is the first of its stream. It
    /// is lower than the version before where events between are never published: an operator of
    /// the relay skipped them, or an administrator of the store removed them.
    pub previous: Option<Version>,
    /// The event's number within its store.
    pub position: Position,
    /// The event's id, given by the application that appended it.
    pub event_id: Uuid,
    /// The event's type, such as `FlightDeparted`: the last part of its full name.
    pub event_type: String,
    /// The CloudEvents type, `ce_type`: the full name of the event's record, such as
    /// `airline.FlightDeparted`.
    pub full_type: String,
    /// The URI of the schema that wrote the payload, at the registry that the relay uses.
    pub data_schema: String,
    /// When it was appended, by the clock of the store's database.
    pub recorded_at: Timestamp,
    /// The id of the process that the event belongs to, if the application gave one.
    pub correlation_id: Option<String>,
    /// The id of the cause of the event, if the application gave one.
    pub causation_id: Option<String>,
    /// The CloudEvents source: the deployment that published it.
    pub source: String,
    /// W3C trace context as captured at the append.
    pub traceparent: Option<String>,
    /// W3C trace state as captured at the append.
    pub tracestate: Option<String>,
    /// The headers that the application added, in the record's order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The registry's id of the schema that wrote the payload.
    pub schema_id: SchemaId,
    /// The Avro datum, without a prefix; of a category whose types share a schema, one of their
    /// union.
    pub payload: Vec<u8>,
    /// The topic it came from.
    pub topic: Arc<str>,
    /// The partition it came from.
    pub partition: i32,
    /// Its offset in that partition.
    pub offset: Offset,
}

impl Delivered {
    /// The topic, partition and offset of the record.
    #[must_use]
    pub fn location(&self) -> RecordLocation {
        RecordLocation {
            topic: Arc::clone(&self.topic),
            partition: self.partition,
            offset: self.offset,
        }
    }

    pub(crate) fn from_record(record: &RawRecord<'_>) -> Result<Self, EnvelopeError> {
        Self::read(record).map_err(|problem| EnvelopeError {
            location: record.location(),
            problem,
            record: Box::new(record.to_bytes()),
        })
    }

    fn read(record: &RawRecord<'_>) -> Result<Self, EnvelopeProblem> {
        let stream = stream_of(record.key)?;
        let value = record.value.ok_or(EnvelopeProblem::NoValue)?;
        let known = KnownHeaders::sort(&record.headers);
        exact("ce_specversion", known.specversion, "1.0", "1.0")?;
        let (schema_id, payload) = known.unframe(value)?;
        let full_type = required("ce_type", known.event_type)?;
        exact("ce_subject", known.subject, stream, "the stream, like the key")?;
        let version = parsed("ce_streamversion", known.version, "a version from 0", |text| {
            Version::new(text.parse().ok()?)
        })?;
        Ok(Self {
            previous: previous(known.previous, version)?,
            version,
            position: parsed("ce_position", known.position, "a position from 0", |text| {
                Position::new(text.parse().ok()?)
            })?,
            event_id: parsed("ce_id", known.id, "a UUID", |text| Uuid::try_parse(text).ok())?,
            event_type: full_type.rsplit('.').next().unwrap_or(full_type).to_owned(),
            full_type: full_type.to_owned(),
            data_schema: required("ce_dataschema", known.data_schema)?.to_owned(),
            recorded_at: parsed("ce_time", known.time, "an RFC 3339 time", |text| {
                text.parse().ok()
            })?,
            correlation_id: optional("ce_correlationid", known.correlation_id)?,
            causation_id: optional("ce_causationid", known.causation_id)?,
            source: required("ce_source", known.source)?.to_owned(),
            traceparent: optional("traceparent", known.traceparent)?,
            tracestate: optional("tracestate", known.tracestate)?,
            headers: known.other,
            stream: stream.to_owned(),
            schema_id,
            payload: payload.to_owned(),
            topic: Arc::clone(&record.topic),
            partition: record.partition,
            offset: record.offset,
        })
    }
}

/// The version of the event before, as far as the topic has it.
fn previous(header: Option<&[u8]>, version: Version) -> Result<Option<Version>, EnvelopeProblem> {
    let name = "ce_previousversion";
    let Some(value) = header else { return Ok(version.previous()) };
    let number = parsed(name, Some(value), "a lower version, or -1", |text| {
        text.parse::<i64>().ok().filter(|number| (-1..version.get()).contains(number))
    })?;
    Ok(Version::new(number))
}

fn stream_of(key: Option<&[u8]>) -> Result<&str, EnvelopeProblem> {
    let text = key.and_then(|bytes| std::str::from_utf8(bytes).ok());
    text.filter(|text| !text.is_empty()).ok_or(EnvelopeProblem::Key)
}

#[cfg(test)]
mod tests {
    use annals_schemas::WireFormatError;

    use super::*;

    const HEADERS: [(&str, &str); 10] = [
        ("ce_specversion", "1.0"),
        ("ce_id", "0198c5a4-7f1e-7000-8000-000000000001"),
        ("ce_source", "annals://demo"),
        ("ce_type", "airline.FlightDeparted"),
        ("ce_subject", "flight-42"),
        ("ce_time", "2013-01-05T10:15:30.123456Z"),
        ("ce_streamversion", "1"),
        ("ce_position", "4711"),
        ("content-type", "application/vnd.confluent.avro"),
        ("ce_dataschema", "http://registry:8081/schemas/ids/258"),
    ];

    fn record<'a>(headers: &[(&'a str, &'a str)]) -> RawRecord<'a> {
        RawRecord {
            topic: Arc::from("demo-flight"),
            partition: 3,
            offset: Offset::new(17).unwrap(),
            key: Some(b"flight-42"),
            value: Some(b"\x00\x00\x00\x00\x09datum"),
            headers: headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))).collect(),
        }
    }

    fn with(name: &'static str, value: &'static str) -> Vec<(&'static str, &'static str)> {
        HEADERS.into_iter().filter(|(other, _)| *other != name).chain([(name, value)]).collect()
    }

    #[test]
    fn record_of_the_topic_contract_becomes_an_event() {
        let mut headers = HEADERS.to_vec();
        headers.extend([
            ("ce_correlationid", "c-1"),
            ("traceparent", "00-ab-cd-01"),
            ("tenant", "x"),
        ]);
        let delivered = Delivered::from_record(&record(&headers)).unwrap();
        assert_eq!(delivered.stream, "flight-42");
        assert_eq!((delivered.version.get(), delivered.position.get()), (1, 4711));
        assert_eq!(delivered.previous, Some(Version::ZERO));
        assert_eq!(delivered.event_id.to_string(), HEADERS[1].1);
        assert_eq!(delivered.event_type, "FlightDeparted");
        assert_eq!(delivered.full_type, "airline.FlightDeparted");
        assert_eq!(delivered.data_schema, HEADERS[9].1);
        assert_eq!(delivered.recorded_at.to_string(), HEADERS[5].1);
        assert_eq!(delivered.correlation_id.as_deref(), Some("c-1"));
        assert_eq!(delivered.causation_id, None);
        assert_eq!(delivered.traceparent.as_deref(), Some("00-ab-cd-01"));
        assert_eq!(delivered.headers, [("tenant".to_owned(), b"x".to_vec())]);
        assert_eq!(
            (delivered.schema_id, delivered.payload.as_slice()),
            (SchemaId(9), &b"datum"[..])
        );
        assert_eq!(delivered.location().to_string(), "demo-flight[3]@17");
    }

    #[test]
    fn each_framing_is_read_by_what_the_record_says() {
        let mut headers = with("content-type", "application/avro");
        let read = |headers: &[(&'static str, &'static str)], value: &'static [u8]| {
            let mut record = record(headers);
            record.value = Some(value);
            let delivered = Delivered::from_record(&record);
            delivered.map(|event| (event.schema_id, event.payload)).map_err(|error| error.problem)
        };
        // By ce_dataschema alone; then by the header, which counts before it.
        assert_eq!(read(&headers, b"datum"), Ok((SchemaId(258), b"datum".to_vec())));
        headers.push(("__value_schema_id", "\0\0\0\0\x07"));
        assert_eq!(read(&headers, b"datum"), Ok((SchemaId(7), b"datum".to_vec())));
        headers.push(("__value_schema_id", "\x01"));
        let framed = EnvelopeProblem::Frame(WireFormatError::NoMagicByte { found: 1 });
        assert_eq!(read(&headers, b"datum"), Err(framed));
    }

    #[test]
    fn a_record_names_the_event_before_it_where_that_is_not_the_one_before() {
        for (value, previous) in [("0", Some(Version::ZERO)), ("-1", None)] {
            let delivered = Delivered::from_record(&record(&with("ce_previousversion", value)));
            assert_eq!(delivered.unwrap().previous, previous);
        }
        for value in ["1", "2", "-2", "x", ""] {
            let refused = Delivered::from_record(&record(&with("ce_previousversion", value)));
            assert!(refused.is_err(), "{value:?}");
        }
    }

    #[test]
    fn each_missing_header_is_named_with_the_place_of_the_record() {
        for (missing, _) in HEADERS {
            let headers: Vec<_> =
                HEADERS.into_iter().filter(|(name, _)| *name != missing).collect();
            let error = Delivered::from_record(&record(&headers)).unwrap_err();
            assert_eq!(error.problem, EnvelopeProblem::HeaderMissing { name: missing });
            let text = format!("read record demo-flight[3]@17: header {missing} is missing");
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn each_wrong_header_is_named_with_what_it_is() {
        let wrong = [
            ("ce_specversion", "0.3"),
            ("ce_id", "one"),
            ("ce_subject", "flight-43"),
            ("ce_time", "yesterday"),
            ("ce_streamversion", "-1"),
            ("ce_position", "1e3"),
            ("content-type", "application/json"),
        ];
        for (wrong_name, value) in wrong {
            let error = Delivered::from_record(&record(&with(wrong_name, value))).unwrap_err();
            let EnvelopeProblem::HeaderWrong { name, found, .. } = error.problem else {
                panic!("{wrong_name}: {error}");
            };
            assert_eq!((name, found.as_str()), (wrong_name, value));
        }
    }

    #[test]
    fn header_that_is_not_text_is_refused_and_shown_cut() {
        let mut record = record(&HEADERS);
        let noise = [0xff; 200];
        record.headers.push(("traceparent", Some(&noise)));
        let error = Delivered::from_record(&record).unwrap_err();
        let EnvelopeProblem::HeaderWrong { name: "traceparent", found, .. } = error.problem else {
            panic!("{error}");
        };
        assert_eq!(found.chars().count(), 64);
    }

    #[test]
    fn record_without_key_value_or_prefix_is_refused() {
        let problem = |change: &dyn Fn(&mut RawRecord<'_>)| {
            let mut record = record(&HEADERS);
            change(&mut record);
            Delivered::from_record(&record).unwrap_err().problem
        };
        assert_eq!(problem(&|record| record.key = None), EnvelopeProblem::Key);
        assert_eq!(problem(&|record| record.key = Some(b"\xff")), EnvelopeProblem::Key);
        assert_eq!(problem(&|record| record.key = Some(b"")), EnvelopeProblem::Key);
        assert_eq!(problem(&|record| record.value = None), EnvelopeProblem::NoValue);
        let framed = EnvelopeProblem::Frame(WireFormatError::NoMagicByte { found: b'{' });
        assert_eq!(problem(&|record| record.value = Some(b"{}")), framed);
    }
}
