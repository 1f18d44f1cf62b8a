//! The names and the properties of topics.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use crate::config::check::Checker;
use crate::config::defaults::RawTopics;
use crate::config::settings::{CategoryTopic, Topics};

const CATEGORIES: &str = "topics.categories";
/// The keys of a category; `config` is a table.
const KEYS: [&str; 3] = ["config", "partitions", "replication_factor"];

impl Checker {
    pub(super) fn topics(&mut self, raw: RawTopics) -> Topics {
        self.name("topics.prefix", &raw.prefix, 0..=100);
        self.name("topics.claims", &raw.claims, 1..=249);
        let partitions = self.number("topics.partitions", raw.partitions, 1..=10_000);
        let replication = raw.replication_factor;
        if let Err(what) = replication_factor(replication) {
            self.problem("topics.replication_factor", what);
        }
        if let Some(category) = category_named_like(&raw.prefix, &raw.claims) {
            let what = format!(
                "is {:?}, which is the topic of category {category} but for the difference of . and _: choose another name",
                raw.claims
            );
            self.problem("topics.claims", what);
        }
        let categories = self.categories(raw.categories);
        let (framing, layouts) = (self.framing(&raw.framing), self.layouts(raw.layouts));
        Topics {
            framing,
            layouts,
            prefix: raw.prefix,
            claims: raw.claims,
            shared: raw.shared,
            create: raw.create,
            partitions: u16::try_from(partitions)
                .ok()
                .and_then(NonZeroU16::new)
                .unwrap_or(NonZeroU16::MIN),
            replication_factor: i32::try_from(replication).unwrap_or(-1),
            config: raw.config,
            categories,
        }
    }

    /// Keys come as `category.partitions` and `category.config.retention.ms`.
    fn categories(&mut self, raw: BTreeMap<String, String>) -> BTreeMap<String, CategoryTopic> {
        let mut categories: BTreeMap<String, CategoryTopic> = BTreeMap::new();
        for (key, value) in raw {
            let (category, property) = key.split_once('.').unwrap_or((&key, ""));
            if !is_category(category) {
                let what = "a category begins with a letter; letters, digits and _ follow";
                self.problem(CATEGORIES, format!("has {category:?}: {what}"));
                continue;
            }
            let topic = categories.entry(category.to_owned()).or_default();
            if let Err(what) = set(topic, property, value) {
                self.problem(CATEGORIES, format!("has {category}.{property}, {what}"));
            }
        }
        categories
    }
}

fn set(topic: &mut CategoryTopic, property: &str, value: String) -> Result<(), String> {
    let number = || value.parse::<i64>().map_err(|_not_a_number| "which must be a whole number");
    if let Some(setting) = property.strip_prefix("config.") {
        topic.config.insert(setting.to_owned(), value);
    } else if property == "partitions" {
        let number = number()?;
        let partitions = u16::try_from(number).ok().and_then(NonZeroU16::new);
        let allowed = partitions.filter(|of| of.get() <= 10_000);
        topic.partitions = Some(allowed.ok_or("which must be 1 to 10000")?);
    } else if property == "replication_factor" {
        let factor = number()?;
        replication_factor(factor).map_err(|what| format!("which {what}"))?;
        topic.replication_factor = i32::try_from(factor).ok();
    } else {
        let distance = |known: &&str| strsim::damerau_levenshtein(property, known);
        let nearest = KEYS.into_iter().min_by_key(distance).unwrap_or_default();
        return Err(format!("which is unknown; the nearest that is known is {nearest}"));
    }
    Ok(())
}

fn replication_factor(factor: i64) -> Result<(), String> {
    if factor == -1 || (1..=100).contains(&factor) {
        return Ok(());
    }
    Err(format!("is {factor}, and must be -1 (the brokers' default) or 1 to 100"))
}

fn is_category(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.len() <= 100
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The category whose topic Kafka does not tell apart from this name: in the names of metrics, `.`
/// and `_` are the same, and a broker refuses the second of two such topics.
fn category_named_like(prefix: &str, name: &str) -> Option<String> {
    let alike = |text: &str| text.replace('.', "_");
    let (prefix, name) = (alike(prefix), alike(name));
    let category = name.strip_prefix(&*prefix)?;
    is_category(category).then(|| category.to_owned())
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ConfigError};

    const NEEDED: &str = "database.url = 'postgres://h/d'\nkafka.bootstrap_servers = 'k:1'\nregistry.url = 'http://r'\n";

    fn problems(text: &str) -> Vec<String> {
        match Config::parse(&format!("{NEEDED}{text}")) {
            Err(ConfigError::Wrong(problems)) => problems.iter().map(ToString::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_topic_of_a_category_can_differ_from_the_others() {
        let text = "[topics.categories.flight]\npartitions = 24\nreplication_factor = 3\n\
            config = { 'min.insync.replicas' = 2, retention.bytes = '5' }\n";
        let topics = Config::parse(&format!("{NEEDED}{text}")).unwrap().topics;
        let flight = &topics.categories["flight"];
        assert_eq!(flight.partitions.map(std::num::NonZeroU16::get), Some(24));
        assert_eq!(flight.replication_factor, Some(3));
        assert_eq!(flight.config["min.insync.replicas"], "2");
        assert_eq!(flight.config["retention.bytes"], "5");
    }

    #[test]
    fn a_wrong_property_of_a_category_is_named_with_its_line_and_the_nearest_right_one() {
        let said = problems(
            "[topics]\npartitions = 3\n[topics.categories.flight]\npartition = 1\npartitions = 0\n\
             replication_factor = 0\n[topics.categories.a-b]\npartitions = 1",
        );
        for line in [
            "topics.categories has flight.partition, which is unknown; the nearest that is known is partitions",
            "topics.categories has flight.partitions, which must be 1 to 10000",
            "topics.categories has flight.replication_factor, which is 0, and must be -1 (the brokers' default) or 1 to 100",
            "topics.categories has \"a-b\": a category begins with a letter; letters, digits and _ follow",
        ] {
            let line = format!("the configuration:6: {line}");
            assert!(said.contains(&line), "{line}\nnot in\n{}", said.join("\n"));
        }
    }

    #[test]
    fn claims_that_kafka_does_not_tell_apart_from_a_category_are_refused() {
        for (prefix, claims) in [("shop.", "shop_topics"), ("shop_", "shop.topics"), ("", "a_b")] {
            let said =
                problems(&format!("topics = {{ prefix = '{prefix}', claims = '{claims}' }}"));
            assert!(said[0].contains("topics.claims is"), "{said:?}");
        }
        for (prefix, claims) in [("shop.", "annals-topics"), ("shop.", "shop.a-b"), ("a", "b")] {
            let text = format!("{NEEDED}topics = {{ prefix = '{prefix}', claims = '{claims}' }}");
            Config::parse(&text).unwrap();
        }
    }
}
