//! The value of each key and its origin: what `config` prints, and what a reload compares.

use std::collections::BTreeMap;

use serde::Serialize;
use toml::{Table, Value};

use crate::config::error::Problem;

/// The keys that a running relay takes from a changed configuration; all others need a restart.
pub const RELOADED: [&str; 9] = [
    "database.password",
    "database.password_file",
    "http.tls_certificate",
    "http.tls_key",
    "http.token",
    "http.token_file",
    "log.level",
    "relay.batch_bytes_max",
    "relay.batch_events_max",
];
/// The keys of secrets that a file can have. Also each property of `kafka.properties`.
pub(super) const SECRETS: [&str; 6] = [
    "database.url",
    "database.password",
    "registry.password",
    "registry.token",
    "http.token",
    "trace.token",
];
/// The keys of URLs, which may have a login or secret parameters.
const URLS: [&str; 3] = ["database.url", "registry.url", "trace.otlp_url"];
const DEFAULT: &str = "default";
const HIDDEN: &str = "[secret]";
/// Parts of the names of properties whose values are secrets.
const SECRET_PARTS: [&str; 8] =
    ["password", "secret", "token", "jaas", "pem", "key", "username", "oauthbearer.config"];

/// The configuration as it was read, with its origins.
#[derive(Clone)]
pub struct Effective(BTreeMap<String, EffectiveValue>);

#[derive(Clone)]
struct EffectiveValue {
    value: Value,
    origin: Option<String>,
}

/// A key as it may be shown.
#[derive(Debug, Serialize)]
pub struct ShownKey<'a> {
    /// `section.key`.
    pub key: &'a str,
    /// Its value; a secret is hidden.
    pub value: Value,
    /// The file and the line, the environment variable, or `default`.
    pub origin: &'a str,
}

impl std::fmt::Debug for Effective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.shown()).finish()
    }
}

impl Effective {
    pub(super) fn new(values: &Table, mut origins: BTreeMap<String, String>) -> Self {
        let sections = values.iter().filter_map(|(name, keys)| Some((name, keys.as_table()?)));
        let keys = sections.flat_map(|(section, keys)| {
            keys.iter().map(move |(name, value)| (format!("{section}.{name}"), value.clone()))
        });
        let with_origin = keys.map(|(key, value)| {
            let origin = origins.remove(&key);
            (key, EffectiveValue { value, origin })
        });
        Self(with_origin.collect())
    }

    pub(super) fn problem(&self, key: &str, what: String) -> Problem {
        let origin = self.0.get(key).and_then(|of| of.origin.clone());
        let origin = origin.unwrap_or_else(|| "nowhere given".to_owned());
        Problem { origin, key: key.to_owned(), what }
    }

    /// Every key, with its value or `[secret]`.
    pub fn shown(&self) -> impl Iterator<Item = ShownKey<'_>> {
        self.0.iter().map(|(key, EffectiveValue { value, origin })| ShownKey {
            key,
            value: shown(key, value),
            origin: origin.as_deref().unwrap_or(DEFAULT),
        })
    }

    /// The same, with these keys of another one.
    #[must_use]
    pub fn with(&self, other: &Self, keys: &[&str]) -> Self {
        let mut both = self.clone();
        for key in keys {
            if let Some(value) = other.0.get(*key) {
                both.0.insert((*key).to_owned(), value.clone());
            }
        }
        both
    }

    /// The keys whose values differ.
    #[must_use]
    pub fn changed(&self, other: &Self) -> Vec<&str> {
        let differs = |key: &&String| {
            let values = [self, other].map(|of| of.0.get(*key).map(|of| &of.value));
            values[0] != values[1]
        };
        self.0.keys().filter(differs).map(String::as_str).collect()
    }
}

fn shown(key: &str, value: &Value) -> Value {
    match value {
        Value::String(text) if URLS.contains(&key) && !text.is_empty() => {
            Value::String(without_login(text))
        }
        Value::String(text) if SECRETS.contains(&key) && !text.is_empty() => {
            Value::String(HIDDEN.to_owned())
        }
        Value::Table(properties) if key == "kafka.properties" => {
            let shown = properties.iter().map(|(name, value)| {
                let hidden = Value::String(HIDDEN.to_owned());
                (name.clone(), if is_secret(name) { hidden } else { value.clone() })
            });
            Value::Table(shown.collect())
        }
        other => other.clone(),
    }
}

