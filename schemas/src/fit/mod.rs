//! Proves that a type fits its schema, in a test, so that no append ever fails on it.
//!
//! Round after round, [`sample`] writes a datum by the schema, the type decodes it as the store
//! decodes an event, and encodes it again; the bytes must be the same. [`probe`], between the
//! library's deserializer and the type, only notes the requests of each field, so that a failure
//! has a place.

mod advice;
mod at;
mod error_text;
mod findings;
mod placeholder;
mod probe;
mod round_trip;
mod sample;

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::{DecodeError, EncodeError, Schema};
use findings::{Findings, NO_FIELD, with};
use probe::Probed;
use round_trip::RoundTrips;

/// More than any schema needs: each round tries the next alternative at every place that it
/// reaches.
const ROUNDS_MAX: usize = 20_000;
/// Rounds without news that end the search while some alternatives were never accepted.
const IDLE_ROUNDS_MAX: usize = 1_000;

/// One place where a type and its schema do not fit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{field}`: {rust}, {avro}{}{advice}", if .advice.is_empty() { "" } else { "; " })]
pub struct Misfit {
    /// The path of the field: dots between names, `[]` for the items of an array, `{}` for the
    /// values of a map; the record's name for the record itself.
    pub field: String,
    /// The value that the type wants or writes: `the type wants i64`.
    pub rust: String,
    /// The type in the schema: `the schema says int`.
    pub avro: String,
    /// Changes that would make them fit; may be empty.
    pub advice: String,
}

/// Proves, without an instance, that values of a type can be written and read with a schema.
///
/// Sample values are made by the schema: each branch of each union, each symbol, empty and filled
/// arrays and maps, the least and greatest numbers, dates and instants of logical types. The type
/// decodes each one as an event is decoded, and encodes it again. The result must be the same
/// bytes; only text may come back in a normal form.
///
/// A type that takes few values (a flight number, say) may refuse all samples. Then the schema
/// gives some: `{"name": "flight", "type": "string", "examples": ["UA1545"]}`.
///
/// Stricter than encoding is: a field of the schema that the type lacks is a misfit even if it has
/// a default, since the default would be stored for ever in the place of the expected value.
///
/// Not found: code that treats one value unlike the samples; a unit of time that the type
/// does not name (a plain `i64` fits any timestamp); behind `#[serde(flatten)]`, a field that is
/// skipped in every sample and is not in the schema.
///
/// # Errors
/// Every [`Misfit`] of reading; if there is none, those of writing, one of each sample. In untagged
/// enums and behind `#[serde(flatten)]` serde tells one at a time.
pub fn check_fit<T: Serialize + DeserializeOwned>(schema: &Schema) -> Result<(), Vec<Misfit>> {
    with(|findings| findings.begin(schema.root()));
    let mut round_trips = RoundTrips::default();
    let mut idle = 0;
    for _ in 0..ROUNDS_MAX {
        round::<T>(*schema, &mut round_trips);
        idle = if with(|findings| findings.progressed()) { 0 } else { idle + 1 };
        if idle > 0 && !with(|findings| findings.pending()) || idle > IDLE_ROUNDS_MAX {
            break;
        }
    }
    let mut misfits = with(std::mem::take).into_misfits();
    if misfits.is_empty() {
        misfits = round_trips.misfits();
    }
    for misfit in misfits.iter_mut().filter(|misfit| misfit.field.is_empty()) {
        schema.name().clone_into(&mut misfit.field);
    }
    if misfits.is_empty() { Ok(()) } else { Err(misfits) }
}

