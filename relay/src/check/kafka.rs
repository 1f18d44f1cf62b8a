//! Kafka: the cluster's limits, the topics, the rights on them, and whether missing ones could be
//! created.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::check::{ComponentFindings, rights};
use crate::config::{Config, Delivery, Deployments};
use crate::kafka::inspection::{Creation, InspectedTopic, Inspection, inspect, try_creation};
use crate::kafka::topic_plan::TopicPlan;
use crate::kafka::topic_risks::{REPLICATION, risks};
use crate::report::threads::in_a_thread;

/// The topic in which brokers keep the state of transactions: they create it for the first one.
pub(super) const TRANSACTIONS: &str = "__transaction_state";
/// The name of a topic that is never created: the broker only validates the request.
const CATEGORY_TRIED: &str = "annals_check";
/// The size of a batch by default; see `kafka.properties`.
const BATCH_BYTES_DEFAULT: i64 = 524_288;
/// The setting by which brokers refuse records of transactions that they do not know (KIP-890).
const VERIFICATION: &str = "transaction.partition.verification.enable";

/// Whether the relay can begin transactions, by the state of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transactions {
    Possible,
    Impossible,
    /// It delivers without them.
    NotUsed,
}

pub(super) async fn check(
    config: &Arc<Config>,
    topics: Vec<String>,
    checkpoints: Option<TopicPlan>,
    findings: &mut ComponentFindings<'_>,
) {
    let of = Arc::clone(config);
    let events: BTreeSet<String> = topics.into_iter().collect();
    let inspected = in_a_thread("check", move || {
        let is_wanted = |name: &str| events.contains(name) || is_needed(&of, name);
        Ok((inspect(&of, is_wanted)?, events))
    });
    let (inspection, events) = match inspected.await {
        Ok(inspected) => inspected,
        Err(failure) => {
            let remedy =
                "correct kafka.bootstrap_servers, the login in kafka.properties, or the network";
            return findings.error(failure.in_full(), remedy);
        }
    };
    of_cluster(config, &inspection, findings);
    for (name, topic) in &inspection.topics {
        of_replicas(config, name, topic, findings);
        if events.contains(name) {
            of_topic(config, name, topic, findings);
        }
    }
    let transactions = transactions(config, &inspection, findings).await;
    rights::check(config, &inspection, transactions, findings).await;
    creation(config, &inspection, checkpoints, findings).await;
}

/// Whether it is a topic without events that the relay or its transactions need.
fn is_needed(config: &Config, name: &str) -> bool {
    *name == *config.topics.claims
        || config.generation_of(name, Deployments::Configured).is_some()
        || (config.relay.delivery == Delivery::ExactlyOnce && name == TRANSACTIONS)
}

fn of_cluster(config: &Config, of: &Inspection, findings: &mut ComponentFindings<'_>) {
    if of.broker.is_empty() {
        let remedy =
            "allow DescribeConfigs on the cluster to have the limits of the brokers checked";
        findings.warning("the settings of the brokers cannot be read", remedy);
    }
    let timeout = i64::try_from(config.kafka.transaction_timeout.as_millis()).unwrap_or(i64::MAX);
    if let Some(max) = of.number("transaction.max.timeout.ms").filter(|max| *max < timeout) {
        let remedy = format!("set kafka.transaction_timeout_ms to {max} at most");
        findings.error(format!("brokers refuse transactions of {timeout} ms"), remedy);
    }
    if !of.broker.is_empty() && of.broker.get(VERIFICATION).is_none_or(|value| value != "true") {
        let remedy = "run Kafka 3.6 or later with this setting true (its default): otherwise a late record can leave a \
                      transaction open that no producer ends, and `read_committed` consumers wait for ever";
        findings
            .warning(format!("the brokers do not verify transactions ({VERIFICATION})"), remedy);
    }
    if of.brokers == 1 {
        let remedy = "in production run three brokers, with topics.replication_factor = 3 and min.insync.replicas = 2";
        findings.warning("the cluster has one broker", remedy);
    }
}

/// Whether partitions can be written to: now, and while one broker is away.
fn of_replicas(
    config: &Config,
    name: &str,
    of: &InspectedTopic,
    findings: &mut ComponentFindings<'_>,
) {
    const START: &str = "start the brokers that have the others";
    if of.leaderless > 0 {
        let remedy = "start the brokers that lead them";
        findings
            .error(format!("{} partitions of topic {name} have no leader", of.leaderless), remedy);
    }
    let count = |replicas: usize| i64::try_from(replicas).unwrap_or(i64::MAX);
    let (replicas, in_sync) = (count(of.replicas), of.in_sync.map(count));
    let needed = of.number("min.insync.replicas").unwrap_or(1);
    let lower = set(config, name, &format!("min.insync.replicas={}", (replicas - 1).max(1)));
    if needed > replicas {
        let what = format!("topic {name} has {replicas} replicas, and writes need {needed}");
        findings.error(what, lower);
    } else if let Some(in_sync) = in_sync.filter(|in_sync| *in_sync < needed) {
        let what = format!("topic {name} has {in_sync} replicas in sync, and writes need {needed}");
        findings.error(what, START);
    } else if let Some(in_sync) = in_sync.filter(|in_sync| *in_sync < replicas) {
        findings
            .warning(format!("topic {name} has {in_sync} of {replicas} replicas in sync"), START);
    } else if needed == replicas && replicas > 1 {
        let what = format!("topic {name} cannot be written to while one broker is away");
        findings.warning(what, lower);
    }
}