/// A URL without its user, password and parameters, which may have a password, too.
fn without_login(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return HIDDEN.to_owned() };
    let (login, place) = rest.rsplit_once('@').map_or(("", rest), |(_, place)| (HIDDEN, place));
    let (place, parameters) =
        place.split_once('?').map_or((place, ""), |(place, _)| (place, HIDDEN));
    let at = if login.is_empty() { "" } else { "@" };
    let question = if parameters.is_empty() { "" } else { "?" };
    format!("{scheme}://{login}{at}{place}{question}{parameters}")
}

fn is_secret(property: &str) -> bool {
    !property.ends_with(".location") && SECRET_PARTS.iter().any(|part| property.contains(part))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Config;

    const TEXT: &str = "kafka.bootstrap_servers = 'k:1'\n\
        registry = { url = 'http://u:hunter2@r', password = '' }\n\
        database = { url = 'postgres://u:hunter@2@h:5/d?password=hunter2', password = 'hunter2' }\n\
        http.token = 'hunter2'\n\
        trace.otlp_url = 'https://u:hunter2@c/v1/traces?key=hunter2'\n\
        [kafka.properties]\n'sasl.password' = 'hunter2'\n'ssl.key.pem' = 'hunter2'\n\
        'ssl.key.location' = '/k'\n'linger.ms' = '1'";

    fn read(text: &str) -> Effective {
        Config::parse_with_origins(text).unwrap_or_else(|error| panic!("{error}")).1
    }

    #[test]
    fn every_key_is_shown_with_its_origin_and_no_secret() {
        let effective = read(TEXT);
        let shown: BTreeMap<&str, (String, &str)> =
            effective.shown().map(|of| (of.key, (of.value.to_string(), of.origin))).collect();
        assert!(!format!("{shown:?}").contains("hunter"), "{shown:?}");
        let of = |key: &str| shown[key].0.as_str();
        assert_eq!(of("database.url"), "\"postgres://[secret]@h:5/d?[secret]\"");
        assert_eq!(of("registry.url"), "\"http://[secret]@r\"");
        assert_eq!(of("trace.otlp_url"), "\"https://[secret]@c/v1/traces?[secret]\"");
        assert_eq!(of("http.token"), "\"[secret]\"");
        assert_eq!(of("registry.token"), "\"\"");
        let properties = of("kafka.properties");
        assert!(properties.contains("\"/k\"") && properties.contains("\"1\""), "{properties}");
        assert_eq!(shown["http.token"].1, "the configuration:4");
        assert_eq!(shown["relay.lease_ms"].1, "default");
    }

    #[test]
    fn no_secret_of_any_key_is_shown_or_printed() {
        const NEEDED: &str = "database.url = 'postgres://h/d'\nkafka.bootstrap_servers = 'k:1'\n\
            registry.url = 'http://r'\nhttp.listen = '127.0.0.1:1'\ntrace.otlp_url = 'http://c'\n";
        let urls = URLS.map(|key| (key, "user:hunter2@h/p"));
        let others = SECRETS.into_iter().filter(|key| !URLS.contains(key));
        let others: Vec<_> = others.map(|key| (key, "hunter2")).chain(urls).collect();
        for (key, secret) in others {
            let scheme = if key == "database.url" { "postgres://" } else { "http://" };
            let value =
                if URLS.contains(&key) { format!("{scheme}{secret}") } else { secret.into() };
            let username =
                if key == "registry.password" { "registry.username = 'u'\n" } else { "" };
            let kept = NEEDED.lines().filter(|line| !line.starts_with(&format!("{key} ")));
            let kept: String = kept.map(|line| format!("{line}\n")).collect();
            let text = format!("{kept}{username}{key} = '{value}'");
            let read = Config::parse_with_origins(&text);
            let (config, effective) = read.unwrap_or_else(|error| panic!("{key}: {error}"));
            let said = format!("{config:?} {effective:?}");
            assert!(!said.contains("hunter"), "{key}: {said}");
        }
        for part in SECRET_PARTS {
            let text = format!("{NEEDED}[kafka.properties]\n'x.{part}.y' = 'hunter2'");
            let (config, effective) = Config::parse_with_origins(&text).unwrap();
            let said = format!("{config:?} {effective:?}");
            assert!(!said.contains("hunter"), "{part}: {said}");
        }
    }

    #[test]
    fn changed_keys_are_named_also_those_of_secrets() {
        let (before, after) = (read(TEXT), read(&TEXT.replace("'hunter2'", "'hunter3'")));
        assert_eq!(before.changed(&after), ["database.password", "http.token", "kafka.properties"]);
        assert!(before.changed(&before).is_empty());
    }
}
