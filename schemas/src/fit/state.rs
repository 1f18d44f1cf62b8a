//! What the walks through a type and its schema have found so far, and what is left to try.

use std::collections::{BTreeMap, BTreeSet};

use super::Misfit;
use super::ask::Ask;
use super::error::FitError;
use crate::node::Node;

/// A place in type and schema.
#[derive(Clone, Default)]
pub(super) struct Place {
    /// As people read it: `legs[].aircraft`.
    pub(super) shown: String,
    /// Unique also within options and unions, where `shown` stays the same.
    pub(super) key: String,
}

impl Place {
    pub(super) fn field(&self, name: &str) -> Self {
        Self { shown: dotted(&self.shown, name), key: format!("{}.{name}", self.key) }
    }

    pub(super) fn inside(&self, shown: &str, key: &str) -> Self {
        Self { shown: format!("{}{shown}", self.shown), key: format!("{}{key}", self.key) }
    }
}

/// The path of a field within what has the path `place`.
pub(super) fn dotted(place: &str, name: &str) -> String {
    if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") }
}

/// A place where one of several values, branches or symbols is taken; each has its turn.
#[derive(Default)]
struct Turn {
    shown: String,
    /// Each must be taken by the type, in some round. Without: any of them will do.
    labels: Option<Vec<String>>,
    tries: Vec<Try>,
    last: usize,
}

/// What became of one alternative.
#[derive(Clone, Default)]
struct Try {
    tried: bool,
    accepted: bool,
    refused: Option<String>,
}

impl Turn {
    fn choose(&mut self) -> Option<usize> {
        let count = self.tries.len();
        let mut after_last = (1..=count).map(|step| (self.last + step) % count);
        // A refused sample is refused again; inside of a refused branch another sample may do.
        let free = |tried: &Try| self.labels.is_some() || tried.refused.is_none();
        self.last = after_last.find(|index| self.tries.get(*index).is_some_and(free))?;
        Some(self.last)
    }

    fn misfits(self) -> Vec<(String, String)> {
        let Self { shown, labels, tries, .. } = self;
        let refused = |tried: Try| tried.refused.filter(|_| !tried.accepted);
        let Some(labels) = labels else {
            let all: Option<Vec<String>> = tries.into_iter().map(refused).collect();
            let first = all.and_then(|all| all.into_iter().next());
            return first
                .map(|text| (shown, format!("every value tried: {text}")))
                .into_iter()
                .collect();
        };
        let refused = labels.into_iter().zip(tries).filter_map(|(label, tried)| {
            Some((shown.clone(), format!("{label}: {}", refused(tried)?)))
        });
        refused.collect()
    }
}

#[derive(Default)]
pub(super) struct State {
    misfits: Vec<Misfit>,
    /// Fields of which reading has said all that there is to say.
    blamed: BTreeSet<String>,
    turns: BTreeMap<String, Turn>,
    /// Fields, by the place of their struct, that a type insists on and its schema lacks.
    required: BTreeMap<String, BTreeSet<&'static str>>,
    /// What a type said against a whole value at a place.
    refusals: BTreeMap<String, (String, String)>,
    accepted: BTreeSet<String>,
    progress: bool,
    /// The value of this round, as the schema has it.
    pub(super) datum: Vec<u8>,
    /// Whether `datum` is the whole of what the type was given.
    pub(super) sound: bool,
    /// How many values were really encoded and decoded.
    pub(super) proofs: usize,
}

impl State {
    pub(super) fn begin_round(&mut self) {
        self.datum.clear();
        self.sound = true;
        self.progress = false;
    }

    /// Whether the round tried or learnt anything new.
    pub(super) fn progressed(&self) -> bool {
        self.progress
    }

    /// Whether something was seen of which not every alternative was tried.
    pub(super) fn pending(&self) -> bool {
        self.turns.values().any(|turn| turn.tries.iter().any(|one| !one.tried))
    }

    pub(super) fn is_clean(&self) -> bool {
        self.misfits.is_empty()
    }

    /// Takes the next of some samples; `None` if the type has refused all.
    pub(super) fn choose_sample(&mut self, place: &Place, count: usize) -> Option<usize> {
        self.choose(place, count, None)
    }

    /// Takes the next of some alternatives. The type must be able to take each that has a label.
    pub(super) fn choose(
        &mut self,
        place: &Place,
        count: usize,
        labels: Option<Vec<String>>,
    ) -> Option<usize> {
        let turn = self.turns.entry(place.key.clone()).or_default();
        if turn.tries.len() != count {
            turn.shown.clone_from(&place.shown);
            turn.labels = labels;
            turn.tries = vec![Try::default(); count];
            turn.last = count.saturating_sub(1);
        }
        let chosen = turn.choose()?;
        let one = turn.tries.get_mut(chosen)?;
        self.progress |= !one.tried;
        one.tried = true;
        Some(chosen)
    }

