//! The findings of the rounds so far, and the alternatives that are left to try.
//!
//! Kept by thread: serde hands nothing from the caller of a decoder to the type that is decoded.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::Misfit;
use crate::avro_types::Node;

pub(super) const NO_FIELD: &str = "the schema has no such field";
const VARIANT: &str = "variant ";
const NO_EXAMPLE: &str = "the schema has no example that it takes";
const EXAMPLES: &str = "if it is right to, add \"examples\": [..] to this field of the schema, with \
                        values that the type takes";

thread_local! {
    static FINDINGS: RefCell<Findings> = RefCell::default();
}

/// The findings of this thread's check. `act` must not call the checked type.
pub(super) fn with<R>(act: impl FnOnce(&mut Findings) -> R) -> R {
    FINDINGS.with_borrow_mut(act)
}

/// A place in the schema.
#[derive(Clone, Default)]
pub(super) struct Place {
    /// As people read it: `legs[].aircraft`.
    pub(super) shown: String,
    /// Unique also within options and unions, where `shown` stays the same.
    key: String,
}

impl Place {
    pub(super) fn field(&self, name: &str) -> Self {
        Self { shown: dotted(&self.shown, name), key: format!("{}.{name}", self.key) }
    }

    pub(super) fn inside(&self, shown: &str, key: &str) -> Self {
        Self { shown: format!("{}{shown}", self.shown), key: format!("{}{key}", self.key) }
    }
}

/// The path of a field of the value at the path `place`.
pub(super) fn dotted(place: &str, name: &str) -> String {
    if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") }
}

/// A place with alternatives, which take turns.
#[derive(Default)]
struct Alternatives {
    shown: String,
    /// Names of alternatives each of which the type must accept. Empty: one of them is enough.
    labels: Vec<String>,
    outcomes: Vec<Outcome>,
    last: usize,
}

/// The outcome of one alternative.
#[derive(Clone, PartialEq)]
enum Outcome {
    Open,
    Accepted,
    Refused(String),
}

impl Alternatives {
    /// The next alternative that was not refused; after all were refused, any.
    fn choose(&mut self) -> usize {
        let count = self.outcomes.len();
        let mut after_last = (1..=count).map(|step| (self.last + step) % count);
        let is_free =
            |index: &usize| !matches!(self.outcomes.get(*index), Some(Outcome::Refused(_)));
        self.last = after_last.find(is_free).unwrap_or_default();
        self.last
    }

