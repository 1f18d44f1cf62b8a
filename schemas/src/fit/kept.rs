//! Whether a type gives back what it was given.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::state::{State, dotted};

/// What was given to a place, and what came back, over all rounds.
#[derive(Default)]
struct Seen {
    given: BTreeSet<String>,
    back: BTreeSet<String>,
    kept: bool,
    changed_other_than_text: bool,
}

#[derive(Default)]
pub(super) struct Kept(BTreeMap<String, Seen>);

impl Kept {
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
            (_, _) => self.note_leaf(place, given, back),
        }
    }

    fn note_leaf(&mut self, place: &str, given: &Value, back: &Value) {
        let seen = self.0.entry(place.to_owned()).or_default();
        seen.given.insert(given.to_string());
        seen.back.insert(back.to_string());
        seen.kept |= given == back;
        let text = given.is_string() && back.is_string();
        seen.changed_other_than_text |= given != back && !text;
    }

    /// A type may bring text into a normal form. Everything else must come back as it was, and
    /// something must come back.
    pub(super) fn judge(self, state: &mut State) {
        for (place, Seen { given, back, kept, changed_other_than_text }) in self.0 {
            let constant = given.len() > 1 && back.len() == 1;
            if kept && !constant && !changed_other_than_text {
                continue;
            }
            let samples = |values: &BTreeSet<String>| {
                values.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ")
            };
            let back = format!("the type gives back {}", samples(&back));
            let given = format!("it was given {}", samples(&given));
            state.write_misfit(&place, back, &given, "it must write what it has read");
        }
    }
}
