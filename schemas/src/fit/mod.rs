//! Proves that a type fits its schema, in a test, so that no append ever fails on it.
//!
//! The type is read from a deserializer that has no bytes ([`walk`], [`read`]): each request is
//! checked against the schema and answered with a sample; then the value is written to a serializer
//! that keeps nothing ([`write`]) and checks just the same. Round after round, until every option was
//! there and not there, every symbol and every branch was taken and every sample was tried. What
//! passes is at last really encoded, decoded and encoded again.

mod access;
mod ask;
mod composite;
mod error;
mod kept;
mod parts;
mod read;
mod sample;
mod state;
mod unit;
mod walk;
mod write;

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::{EncodeError, Schema};
use kept::Kept;
use state::State;
use walk::Walk;
use write::Check;

/// Far more than any schema needs: the most alternatives of one place, times those it is nested in.
const ROUNDS_MAX: usize = 20_000;
/// So many rounds without anything new end the search for a way to what was not tried yet.
const IDLE_ROUNDS_MAX: usize = 1_000;

const UNPROVED: &str = "the type passes every rule, and still is not encoded and decoded";

/// One place where a type and its schema do not fit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{field}`: {rust}, {avro}{}{advice}", if .advice.is_empty() { "" } else { "; " })]
pub struct Misfit {
    /// The path of the field: dots between names, `[]` for the items of an array, `{}` for the
    /// values of a map; the record's name for the record itself.
    pub field: String,
    /// What the type wants or writes: `the type wants i64`.
    pub rust: String,
    /// What the schema says: `the schema says int`.
    pub avro: String,
    /// What would make them fit; may be empty.
    pub advice: String,
}

/// Proves, without an instance, that values of a type can be written and read with a schema.
///
/// Every place of the schema is visited, with and without what is optional, through every symbol and
/// every branch. What the type asks for and what it writes is compared with the schema, by the name
/// of each field; then each value is really encoded, decoded and encoded again, and must have kept
/// what it was given. A type may bring text into a normal form, nothing else may change.
///
/// A type that takes few values (a flight number, say) may refuse all the samples. Then the schema
/// gives some: `{"name": "flight", "type": "string", "examples": ["UA1545"]}`.
///
/// Stricter than encoding is: a field of the schema that the type lacks is a misfit even if it has a
/// default, since the default would be stored for ever in the place of what a reader expects.
///
/// What it cannot see: code that treats one value of a type unlike all others, a unit of time that
/// the type does not tell (a plain `i64` fits any timestamp), and, behind `#[serde(flatten)]`, a
/// field that is skipped while it is empty, was empty in every sample, and is not in the schema.
///
/// # Errors
/// Every [`Misfit`] that was found. Behind `#[serde(flatten)]` and in untagged enums serde tells one
/// at a time.
pub fn check_fit<T: Serialize + DeserializeOwned>(schema: &Schema) -> Result<(), Vec<Misfit>> {
    let mut state = State::default();
    let mut kept = Kept::default();
    let mut idle = 0;
    for _ in 0..ROUNDS_MAX {
        round::<T>(*schema, &mut state, &mut kept);
        idle = if state.progressed() { 0 } else { idle + 1 };
        if idle > 0 && !state.pending() || idle > IDLE_ROUNDS_MAX {
            break;
        }
    }
    if state.is_clean() {
        kept.judge(&mut state);
    }
    if state.is_clean() {
        state.blame_untried();
    }
    let proofs = state.proofs;
    let mut misfits = state.into_misfits();
    if misfits.is_empty() && proofs == 0 {
        // Nothing was noted, and nothing was shown either: that is no fit.
        let (rust, avro) =
            ("no value of the type could be made".into(), "of what the schema says".into());
        misfits.push(Misfit { field: String::new(), rust, avro, advice: String::new() });
    }
    for misfit in misfits.iter_mut().filter(|misfit| misfit.field.is_empty()) {
        schema.name().clone_into(&mut misfit.field);
    }
    if misfits.is_empty() { Ok(()) } else { Err(misfits) }
}

/// Reads one value, writes it, and if both went well really encodes it.
fn round<T: Serialize + DeserializeOwned>(schema: Schema, state: &mut State, kept: &mut Kept) {
    state.begin_round();
    let value = match T::deserialize(Walk::root(schema.root(), state)) {
        Ok(value) => value,
        Err(error) => {
            state.judge(&state::Place::default(), error);
            return;
        }
    };
    if let Err(error) = value.serialize(Check::root(schema.root(), state)) {
        let text = format!("the type cannot be written: {error}");
        state.write_misfit("", text, "whatever the schema says", "");
    }
    if !state.is_clean() {
        return;
    }
    match prove(schema, &value, state, kept) {
        Ok(()) => state.proofs += 1,
        Err((field, reason)) => state.write_misfit(&field, UNPROVED.into(), &reason, ""),
    }
}

/// What no rule can replace: bytes from the value, the value from the bytes.
fn prove<T: Serialize + DeserializeOwned>(
    schema: Schema,
    value: &T,
    state: &State,
    kept: &mut Kept,
) -> Result<(), (String, String)> {
    let whole = |reason: String| (String::new(), reason);
    let encode = |value: &T| {
        schema.encode(value).map_err(|error| match error {
            EncodeError::Misfit { field, reason, .. } => (field, reason),
            other => whole(other.to_string()),
        })
    };
    let payload = encode(value)?;
    let decoded: T = schema.decode(&payload, &schema).map_err(|error| whole(error.to_string()))?;
    if encode(&decoded)? != payload {
        return Err(whole("the type, encoded, decoded and encoded again, differs".into()));
    }
    serde_json::to_value(value)
        .map_err(|error| whole(format!("the type has no JSON form: {error}")))?;
    if state.sound {
        let given = schema.decode_json(&state.datum).map_err(|error| whole(error.to_string()))?;
        let back = schema.decode_json(&payload).map_err(|error| whole(error.to_string()))?;
        kept.note("", &given, &back);
    }
    Ok(())
}