    /// The type's objection to the first alternative, if it has refused all.
    fn refusal(&self) -> Option<&str> {
        let refused = |outcome: &Outcome| matches!(outcome, Outcome::Refused(_));
        match self.outcomes.first() {
            Some(Outcome::Refused(text)) if self.outcomes.iter().all(refused) => Some(text),
            Some(_) | None => None,
        }
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Findings {
    root: Option<Node>,
    misfits: Vec<Misfit>,
    turns: BTreeMap<String, Alternatives>,
    /// Places, as shown, where a [`Placeholder`](super::placeholder::Placeholder) is read from now
    /// on.
    replaced: BTreeSet<String>,
    /// Fields, by the place of their record, that the type requires and the schema lacks.
    required: BTreeMap<String, BTreeSet<String>>,
    /// The type's variants that are no symbols of the enum at a place.
    variants: BTreeMap<String, Vec<&'static str>>,
    /// The type's objection to a value with parts.
    refusals: BTreeMap<String, String>,
    reading_failed: bool,
    progress: bool,
    round: Round,
}

/// The current sample.
#[derive(Default)]
struct Round {
    /// The places with alternatives, by their keys, with the chosen one.
    choices: Vec<(String, usize)>,
    branches: BTreeMap<String, usize>,
    /// The variants that are given instead of the sample's.
    injected: BTreeMap<String, &'static str>,
    /// Values that the library has handed to the type.
    visits: usize,
    /// The innermost place that failed has been noted.
    told: bool,
}

impl Findings {
    pub(super) fn begin(&mut self, root: Node) {
        *self = Self { root: Some(root), ..Self::default() };
    }

    pub(super) fn begin_round(&mut self) {
        self.round = Round::default();
        self.progress = false;
    }

    pub(super) fn root(&self) -> Option<Node> {
        self.root
    }

    pub(super) fn progressed(&self) -> bool {
        self.progress
    }

    /// Whether some alternative was neither accepted nor refused.
    pub(super) fn pending(&self) -> bool {
        self.turns.values().any(|turn| turn.outcomes.contains(&Outcome::Open))
    }

    /// Whether reading has found misfits: they are told first, and nothing is written.
    pub(super) fn reading_failed(&self) -> bool {
        self.reading_failed
    }

    /// Whether the type was given the sample and nothing else.
    pub(super) fn is_sample(&self) -> bool {
        self.round.injected.is_empty()
    }

    pub(super) fn choose(&mut self, place: &Place, count: usize, labels: Vec<String>) -> usize {
        let turn = self.turns.entry(place.key.clone()).or_default();
        if turn.outcomes.len() != count {
            turn.shown.clone_from(&place.shown);
            turn.labels = labels;
            turn.outcomes.resize(count, Outcome::Open);
            turn.last = count.saturating_sub(1);
        }
        let chosen = turn.choose();
        self.round.choices.push((place.key.clone(), chosen));
        chosen
    }

    /// Takes a symbol; or a variant that is none, which replaces the first symbol in the
    /// datum.
    pub(super) fn choose_symbol(&mut self, place: &Place, symbols: &[String]) -> usize {
        let variants = self.variants.get(&place.shown).cloned().unwrap_or_default();
        let labels = symbols.iter().map(|symbol| format!("symbol {symbol}"));
        let labels = labels.chain(variants.iter().map(|variant| format!("{VARIANT}{variant}")));
        let chosen = self.choose(place, symbols.len() + variants.len(), labels.collect());
        let Some(variant) = chosen.checked_sub(symbols.len()).and_then(|n| variants.get(n)) else {
            return chosen;
        };
        self.round.injected.insert(place.shown.clone(), variant);
        0
    }

    pub(super) fn injected(&self, shown: &str) -> Option<&'static str> {
        self.round.injected.get(shown).copied()
    }

    pub(super) fn take_branch(&mut self, place: &Place, branch: usize) {
        self.round.branches.insert(place.shown.clone(), branch);
    }

    pub(super) fn branch(&self, shown: &str) -> Option<usize> {
        self.round.branches.get(shown).copied()
    }

    pub(super) fn has_variants(&mut self, shown: &str, variants: Vec<&'static str>) {
        if self.variants.get(shown) != Some(&variants) {
            self.variants.insert(shown.to_owned(), variants);
            self.progress = true;
        }
    }

    pub(super) fn required(&self, shown: &str) -> Vec<String> {
        self.required.get(shown).into_iter().flatten().cloned().collect()
    }

    pub(super) fn is_replaced(&self, shown: &str) -> bool {
        self.replaced.contains(shown)
    }

    pub(super) fn visited(&mut self) {
        self.round.visits += 1;
    }

    pub(super) fn visits(&self) -> usize {
        self.round.visits
    }

    /// Notes that the whole sample was read.
    pub(super) fn accept(&mut self) {
        for (key, chosen) in &self.round.choices {
            let outcome = self.turns.get_mut(key).and_then(|turn| turn.outcomes.get_mut(*chosen));
            if let Some(outcome @ Outcome::Open) = outcome {
                *outcome = Outcome::Accepted;
                self.progress = true;
            }
        }
    }

    /// Notes that the type asks for something that the schema lacks. From now on a placeholder is
    /// read there.
    pub(super) fn unreadable(&mut self, shown: &str, rust: &str, avro: &str, advice: &str) {
        self.read_misfit(shown, rust.to_owned(), avro, advice);
        self.progress |= self.replaced.insert(shown.to_owned());
        self.round.told = true;
    }

    /// Notes an error of the type, unless it comes from a place further inside.
    pub(super) fn refused(&mut self, shown: &str, text: String) {
        if std::mem::replace(&mut self.round.told, true) {
            return;
        }
        if let Some((name, _)) =
            text.split_once("missing field `").and_then(|(_, name)| name.split_once('`'))
        {
            let required = self.required.entry(shown.to_owned()).or_default();
            self.progress |= required.insert(name.to_owned());
            let wants = format!("the type wants field {name}");
            return self.read_misfit(&dotted(shown, name), wants, NO_FIELD, "");
        }
        let is_here = |turn: &Alternatives| turn.shown == shown;
        let mut choices = std::mem::take(&mut self.round.choices);
        choices.retain(|(key, _)| self.turns.get(key).is_some_and(is_here));
        // The innermost choice first: the sample, then the branch that it belongs to.
        let mut choices = choices.into_iter().rev();
        let Some((key, index)) = choices.next() else {
            self.refusals.entry(shown.to_owned()).or_insert(text);
            return;
        };
        if self.refuse(&key, index, &text) {
            match choices.next() {
                Some((key, index)) => drop(self.refuse(&key, index, &text)),
                None => self.progress |= self.replaced.insert(shown.to_owned()),
            }
        }
    }

    /// Notes that even a placeholder was refused: this round says nothing more.
    pub(super) fn give_up(&mut self) {
        self.round.told = true;
    }

    /// Notes one refused alternative. Returns whether it was the last one of those that any would
    /// do.
    fn refuse(&mut self, key: &str, index: usize, text: &str) -> bool {
        let Some(turn) = self.turns.get_mut(key) else { return false };
        if let Some(outcome @ Outcome::Open) = turn.outcomes.get_mut(index) {
            *outcome = Outcome::Refused(text.to_owned());
            self.progress = true;
        }
        turn.labels.is_empty() && turn.refusal().is_some()
    }

    pub(super) fn read_misfit(&mut self, field: &str, rust: String, avro: &str, advice: &str) {
        self.reading_failed = true;
        self.misfit(field, rust, avro, advice);
    }

    pub(super) fn misfit(&mut self, field: &str, rust: String, avro: &str, advice: &str) {
        let field = field.to_owned();
        let misfit = Misfit { field, rust, avro: avro.to_owned(), advice: advice.to_owned() };
        if !self.misfits.contains(&misfit) {
            self.misfits.push(misfit);
            self.progress = true;
        }
    }

    /// All findings, with the places where the type refused a sample.
    pub(super) fn into_misfits(mut self) -> Vec<Misfit> {
        let turns = std::mem::take(&mut self.turns);
        let accepted = |turn: &Alternatives| turn.outcomes.contains(&Outcome::Accepted);
        let none_accepted = !turns.values().any(accepted);
        let found = self.misfits.len();
        let labelled = turns.values().flat_map(|turn| {
            let outcomes = turn.labels.iter().zip(&turn.outcomes);
            outcomes.map(|(label, outcome)| (turn.shown.as_str(), label, outcome))
        });
        for (shown, label, outcome) in labelled {
            if let Outcome::Refused(text) = outcome
                && !self.is_told(shown, found)
            {
                let refuses = format!("the type refuses {label}: {text}");
                self.misfit(shown, refuses, &schema_has(label), "");
            }
        }
        let samples = turns.values().filter(|turn| turn.labels.is_empty());
        let refused = samples.filter_map(|turn| Some((turn.shown.as_str(), turn.refusal()?)));
        let wholes = std::mem::take(&mut self.refusals);
        let wholes = wholes.iter().filter(|_| none_accepted);
        let wholes = wholes.map(|(shown, text)| (shown.as_str(), text.as_str()));
        for (shown, text) in refused.chain(wholes) {
            if !self.is_told(shown, usize::MAX) {
                let refuses = format!("the type refuses every value tried: {text}");
                self.misfit(shown, refuses, NO_EXAMPLE, EXAMPLES);
            }
        }
        self.misfits
    }

    /// Whether one of the first `found` misfits lies at a place or inside it: reason enough to
    /// refuse it.
    fn is_told(&self, shown: &str, found: usize) -> bool {
        self.misfits.iter().take(found).any(|known| match known.field.strip_prefix(shown) {
            Some(rest) => shown.is_empty() || rest.is_empty() || rest.starts_with(['.', '[', '{']),
            None => false,
        })
    }
}

/// The schema's words for an alternative. Variants that are no symbols are alternatives, too.
fn schema_has(label: &str) -> String {
    if label.starts_with(VARIANT) {
        "the schema has no such symbol".into()
    } else {
        format!("the schema has {label}")
    }
}
