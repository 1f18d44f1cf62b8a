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

/// The aliases of these properties in librdkafka: it takes the one that is set last.
const ALIASES: [(&str, &str); 4] = [
    ("compression.codec", "compression.type"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("metadata.broker.list", "bootstrap.servers"),
    ("request.required.acks", "acks"),
];

/// The name of a property for which this one may be an alias.
fn canonical(name: &str) -> &str {
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
        for (alias, property) in ALIASES {
            assert!(PROPERTIES_OF_THE_RELAY.contains(&property), "{property}");
            let expected = format!("has {alias}, which the relay sets itself");
            assert_eq!(faults_of(alias, "1"), [expected]);
        }
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