    pub(super) fn accept(&mut self, place: &Place) {
        let turn = self.turns.get_mut(&place.key);
        if let Some(one) = turn.and_then(|turn| turn.tries.get_mut(turn.last)) {
            one.accepted = true;
        }
        self.accepted.insert(place.key.clone());
    }

    /// Notes a field that a type insists on, to give it one from now on.
    pub(super) fn insist(&mut self, place: &Place, name: &'static str) {
        self.progress |= self.required.entry(place.key.clone()).or_default().insert(name);
    }

    pub(super) fn required(&self, place: &Place) -> Vec<&'static str> {
        self.required.get(&place.key).into_iter().flatten().copied().collect()
    }

    /// Notes an error that a type raised while it was read, at the innermost place that saw it.
    pub(super) fn judge(&mut self, place: &Place, error: FitError) -> FitError {
        match error {
            FitError::Told => {}
            FitError::MissingField(name) => {
                self.insist(place, name);
                let field = place.field(name).shown;
                self.read_misfit(&field, format!("the type wants field {name}"), NO_FIELD, "");
            }
            FitError::Refusal(text) => self.refuse(place, text),
        }
        FitError::Told
    }

    fn refuse(&mut self, place: &Place, text: String) {
        let turn = self.turns.get_mut(&place.key);
        match turn.and_then(|turn| turn.tries.get_mut(turn.last)) {
            Some(one) => one.refused = Some(text),
            None => {
                let first = self.refusals.entry(place.key.clone());
                first.or_insert_with(|| (place.shown.clone(), text));
            }
        }
    }

    /// Notes that a type asks for what the schema does not have.
    pub(super) fn ask_misfit(&mut self, place: &Place, ask: Ask, node: Node) {
        let wants = format!("the type wants {ask}");
        self.read_misfit(&place.shown, wants, &says(node), &ask.advice(node));
    }

    pub(super) fn read_misfit(&mut self, field: &str, rust: String, avro: &str, advice: &str) {
        self.blamed.insert(field.to_owned());
        self.misfit(field, rust, avro, advice);
    }

    /// For what reading has not blamed on that field already.
    pub(super) fn write_misfit(&mut self, field: &str, rust: String, avro: &str, advice: &str) {
        if !self.blamed.contains(field) {
            self.misfit(field, rust, avro, advice);
        }
    }

    pub(super) fn misfit(&mut self, field: &str, rust: String, avro: &str, advice: &str) {
        let field = field.to_owned();
        let misfit = Misfit { field, rust, avro: avro.to_owned(), advice: advice.to_owned() };
        if !self.misfits.contains(&misfit) {
            self.misfits.push(misfit);
            self.progress = true;
        }
    }

    /// What was never tried cannot count as proved.
    pub(super) fn blame_untried(&mut self) {
        let untried = |turn: &&Turn| turn.tries.iter().any(|one| !one.tried);
        let places = self.turns.values().filter(untried).map(|turn| turn.shown.clone());
        for place in places.collect::<Vec<_>>() {
            let never = "the type never read all that can be here".into();
            self.misfit(&place, never, "the schema has more branches, symbols or items", "");
        }
    }

    /// All that was found, with the places where a type refused whatever it was given.
    pub(super) fn into_misfits(self) -> Vec<Misfit> {
        let Self { mut misfits, turns, refusals, accepted, .. } = self;
        let parts = turns.into_values().flat_map(Turn::misfits);
        let wholes = refusals.into_iter().filter(|(key, _)| !accepted.contains(key));
        let wholes = wholes.map(|(_, (field, text))| (field, format!("every value tried: {text}")));
        for (field, text) in parts.chain(wholes) {
            // What is wrong further inside is reason enough to refuse the whole.
            let inside = |known: &Misfit| match known.field.strip_prefix(&field) {
                Some(rest) => {
                    field.is_empty() || rest.is_empty() || rest.starts_with(['.', '[', '{'])
                }
                None => false,
            };
            if !misfits.iter().any(inside) {
                misfits.push(Misfit {
                    field,
                    rust: format!("the type refuses {text}"),
                    avro: "the schema has no example that it takes".into(),
                    advice: EXAMPLES.into(),
                });
            }
        }
        misfits
    }
}

const EXAMPLES: &str = "if it is right to, add \"examples\": [..] to this field of the schema, with \
                        values that the type takes";
pub(super) const NO_FIELD: &str = "the schema has no such field";

pub(super) fn says(node: Node) -> String {
    format!("the schema says {node}")
}
