//! Which properties of librdkafka the configuration may set.

use std::collections::BTreeMap;

/// Properties that exactly-once publishing relies on: the relay sets these itself.
const PROPERTIES_OF_THE_RELAY: [&str; 13] = [
    "acks",
    "allow.auto.create.topics",
    "bootstrap.servers",
    "compression.type",
    "delivery.report.only.error",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "group.id",
    "isolation.level",
    "message.timeout.ms",
    "partitioner",
    "transaction.timeout.ms",
    "transactional.id",
];

/// Properties with two names in librdkafka, which takes the one that is set last: the other name,
/// and the one that the relay uses.
const ALIASES: [(&str, &str); 12] = [
    ("auto.commit.enable", "enable.auto.commit"),
    ("compression.codec", "compression.type"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("message.send.max.retries", "retries"),
    ("metadata.broker.list", "bootstrap.servers"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("request.required.acks", "acks"),
    ("sasl.mechanism", "sasl.mechanisms"),
    ("sasl.oauthbearer.client.credentials.client.id", "sasl.oauthbearer.client.id"),
    ("sasl.oauthbearer.client.credentials.client.secret", "sasl.oauthbearer.client.secret"),
];

/// The one name of a property that the relay uses.
pub(crate) fn canonical(name: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, property)| property)
}

/// Values that only a build with a feature has: name, value, feature, whether it is built in.
const FEATURES: [(&str, &str, &str, bool); 3] = [
    ("sasl.oauthbearer.method", "oidc", "oidc", cfg!(feature = "oidc")),
    ("sasl.mechanism", "GSSAPI", "gssapi", cfg!(feature = "gssapi")),
    ("sasl.mechanisms", "GSSAPI", "gssapi", cfg!(feature = "gssapi")),
];

/// What is wrong with these properties.
pub(super) fn faults(properties: &BTreeMap<String, String>) -> Vec<String> {
    let reserved =
        properties.keys().filter(|name| PROPERTIES_OF_THE_RELAY.contains(&canonical(name)));
    let reserved = reserved.map(|name| format!("has {name}, which the relay sets itself"));
    let missing = FEATURES.iter().filter(|(name, value, _, is_built_in)| {
        !is_built_in && properties.get(*name).is_some_and(|found| found == value)
    });
    let missing = missing.map(|(name, value, feature, _)| {
        format!(
            "has {name}={value}, which needs a relay that was built with the feature {feature}: \
             cargo build --release -p annals-relay --features {feature}"
        )
    });
    reserved.chain(missing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(name: &str, value: &str) -> Vec<String> {
        faults(&[(name.to_owned(), value.to_owned())].into())
    }

    #[test]
    fn properties_that_the_relay_sets_are_reserved_under_every_alias() {
        let reserved = |(_, property): &&(&str, &str)| PROPERTIES_OF_THE_RELAY.contains(property);
        for (alias, _) in ALIASES.iter().filter(reserved) {
            let expected = format!("has {alias}, which the relay sets itself");
            assert_eq!(faults_of(alias, "1"), [expected]);
        }
    }

    #[test]
    fn every_alias_of_librdkafka_is_known() {
        let mut said: Vec<[String; 2]> = librdkafka_properties()
            .lines()
            .filter_map(|line| {
                let name = line.split_once('|')?.0.trim().to_owned();
                let (alias_for, _) = line.split_once("Alias for `")?.1.split_once('`')?;
                Some(sorted(&name, alias_for))
            })
            .collect();
        said.sort();
        said.dedup();
        let mut known: Vec<[String; 2]> =
            ALIASES.iter().map(|(name, other)| sorted(name, other)).collect();
        known.sort();
        assert_eq!(known, said);
    }

    fn sorted(name: &str, other: &str) -> [String; 2] {
        let mut names = [name.to_owned(), other.to_owned()];
        names.sort();
        names
    }

    /// The list of properties of the librdkafka that this is built with.
    fn librdkafka_properties() -> String {
        let cargo = |arguments: &[&str]| {
            let output =
                std::process::Command::new(env!("CARGO")).args(arguments).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let version = cargo(&["-vV"]);
        let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        // Packages of other platforms may not have been downloaded.
        let platform = format!("--filter-platform={host}");
        let described =
            cargo(&["metadata", "--offline", "--locked", "--format-version=1", &platform]);
        let described: serde_json::Value = serde_json::from_str(&described).unwrap();
        let packages = described["packages"].as_array().unwrap();
        let package = packages.iter().find(|of| of["name"] == "rdkafka-sys").unwrap();
        let manifest = std::path::Path::new(package["manifest_path"].as_str().unwrap());
        let list = manifest.with_file_name("librdkafka").join("CONFIGURATION.md");
        std::fs::read_to_string(list).unwrap()
    }

    #[test]
    fn a_login_that_is_not_built_in_is_refused_with_its_feature() {
        for (name, value, feature, is_built_in) in FEATURES {
            let said = faults_of(name, value);
            let is_named = said.iter().any(|said| said.contains(&format!("--features {feature}")));
            assert_eq!(is_named, !is_built_in, "{said:?}");
        }
        assert!(faults_of("sasl.mechanism", "PLAIN").is_empty());
    }
}