/// Decodes samples of a schema by a function: each alternative at each place must be accepted in
/// some sample.
pub(crate) fn try_samples(
    schema: &Schema,
    decode: impl Fn(&[u8]) -> Result<(), DecodeError>,
) -> Result<(), Vec<Misfit>> {
    with(|findings| findings.begin(schema.root()));
    let mut idle = 0;
    for _ in 0..ROUNDS_MAX {
        let datum = with(|findings| {
            findings.begin_round();
            sample::datum(schema.root(), findings)
        });
        match decode(&datum) {
            Ok(()) => with(Findings::accept),
            Err(error) => with(|findings| findings.refused("", reason(error))),
        }
        idle = if with(|findings| findings.progressed()) { 0 } else { idle + 1 };
        if idle > 0 && !with(|findings| findings.pending()) || idle > IDLE_ROUNDS_MAX {
            break;
        }
    }
    let misfits = with(std::mem::take).into_misfits();
    if misfits.is_empty() { Ok(()) } else { Err(misfits) }
}

/// Decodes one sample, and encodes the result.
fn round<T: Serialize + DeserializeOwned>(schema: Schema, round_trips: &mut RoundTrips) {
    let datum = with(|findings| {
        findings.begin_round();
        sample::datum(schema.root(), findings)
    });
    let value = match schema.decode::<Probed<T>>(&datum, &schema) {
        Ok(Probed(value)) => value,
        Err(error) => return with(|findings| findings.refused("", reason(error))),
    };
    with(Findings::accept);
    if with(|findings| findings.reading_failed()) {
        return;
    }
    if let Err(Unwritten { field, rust, avro, advice }) = write(schema, &value, &datum, round_trips)
    {
        with(|findings| findings.misfit(&field, rust, &avro, advice));
    }
}

/// Why a value is not written as it was read.
struct Unwritten {
    field: String,
    rust: String,
    avro: String,
    advice: &'static str,
}

impl Unwritten {
    fn whole(rust: &str, cause: String) -> Self {
        Self { field: String::new(), rust: rust.to_owned(), avro: cause, advice: "" }
    }

    fn of(error: EncodeError) -> Self {
        let EncodeError::Misfit { field, reason, .. } = error else {
            return Self::whole("the type cannot be written", error.to_string());
        };
        let name = field.rsplit('.').next().unwrap_or_default();
        let (rust, avro, advice) = match reason.split_once(", ") {
            Some(("the value has it", _)) => {
                (format!("the type writes field {name}"), NO_FIELD, "")
            }
            Some(("the value lacks it", _)) => {
                let lacks = "the schema has no default for it";
                ("the type leaves it out at times".into(), lacks, "do not skip it")
            }
            Some((gives, says)) => {
                (gives.replacen("the value gives", "the type writes", 1), says, "")
            }
            None => ("the type cannot be written".into(), custom(&reason), ""),
        };
        let avro = avro.to_owned();
        Self { field, rust, avro, advice }
    }
}

/// The text of an error that the type itself has raised.
fn custom(text: &str) -> &str {
    text.strip_prefix("Failed to serialize value into Avro value: ").unwrap_or(text)
}

fn write<T: Serialize + DeserializeOwned>(
    schema: Schema,
    value: &T,
    datum: &[u8],
    round_trips: &mut RoundTrips,
) -> Result<(), Unwritten> {
    let payload = schema.encode(value).map_err(Unwritten::of)?;
    let decoded = schema.decode::<T>(&payload, &schema);
    let decoded = decoded
        .map_err(|error| Unwritten::whole("the type cannot read it again", reason(error)))?;
    if schema.encode(&decoded).ok().as_ref() != Some(&payload) {
        return Err(Unwritten::whole("the type, decoded and encoded again", "differs".into()));
    }
    serde_json::to_value(value)
        .map_err(|error| Unwritten::whole("the type has no JSON form", error.to_string()))?;
    if with(|findings| findings.is_sample())
        && let (Ok(given), Ok(back)) = (schema.decode_json(datum), schema.decode_json(&payload))
    {
        round_trips.note("", &given, &back);
    }
    Ok(())
}

fn reason(error: DecodeError) -> String {
    match error {
        DecodeError::Malformed { reason, .. } => reason,
        other => other.to_string(),
    }
}
