//! The sources of the configuration: defaults, overridden by a TOML file, overridden by the
//! environment. Unknown keys are refused.
//!
//! The environment variable of the key `section.key` is `ANNALS_RELAY__SECTION__KEY`, in capitals;
//! a whole number and `true` or `false` are written as in the file, a text without quotes, a table
//! as TOML's inline table. Three settings that other programs of Annals share have short names,
//! which the long ones override: `ANNALS_DATABASE_URL`, `ANNALS_KAFKA`, `ANNALS_REGISTRY_URL`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use toml::de::{DeTable, DeValue, ValueDeserializer};
use toml::{Table, Value};

use crate::config::defaults::RawConfig;
use crate::config::effective::Effective;
use crate::config::error::{ConfigError, Problem};

const PREFIX: &str = "ANNALS_RELAY__";
const SHORT: [(&str, &str); 3] = [
    ("ANNALS_DATABASE_URL", "database.url"),
    ("ANNALS_KAFKA", "kafka.bootstrap_servers"),
    ("ANNALS_REGISTRY_URL", "registry.url"),
];

/// Values as they are collected: a later one overrides an earlier one.
pub(crate) struct Sources {
    values: Table,
    defaults: Table,
    pub(super) origins: BTreeMap<String, String>,
    problems: Vec<Problem>,
}

impl Sources {
    pub(crate) fn new() -> Self {
        // Texts, numbers and tables of them: TOML can express all of it.
        let defaults = Table::try_from(RawConfig::default()).unwrap_or_default();
        let values = defaults.clone();
        Self { values, defaults, origins: BTreeMap::new(), problems: Vec::new() }
    }

    pub(crate) fn file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: name.clone(), source })?;
        self.text(&name, &text)
    }

    pub(crate) fn text(&mut self, origin: &str, text: &str) -> Result<(), ConfigError> {
        // The parser's own message quotes the line, which can have a secret.
        let malformed = |error: toml::de::Error| {
            let line = error.span().map_or(0, |span| line_of(text, &span));
            let (origin, message) = (format!("{origin}:{line}"), error.message().to_owned());
            ConfigError::Malformed { origin, message }
        };
        let place = |span| format!("{origin}:{}", line_of(text, &span));
        for (section, content) in DeTable::parse(text).map_err(malformed)?.into_inner() {
            let DeValue::Table(keys) = content.into_inner() else {
                self.unknown(&place(section.span()), section.as_ref());
                continue;
            };
            for (key, value) in keys {
                let key = (place(key.span()), format!("{}.{}", section.as_ref(), key.as_ref()));
                let value = Value::deserialize(ValueDeserializer::from(value));
                self.give(&key.0, &key.1, value.map_err(malformed)?);
            }
        }
        Ok(())
    }

    pub(crate) fn environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        let variables: BTreeMap<String, String> = variables.into_iter().collect();
        for (variable, key) in SHORT {
            // Compose files pass on an unset variable as an empty one.
            if let Some(text) = variables.get(variable).filter(|text| !text.is_empty()) {
                self.give(variable, key, Value::String(text.clone()));
            }
        }
        for (variable, text) in &variables {
            let Some(path) = variable.strip_prefix(PREFIX) else { continue };
            let key = path.to_lowercase().replacen("__", ".", 1);
            match self.default(&key).map(|like| read_as(like, text)) {
                Some(Some(value)) => self.give(variable, &key, value),
                Some(None) => self.mistyped(variable, &key),
                None => self.unknown(variable, &key),
            }
        }
    }

    /// The values, with the defaults of omitted keys, and the origin of each.
    pub(crate) fn finish(mut self) -> Result<(RawConfig, Effective), ConfigError> {
        self.read_secret_files();
        let effective = Effective::new(&self.values, self.origins);
        if !self.problems.is_empty() {
            return Err(ConfigError::Wrong(self.problems));
        }
        let raw =
            self.values.try_into().map_err(|error: toml::de::Error| ConfigError::Malformed {
                origin: "the configuration".to_owned(),
                message: error.message().to_owned(),
            })?;
        Ok((raw, effective))
    }

    fn give(&mut self, origin: &str, key: &str, value: Value) {
        let Some(like) = self.default(key) else { return self.unknown(origin, key) };
        let value = match (like, value) {
            (Value::Table(_), Value::Table(table)) => Value::Table(flat(table)),
            (like, value) if like.same_type(&value) => value,
            _ => return self.mistyped(origin, key),
        };
        self.set(key, value);
        self.origins.insert(key.to_owned(), origin.to_owned());
        self.displace(key, origin);
    }

    pub(super) fn set(&mut self, key: &str, value: Value) {
        if let Some((section, name)) = key.split_once('.')
            && let Some(Value::Table(keys)) = self.values.get_mut(section)
        {
            keys.insert(name.to_owned(), value);
        }
    }

    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        let (section, name) = key.split_once('.')?;
        self.values.get(section)?.get(name)
    }

    fn default(&self, key: &str) -> Option<&Value> {
        let (section, name) = key.split_once('.')?;
        self.defaults.get(section)?.get(name)
    }

    fn mistyped(&mut self, origin: &str, key: &str) {
        let what = match self.default(key) {
            Some(Value::Integer(_)) => "must be a whole number",
            Some(Value::Boolean(_)) => "must be true or false",
            Some(Value::Table(_)) => "must be a table, like { \"name\" = \"value\" }",
            Some(_) | None => "must be a text",
        };
        self.problem(origin, key, what.to_owned());
    }

    fn unknown(&mut self, origin: &str, key: &str) {
        let nearest = self
            .keys()
            .map(|known| (strsim::damerau_levenshtein(key, &known), known))
            .min()
            .map(|(_, known)| known)
            .unwrap_or_default();
        let nearest = if origin.starts_with(PREFIX) { variable_of(&nearest) } else { nearest };
        self.problem(origin, key, format!("is unknown; the nearest that is known is {nearest}"));
    }

    fn keys(&self) -> impl Iterator<Item = String> {
        let sections =
            self.defaults.iter().filter_map(|(name, keys)| Some((name, keys.as_table()?)));
        sections.flat_map(|(name, keys)| keys.keys().map(move |key| format!("{name}.{key}")))
    }

    pub(super) fn problem(&mut self, origin: &str, key: &str, what: String) {
        self.problems.push(Problem { origin: origin.to_owned(), key: key.to_owned(), what });
    }
}

