//! Whether a type gives back the samples.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Misfit;
use super::findings::dotted;

/// The values given to a place and returned by it, over all rounds.
#[derive(Default)]
struct PlaceValues {
    given: BTreeSet<String>,
    back: BTreeSet<String>,
    kept: bool,
    changed_other_than_text: bool,
}

#[derive(Default)]
pub(super) struct RoundTrips(BTreeMap<String, PlaceValues>);

impl RoundTrips {
    pub(super) fn note(&mut self, place: &str, given: &Value, back: &Value) {
        match (given, back) {
            (Value::Object(given), Value::Object(back)) => {
                for (name, given) in given {
                    let back = back.get(name).unwrap_or(&Value::Null);
                    self.note(&dotted(place, name), given, back);
                }
            }
            (Value::Array(given), Value::Array(back)) if given.len() == back.len() => {
                for (given, back) in given.iter().zip(back) {
                    self.note(&format!("{place}[]"), given, back);
                }
            }
            (_, _) => {
                let seen = self.0.entry(place.to_owned()).or_default();
                seen.given.insert(given.to_string());
                seen.back.insert(back.to_string());
                seen.kept |= given == back;
                let text = given.is_string() && back.is_string();
                seen.changed_other_than_text |= given != back && !text;
            }
        }
    }

    /// A type may bring text into a normal form. Everything else must come back as it was, and a
    /// text must not always come back the same.
    pub(super) fn misfits(self) -> Vec<Misfit> {
        let is_misfit = |(_, seen): &(String, PlaceValues)| {
            let constant = seen.given.len() > 1 && seen.back.len() == 1;
            !seen.kept || constant || seen.changed_other_than_text
        };
        let first =
            |values: BTreeSet<String>| values.into_iter().take(3).collect::<Vec<_>>().join(", ");
        let misfits = self.0.into_iter().filter(is_misfit).map(|(field, seen)| Misfit {
            field,
            rust: format!("the type gives back {}", first(seen.back)),
            avro: format!("it was given {}", first(seen.given)),
            advice: "it must write the value that it has read".into(),
        });
        misfits.collect()
    }
}
