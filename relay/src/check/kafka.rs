//! Kafka: the cluster's limits, the topics, the rights on them, and whether missing ones could be
//! created.

use std::sync::Arc;

use crate::check::{ComponentFindings, rights};
use crate::config::{Config, Delivery};
use crate::kafka::inspection::{InspectedTopic, Inspection, could_create, inspect};
use crate::kafka::topic_plan::TopicPlan;
use crate::kafka::topic_risks::{REPLICATION, risks};
use crate::report::threads::in_a_thread;

/// The name of a topic that is never created: the broker only validates the request.
const CATEGORY_TRIED: &str = "annals_check";
/// The size of a batch by default; see `kafka.properties`.
const BATCH_BYTES_DEFAULT: i64 = 524_288;
/// The setting by which brokers refuse records of transactions that they do not know (KIP-890).
const VERIFICATION: &str = "transaction.partition.verification.enable";

pub(super) async fn check(
    config: &Arc<Config>,
    topics: Vec<String>,
    checkpoints: Option<TopicPlan>,
    findings: &mut ComponentFindings<'_>,
) {
    let of = Arc::clone(config);
    let inspected = in_a_thread("check", move || {
        let all: Vec<String> = topics.into_iter().chain([of.topics.claims.clone()]).collect();
        Ok(inspect(&of, &all)?)
    });
    let inspection = match inspected.await {
        Ok(inspection) => inspection,
        Err(failure) => {
            let remedy =
                "correct kafka.bootstrap_servers, the login in kafka.properties, or the network";
            return findings.error(failure.in_full(), remedy);
        }
    };
    of_cluster(config, &inspection, findings);
    for (name, topic) in inspection.topics.iter().filter(|(name, _)| **name != config.topics.claims)
    {
        of_topic(config, name, topic, findings);
    }
    rights::check(config, &inspection, findings).await;
    creation(config, &inspection, checkpoints, findings).await;
}

fn of_cluster(config: &Config, of: &Inspection, findings: &mut ComponentFindings<'_>) {
    let number = |name: &str| of.broker.get(name).and_then(|value| value.parse::<i64>().ok());
    if of.broker.is_empty() {
        let remedy =
            "allow DescribeConfigs on the cluster to have the limits of the brokers checked";
        findings.warning("the settings of the brokers cannot be read", remedy);
    }
    let timeout = i64::try_from(config.kafka.transaction_timeout.as_millis()).unwrap_or(i64::MAX);
    if let Some(max) = number("transaction.max.timeout.ms").filter(|max| *max < timeout) {
        let remedy = format!("set kafka.transaction_timeout_ms to {max} at most");
        findings.error(format!("brokers refuse transactions of {timeout} ms"), remedy);
    }
    if !of.broker.is_empty() && of.broker.get(VERIFICATION).is_none_or(|value| value != "true") {
        let remedy = "run Kafka 3.6 or later with this setting true (its default): otherwise a late record can leave a \
                      transaction open that no producer ends, and `read_committed` consumers wait for ever";
        findings
            .warning(format!("the brokers do not verify transactions ({VERIFICATION})"), remedy);
    }
    let brokers = i64::try_from(of.brokers).unwrap_or(i64::MAX);
    let replication = number("transaction.state.log.replication.factor");
    if config.relay.delivery == Delivery::ExactlyOnce && replication.is_some_and(|of| of > brokers)
    {
        let remedy = "start more brokers, or lower transaction.state.log.replication.factor";
        findings.error("there are too few brokers for transactions", remedy);
    }
    if i64::from(config.topics.replication_factor) > brokers {
        let remedy = format!("set topics.replication_factor to {brokers} at most");
        findings.error("there are too few brokers for topics.replication_factor", remedy);
    }
    if brokers == 1 {
        let remedy = "in production run three brokers, with topics.replication_factor = 3 and min.insync.replicas = 2";
        findings.warning("the cluster has one broker", remedy);
    }
}