/// The order of the sources: a later one overrides an earlier one.
pub(super) fn layer(origin: &str) -> u8 {
    if origin.starts_with(PREFIX) {
        2
    } else {
        u8::from(SHORT.iter().any(|(variable, _)| *variable == origin))
    }
}

/// The environment variable of a key.
pub(crate) fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replacen('.', "__", 1).to_uppercase())
}

/// A text of the environment as a value of the same type as another; `None` if it is not of that
/// type.
fn read_as(like: &Value, text: &str) -> Option<Value> {
    match like {
        Value::Integer(_) => text.parse().ok().map(Value::Integer),
        Value::Boolean(_) => text.parse().ok().map(Value::Boolean),
        Value::Table(_) => {
            toml::from_str::<Table>(&format!("table = {text}")).ok()?.remove("table")
        }
        Value::String(_) | Value::Float(_) | Value::Datetime(_) | Value::Array(_) => {
            Some(Value::String(text.to_owned()))
        }
    }
}

/// `sasl.username = ".."` is a nested table in TOML, and one name in Kafka.
fn flat(table: Table) -> Table {
    let mut flattened = Table::new();
    for (name, value) in table {
        match value {
            Value::Table(inner) => {
                let inner = flat(inner).into_iter();
                flattened.extend(inner.map(|(rest, value)| (format!("{name}.{rest}"), value)));
            }
            Value::String(text) => drop(flattened.insert(name, Value::String(text))),
            other => drop(flattened.insert(name, Value::String(other.to_string()))),
        }
    }
    flattened
}

