//! The headers of a record, sorted into those of the topic contract and others.

use annals_schemas::{Framing, SCHEMA_ID_HEADER, SchemaId, from_wire_format};

use crate::envelope_error::EnvelopeProblem;

/// The headers of the topic contract.
#[derive(Default)]
pub(crate) struct KnownHeaders<'a> {
    pub(crate) specversion: Option<&'a [u8]>,
    pub(crate) content_type: Option<&'a [u8]>,
    pub(crate) id: Option<&'a [u8]>,
    pub(crate) source: Option<&'a [u8]>,
    pub(crate) event_type: Option<&'a [u8]>,
    pub(crate) data_schema: Option<&'a [u8]>,
    pub(crate) schema_id: Option<&'a [u8]>,
    pub(crate) subject: Option<&'a [u8]>,
    pub(crate) time: Option<&'a [u8]>,
    pub(crate) version: Option<&'a [u8]>,
    pub(crate) previous: Option<&'a [u8]>,
    pub(crate) position: Option<&'a [u8]>,
    pub(crate) correlation_id: Option<&'a [u8]>,
    pub(crate) causation_id: Option<&'a [u8]>,
    pub(crate) traceparent: Option<&'a [u8]>,
    pub(crate) tracestate: Option<&'a [u8]>,
    pub(crate) other: Vec<(String, Vec<u8>)>,
}

impl<'a> KnownHeaders<'a> {
    pub(crate) fn sort(headers: &[(&'a str, Option<&'a [u8]>)]) -> Self {
        let mut known = Self::default();
        for &(name, value) in headers {
            match known.slot(name) {
                Some(slot) => *slot = value,
                None => known.other.push((name.to_owned(), value.unwrap_or_default().to_owned())),
            }
        }
        known
    }

    /// The schema's id and the datum, by the content type: a relay's framing can change, and the
    /// topic then has records of both.
    pub(crate) fn unframe<'v>(
        &self,
        value: &'v [u8],
    ) -> Result<(SchemaId, &'v [u8]), EnvelopeProblem> {
        const EXPECTED: &str = "application/vnd.confluent.avro or application/avro";
        let found = required("content-type", self.content_type)?;
        if found == Framing::Prefix.content_type() {
            return Ok(from_wire_format(value)?);
        }
        if found != Framing::Header.content_type() {
            return Err(wrong("content-type", found, EXPECTED));
        }
        let id = match self.schema_id {
            Some(header) => from_wire_format(header)?.0,
            None => {
                parsed("ce_dataschema", self.data_schema, "a URI that ends with an id", |uri| {
                    uri.rsplit('/').next()?.parse().ok().map(SchemaId)
                })?
            }
        };
        Ok((id, value))
    }

    fn slot(&mut self, name: &str) -> Option<&mut Option<&'a [u8]>> {
        match name {
            "ce_specversion" => Some(&mut self.specversion),
            "content-type" => Some(&mut self.content_type),
            "ce_id" => Some(&mut self.id),
            "ce_source" => Some(&mut self.source),
            "ce_type" => Some(&mut self.event_type),
            "ce_dataschema" => Some(&mut self.data_schema),
            SCHEMA_ID_HEADER => Some(&mut self.schema_id),
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

pub(crate) fn required<'a>(
    name: &'static str,
    value: Option<&'a [u8]>,
) -> Result<&'a str, EnvelopeProblem> {
    text(name, value.ok_or(EnvelopeProblem::HeaderMissing { name })?)
}

pub(crate) fn optional(
    name: &'static str,
    value: Option<&[u8]>,
) -> Result<Option<String>, EnvelopeProblem> {
    value.map(|bytes| text(name, bytes).map(str::to_owned)).transpose()
}

pub(crate) fn exact(
    name: &'static str,
    value: Option<&[u8]>,
    wanted: &str,
    expected: &'static str,
) -> Result<(), EnvelopeProblem> {
    let found = required(name, value)?;
    if found == wanted { Ok(()) } else { Err(wrong(name, found, expected)) }
}

pub(crate) fn parsed<T>(
    name: &'static str,
    value: Option<&[u8]>,
    expected: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, EnvelopeProblem> {
    let found = required(name, value)?;
    parse(found).ok_or_else(|| wrong(name, found, expected))
}

pub(crate) fn text<'a>(name: &'static str, bytes: &'a [u8]) -> Result<&'a str, EnvelopeProblem> {
    std::str::from_utf8(bytes)
        .map_err(|_not_text| wrong(name, &String::from_utf8_lossy(bytes), "UTF-8 text"))
}

pub(crate) fn wrong(name: &'static str, found: &str, expected: &'static str) -> EnvelopeProblem {
    EnvelopeProblem::HeaderWrong { name, found: found.chars().take(64).collect(), expected }
}
