//! Parses a Kafka record into an event, by the topic contract.

use std::sync::Arc;

use annals_schemas::{SchemaId, WireFormatError, from_wire_format};
use jiff::Timestamp;
use uuid::Uuid;

use crate::position::{Offset, Position, RecordLocation, Version};
use crate::raw_record::{RawRecord, RecordBytes};

/// One event of a topic, not decoded yet.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// The event's type, such as `FlightDeparted`.
    pub event_type: String,
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
    /// The Avro datum, without the Confluent prefix.
    pub payload: Vec<u8>,
    /// The topic it came from.
    pub topic: Arc<str>,
    /// The partition it came from.
    pub partition: i32,
    /// Its offset in that partition.
    pub offset: Offset,
}

/// A record that is not an event of Annals.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read record {location}: {problem}")]
pub struct EnvelopeError {
    /// The record.
    pub location: RecordLocation,
    /// The first violation of the topic contract.
    pub problem: EnvelopeProblem,
    /// Its key, value and headers.
    pub record: Box<RecordBytes>,
}

/// A violation of the topic contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeProblem {
    /// The key, which names the stream, is missing or not UTF-8.
    #[error("its key is not a stream name")]
    Key,
    /// A required header is missing.
    #[error("header {name} is missing")]
    HeaderMissing {
        /// The header's name.
        name: &'static str,
    },
    /// A header has a wrong value.
    #[error("header {name} is {found:?} and should be {expected}")]
    HeaderWrong {
        /// The header's name.
        name: &'static str,
        /// Its value, cut to 64 characters.
        found: String,
        /// The expected value.
        expected: &'static str,
    },
    /// There is no value: the record is a tombstone.
    #[error("it has no value")]
    NoValue,
    /// The value does not start with the Confluent prefix.
    #[error(transparent)]
    Frame(#[from] WireFormatError),
}

/// The headers of the topic contract.
#[derive(Default)]
struct KnownHeaders<'a> {
    specversion: Option<&'a [u8]>,
    content_type: Option<&'a [u8]>,
    id: Option<&'a [u8]>,
    source: Option<&'a [u8]>,
    event_type: Option<&'a [u8]>,
    subject: Option<&'a [u8]>,
    time: Option<&'a [u8]>,
    version: Option<&'a [u8]>,
    previous: Option<&'a [u8]>,
    position: Option<&'a [u8]>,
    correlation_id: Option<&'a [u8]>,
    causation_id: Option<&'a [u8]>,
    traceparent: Option<&'a [u8]>,
    tracestate: Option<&'a [u8]>,
    other: Vec<(String, Vec<u8>)>,
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
        let (schema_id, payload) = from_wire_format(record.value.ok_or(EnvelopeProblem::NoValue)?)?;
        let known = KnownHeaders::sort(&record.headers);
        exact("ce_specversion", known.specversion, "1.0", "1.0")?;
        exact("content-type", known.content_type, "application/avro", "application/avro")?;
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
            event_type: required("ce_type", known.event_type)?.to_owned(),
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

impl<'a> KnownHeaders<'a> {
    fn sort(headers: &[(&'a str, Option<&'a [u8]>)]) -> Self {
        let mut known = Self::default();
        for &(name, value) in headers {
            match known.slot(name) {
                Some(slot) => *slot = value,
                None => known.other.push((name.to_owned(), value.unwrap_or_default().to_owned())),
            }
        }
        known
    }

    fn slot(&mut self, name: &str) -> Option<&mut Option<&'a [u8]>> {
        match name {
            "ce_specversion" => Some(&mut self.specversion),
            "content-type" => Some(&mut self.content_type),
            "ce_id" => Some(&mut self.id),
            "ce_source" => Some(&mut self.source),
            "ce_type" => Some(&mut self.event_type),
            "ce_subject" => Some(&mut self.subject),
            "ce_time" => Some(&mut self.time),
            "ce_streamversion" => Some(&mut self.version),
            "ce_previousversion" => Some(&mut self.previous),
            "ce_position" => Some(&mut self.position),
            "ce_correlationid" => Some(&mut self.correlation_id),
            "ce_causationid" => Some(&mut self.causation_id),
            "traceparent" => Some(&mut self.traceparent),
            "tracestate" => Some(&mut self.tracestate),
            _ => None,
        }
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

fn required<'a>(name: &'static str, value: Option<&'a [u8]>) -> Result<&'a str, EnvelopeProblem> {
    text(name, value.ok_or(EnvelopeProblem::HeaderMissing { name })?)
}

fn optional(name: &'static str, value: Option<&[u8]>) -> Result<Option<String>, EnvelopeProblem> {
    value.map(|bytes| text(name, bytes).map(str::to_owned)).transpose()
}

fn exact(
    name: &'static str,
    value: Option<&[u8]>,
    wanted: &str,
    expected: &'static str,
) -> Result<(), EnvelopeProblem> {
    let found = required(name, value)?;
    if found == wanted { Ok(()) } else { Err(wrong(name, found, expected)) }
}

fn parsed<T>(
    name: &'static str,
    value: Option<&[u8]>,
    expected: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, EnvelopeProblem> {
    let found = required(name, value)?;
    parse(found).ok_or_else(|| wrong(name, found, expected))
}

fn text<'a>(name: &'static str, bytes: &'a [u8]) -> Result<&'a str, EnvelopeProblem> {
    std::str::from_utf8(bytes)
        .map_err(|_not_text| wrong(name, &String::from_utf8_lossy(bytes), "UTF-8 text"))
}

fn wrong(name: &'static str, found: &str, expected: &'static str) -> EnvelopeProblem {
    EnvelopeProblem::HeaderWrong { name, found: found.chars().take(64).collect(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: [(&str, &str); 9] = [
        ("ce_specversion", "1.0"),
        ("ce_id", "0198c5a4-7f1e-7000-8000-000000000001"),
        ("ce_source", "annals://demo"),
        ("ce_type", "FlightDeparted"),
        ("ce_subject", "flight-42"),
        ("ce_time", "2013-01-05T10:15:30.123456Z"),
        ("ce_streamversion", "1"),
        ("ce_position", "4711"),
        ("content-type", "application/avro"),
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