/// The command that changes a setting of a topic.
fn set(config: &Config, topic: &str, setting: &str) -> String {
    let servers = &config.kafka.bootstrap_servers;
    format!(
        "kafka-configs.sh --bootstrap-server {servers} --alter --topic {topic} --add-config {setting}"
    )
}

/// The settings of a topic of events.
fn of_topic(
    config: &Config,
    name: &str,
    of: &InspectedTopic,
    findings: &mut ComponentFindings<'_>,
) {
    let set = |setting: &str| set(config, name, setting);
    if of.settings.is_empty() {
        let remedy = format!("allow DescribeConfigs on topic {name}");
        return findings.warning(format!("the settings of topic {name} cannot be read"), remedy);
    }
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
    let batch = config.kafka.properties.get("batch.size");
    let batch = batch.and_then(|of| of.expose().parse().ok()).unwrap_or(BATCH_BYTES_DEFAULT);
    if let Some(max) = of.number("max.message.bytes").filter(|max| *max < batch) {
        let remedy = set(&format!("max.message.bytes={}", 2 * batch));
        findings.warning(
            format!("topic {name} takes batches of {max} bytes: the relay makes no larger ones for it, and quarantines a larger event"),
            remedy,
        );
    }
}

/// Whether brokers can keep the state of transactions. A broker that is away counts as one that the
/// topic can have a replica on: only the controller knows how many there are.
async fn transactions(
    config: &Arc<Config>,
    of: &Inspection,
    findings: &mut ComponentFindings<'_>,
) -> Transactions {
    if config.relay.delivery != Delivery::ExactlyOnce {
        return Transactions::NotUsed;
    }
    if let Some(topic) = of.topics.get(TRANSACTIONS) {
        let is_writable = topic.is_writable();
        return if is_writable { Transactions::Possible } else { Transactions::Impossible };
    }
    let (Some(replicas), Some(in_sync)) = (
        of.number("transaction.state.log.replication.factor"),
        of.number("transaction.state.log.min.isr"),
    ) else {
        return Transactions::Possible;
    };
    let brokers = i64::try_from(of.brokers).unwrap_or(i64::MAX);
    let are_enough = in_sync <= brokers.min(replicas)
        && (replicas <= brokers || could_replicate(config, replicas).await);
    if are_enough {
        return Transactions::Possible;
    }
    let remedy = "start more brokers, or lower transaction.state.log.replication.factor and transaction.state.log.min.isr of the \
                  brokers";
    findings.error("there are too few brokers for transactions", remedy);
    Transactions::Impossible
}

/// Whether the cluster could create a topic with so many replicas; not, if the login may not ask.
async fn could_replicate(config: &Arc<Config>, replicas: i64) -> bool {
    let mut plan = TopicPlan::events(&config.topics, &config.topic(CATEGORY_TRIED));
    plan.replication_factor = i32::try_from(replicas).unwrap_or(i32::MAX);
    let config = Arc::clone(config);
    let tried = in_a_thread("check", move || Ok(try_creation(&config, &plan)?)).await;
    matches!(tried, Ok(Creation::Possible))
}

/// Whether missing topics can be created.
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
        Ok(plans.map(|plan| try_creation(&wanted, &plan)).collect::<Vec<_>>())
    });
    let mut refusals = BTreeSet::new();
    for tried in tried.await.into_iter().flatten() {
        match tried {
            Ok(Creation::Possible) => {}
            Ok(Creation::TooFewBrokers) => {
                let reason = "there are too few brokers for topics.replication_factor";
                refusals.insert(reason.to_owned());
            }
            Ok(Creation::Refused(failure)) | Err(failure) => {
                refusals.insert(failure.to_string());
            }
        }
    }
    for reason in refusals {
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

    fn cluster(broker: &[(&str, &str)]) -> Vec<(Severity, String)> {
        let broker = broker.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let of = Inspection { brokers: 3, broker: broker.collect(), ..Inspection::default() };
        found(|findings| of_cluster(&Config::example(), &of, findings))
    }

    #[test]
    fn brokers_and_topics_that_do_not_tell_their_settings_are_named() {
        assert_eq!(cluster(&[(VERIFICATION, "true")]), []);
        let unknown = (Warning, "the settings of the brokers cannot be read".to_owned());
        assert_eq!(cluster(&[]), [unknown]);
        let of = InspectedTopic { partitions: 4, replicas: 3, ..InspectedTopic::default() };
        let topic = found(|findings| of_topic(&Config::example(), "t", &of, findings));
        assert_eq!(topic, [(Warning, "the settings of topic t cannot be read".to_owned())]);
    }

    #[test]
    fn of_replicas_that_are_away_the_worst_consequence_is_named() {
        for (replicas, in_sync, needed, expected) in [
            (3, Some(3), "2", None),
            (3, Some(2), "2", Some((Warning, "topic t has 2 of 3 replicas in sync"))),
            (3, Some(1), "2", Some((Error, "topic t has 1 replicas in sync, and writes need 2"))),
            (1, Some(1), "2", Some((Error, "topic t has 1 replicas, and writes need 2"))),
            (
                3,
                Some(3),
                "3",
                Some((Warning, "topic t cannot be written to while one broker is away")),
            ),
            (1, Some(1), "1", None),
            (3, None, "2", None),
        ] {
            let settings = BTreeMap::from([("min.insync.replicas".to_owned(), needed.to_owned())]);
            let of = InspectedTopic { partitions: 4, replicas, in_sync, leaderless: 0, settings };
            let topic = found(|findings| of_replicas(&Config::example(), "t", &of, findings));
            let expected = expected.map(|(severity, what)| (severity, what.to_owned()));
            assert_eq!(topic, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