fn line_of(text: &str, span: &Range<usize>) -> usize {
    text.get(..span.start).map_or(0, |before| before.matches('\n').count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const NEEDED: &str = "database.url = 'postgres://h/d'\nkafka.bootstrap_servers = 'k:1'\nregistry.url = 'http://r'\n";

    fn environment(variables: &[(&str, &str)]) -> Vec<(String, String)> {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn sources(text: &str, variables: &[(&str, &str)]) -> Sources {
        let mut sources = Sources::new();
        sources.text("relay.toml", &format!("{NEEDED}{text}")).unwrap();
        sources.environment(environment(variables));
        sources
    }

    fn raw(text: &str, variables: &[(&str, &str)]) -> RawConfig {
        sources(text, variables).finish().unwrap_or_else(|error| panic!("{error}")).0
    }

    fn refused(text: &str, variables: &[(&str, &str)]) -> String {
        match sources(text, variables).finish() {
            Ok(_) => panic!("it was taken"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_example_has_every_key_at_its_default() {
        let example: Table = toml::from_str(include_str!("../../relay.example.toml")).unwrap();
        assert_eq!(example, Sources::new().defaults);
    }

    #[test]
    fn the_example_can_be_used_once_the_servers_are_named() {
        let mut sources = Sources::new();
        sources.text("relay.example.toml", include_str!("../../relay.example.toml")).unwrap();
        sources.environment(environment(&[
            ("ANNALS_DATABASE_URL", "postgres://h/d"),
            ("ANNALS_KAFKA", "k:1"),
            ("ANNALS_REGISTRY_URL", "http://r/"),
        ]));
        let config = crate::config::check::check(sources).unwrap().0;
        assert_eq!(config.registry.url, "http://r");
        assert_eq!(config.kafka.bootstrap_servers, "k:1");
    }

    #[test]
    fn the_environment_goes_before_the_file_and_its_long_names_before_the_short() {
        let file = "topics.prefix = 'file'\ntopics.partitions = 3";
        let variables = [
            ("ANNALS_KAFKA", "short:1"),
            ("ANNALS_RELAY__KAFKA__BOOTSTRAP_SERVERS", "long:1"),
            ("ANNALS_DATABASE_URL", "postgres://short/d"),
            ("ANNALS_REGISTRY_URL", ""),
            ("ANNALS_RELAY__TOPICS__PARTITIONS", "24"),
            ("ANNALS_RELAY__TOPICS__CREATE", "false"),
            ("ANNALS_RELAY__TOPICS__CONFIG", "{ \"min.insync.replicas\" = 2 }"),
        ];
        let raw = raw(file, &variables);
        assert_eq!(raw.kafka.bootstrap_servers, "long:1");
        assert_eq!(raw.database.url, "postgres://short/d");
        assert_eq!(raw.registry.url, "http://r");
        assert_eq!(
            (raw.topics.prefix.as_str(), raw.topics.partitions, raw.topics.create),
            ("file", 24, false)
        );
        assert_eq!(raw.topics.config["min.insync.replicas"], "2");
    }

    #[test]
    fn properties_can_be_written_with_or_without_quotes() {
        let quoted = raw("[kafka.properties]\n'sasl.username' = 'a'\n'batch.size' = 1000", &[]);
        let bare = raw("[kafka.properties]\nsasl.username = 'a'\nbatch.size = 1000", &[]);
        assert_eq!(quoted.kafka.properties, bare.kafka.properties);
        assert_eq!(bare.kafka.properties["sasl.username"], "a");
        assert_eq!(bare.kafka.properties["batch.size"], "1000");
    }

    #[test]
    fn unknown_keys_are_refused_with_the_nearest_known_one_in_their_own_spelling() {
        let said = refused(
            "topics.partition = 3\ntopic.prefix = 'x'",
            &[("ANNALS_RELAY__RELAY__LEASE", "3000"), ("ANNALS_RELAY__TOPICSPREFIX", "x")],
        );
        for line in [
            "relay.toml:4: topics.partition is unknown; the nearest that is known is topics.partitions",
            "relay.toml:5: topic.prefix is unknown; the nearest that is known is topics.prefix",
            "ANNALS_RELAY__RELAY__LEASE: relay.lease is unknown; the nearest that is known is \
             ANNALS_RELAY__RELAY__LEASE_MS",
            "ANNALS_RELAY__TOPICSPREFIX: topicsprefix is unknown; the nearest that is known is \
             ANNALS_RELAY__TOPICS__PREFIX",
        ] {
            assert!(said.lines().any(|said| said == line), "{line}\nnot in\n{said}");
        }
    }

    #[test]
    fn a_value_of_another_type_is_refused_with_the_type_that_is_needed() {
        let said = refused(
            "topics.partitions = 'many'\nregistry.auto_register = 1",
            &[("ANNALS_RELAY__RELAY__LEASE_MS", "3s"), ("ANNALS_RELAY__KAFKA__PROPERTIES", "a=b")],
        );
        for line in [
            "relay.toml:4: topics.partitions must be a whole number",
            "relay.toml:5: registry.auto_register must be true or false",
            "ANNALS_RELAY__RELAY__LEASE_MS: relay.lease_ms must be a whole number",
            "ANNALS_RELAY__KAFKA__PROPERTIES: kafka.properties must be a table, like { \"name\" = \"value\" }",
        ] {
            assert!(said.lines().any(|said| said == line), "{line}\nnot in\n{said}");
        }
    }

    #[test]
    fn a_file_that_is_no_toml_is_refused_with_its_line_and_without_its_text() {
        let mut sources = Sources::new();
        let error =
            sources.text("relay.toml", "[registry]\npassword = hunter2\n").unwrap_err().to_string();
        assert!(error.starts_with("relay.toml:2 is not TOML: "), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn secrets_do_not_show() {
        let config = Config::parse(
            "database.url = 'postgres://u:hunter2@h/d'\nkafka.bootstrap_servers = 'k:1'\n\
             registry = { url = 'http://r', username = 'u', password = 'hunter2' }\n\
             [kafka.properties]\nsasl.password = 'hunter2'",
        );
        let shown = format!("{:?}", config.unwrap());
        assert!(shown.contains("sasl.password") && !shown.contains("hunter2"), "{shown}");
    }
}