fn of_topic(
    config: &Config,
    name: &str,
    of: &InspectedTopic,
    findings: &mut ComponentFindings<'_>,
) {
    let servers = &config.kafka.bootstrap_servers;
    let set = |setting: &str| {
        format!(
            "kafka-configs.sh --bootstrap-server {servers} --alter --topic {name} --add-config {setting}"
        )
    };
    if of.leaderless > 0 {
        let remedy = "start the brokers that lead them";
        findings
            .error(format!("{} partitions of topic {name} have no leader", of.leaderless), remedy);
    }
    if of.settings.is_empty() {
        let remedy = format!("allow DescribeConfigs on topic {name}");
        return findings.warning(format!("the settings of topic {name} cannot be read"), remedy);
    }
    let number = |name: &str| of.settings.get(name).and_then(|value| value.parse::<i64>().ok());
    for difference in TopicPlan::events(&config.topics, name).differences(&of.settings) {
        let setting = format!("{}={}", difference.setting, difference.planned);
        findings.warning(format!("topic {name}: {difference}"), set(&setting));
    }
    for risk in risks(Some(of.replicas), &of.settings) {
        let remedy = if risk.setting == REPLICATION {
            "raise it to three brokers, with kafka-reassign-partitions.sh".to_owned()
        } else {
            set(&format!("{}={}", risk.setting, risk.safe))
        };
        findings.warning(format!("topic {name}: {risk}"), remedy);
    }
    let in_sync = number("min.insync.replicas").unwrap_or(1);
    let replicas = i64::try_from(of.replicas).unwrap_or(i64::MAX);
    if in_sync > replicas {
        let remedy = set(&format!("min.insync.replicas={}", (replicas - 1).max(1)));
        findings.error(
            format!("topic {name} has {replicas} replicas, and writes need {in_sync}"),
            remedy,
        );
    } else if in_sync == replicas && replicas > 1 {
        let remedy = set(&format!("min.insync.replicas={}", replicas - 1));
        findings
            .warning(format!("topic {name} cannot be written to while one broker is away"), remedy);
    }
    let batch = config.kafka.properties.get("batch.size");
    let batch = batch.and_then(|of| of.expose().parse().ok()).unwrap_or(BATCH_BYTES_DEFAULT);
    if let Some(max) = number("max.message.bytes").filter(|max| *max < batch) {
        let remedy = set(&format!("max.message.bytes={}", 2 * batch));
        findings.warning(
            format!("topic {name} takes batches of {max} bytes: the relay makes no larger ones for it, and quarantines a larger event"),
            remedy,
        );
    }
}

async fn creation(
    config: &Arc<Config>,
    of: &Inspection,
    checkpoints: Option<TopicPlan>,
    findings: &mut ComponentFindings<'_>,
) {
    let claims = TopicPlan::claims(&config.topics);
    if !config.topics.create {
        if !of.topics.contains_key(&claims.name) {
            let remedy = format!("create it: {}", claims.command(&config.kafka.bootstrap_servers));
            findings.error(
                format!("topic {} does not exist, and topics.create is off", claims.name),
                remedy,
            );
        }
        return;
    }
    let events = TopicPlan::events(&config.topics, &config.topic(CATEGORY_TRIED));
    let wanted = Arc::clone(config);
    let tried = in_a_thread("check", move || {
        let plans = [events, claims].into_iter().chain(checkpoints);
        let refused = plans.filter_map(|plan| could_create(&wanted, &plan).err());
        Ok(refused.map(|failure| failure.to_string()).collect::<Vec<_>>())
    });
    for reason in tried.await.into_iter().flatten() {
        let remedy = "allow Create, correct [topics] replication_factor and config, or set topics.create = false";
        findings.error(format!("a topic cannot be created: {reason}"), remedy);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::check::Severity::{Error, Warning};
    use crate::check::{Severity, found};

    const IN_SYNC: &str = "min.insync.replicas";

    fn cluster(brokers: usize, broker: &[(&str, &str)]) -> Vec<(Severity, String)> {
        let broker = broker.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let of = Inspection { brokers, broker: broker.collect(), ..Inspection::default() };
        found(|findings| of_cluster(&Config::example(), &of, findings))
    }

    fn topic(of: &InspectedTopic) -> Vec<(Severity, String)> {
        found(|findings| of_topic(&Config::example(), "t", of, findings))
    }

    #[test]
    fn brokers_that_are_too_few_for_transactions_or_do_not_tell_their_settings_are_named() {
        let all = [(VERIFICATION, "true"), ("transaction.state.log.replication.factor", "3")];
        assert_eq!(cluster(3, &all), []);
        let few = (Error, "there are too few brokers for transactions".to_owned());
        assert_eq!(cluster(2, &all), [few]);
        let unknown = (Warning, "the settings of the brokers cannot be read".to_owned());
        assert_eq!(cluster(3, &[]), [unknown]);
    }

    #[test]
    fn topics_without_leaders_or_settings_or_a_broker_to_spare_are_named() {
        let mut settings = TopicPlan::events(&Config::example().topics, "t").settings;
        settings.insert(IN_SYNC.to_owned(), "2".to_owned());
        let mut of = InspectedTopic { partitions: 4, replicas: 3, leaderless: 0, settings };
        assert_eq!(topic(&of), []);
        of.settings.insert(IN_SYNC.to_owned(), "3".to_owned());
        let tight = (Warning, "topic t cannot be written to while one broker is away".to_owned());
        assert_eq!(topic(&of), [tight]);
        (of.leaderless, of.settings) = (2, BTreeMap::new());
        let leaderless = (Error, "2 partitions of topic t have no leader".to_owned());
        let unknown = (Warning, "the settings of topic t cannot be read".to_owned());
        assert_eq!(topic(&of), [leaderless, unknown]);
    }
}
