//! The rights of the login in Kafka: to read and write the topics that exist, and to use the
//! transactional ids of the deployment. The relay uses no consumer group.

use std::sync::Arc;

use crate::check::ComponentFindings;
use crate::config::{Config, Delivery, Deployments};
use crate::kafka::inspection::Inspection;
use crate::kafka::rights::{may_use_transactional_ids, unreadable, unwritable};
use crate::report::threads::in_a_thread;

/// The rights that are missing.
#[derive(Debug, Default)]
struct MissingRights {
    read: Vec<String>,
    write: Vec<String>,
    has_no_transactional_ids: bool,
}

pub(super) async fn check(
    config: &Arc<Config>,
    inspection: &Inspection,
    findings: &mut ComponentFindings<'_>,
) {
    let (of, topics) = (Arc::clone(config), topics(config, inspection));
    let tried = in_a_thread("check", move || {
        let is_transactional = of.relay.delivery == Delivery::ExactlyOnce;
        Ok(MissingRights {
            read: unreadable(&of, &topics)?,
            write: unwritable(&of, &topics)?,
            has_no_transactional_ids: is_transactional && !may_use_transactional_ids(&of)?,
        })
    });
    let missing = match tried.await {
        Ok(missing) => missing,
        Err(failure) => {
            let remedy = "correct kafka.properties, or the network";
            return findings.error(failure.in_full(), remedy);
        }
    };
    let allow = |right: &str| {
        let servers = &config.kafka.bootstrap_servers;
        format!(
            "allow it: kafka-acls.sh --bootstrap-server {servers} --add --allow-principal User:... {right}"
        )
    };
    for (operation, topics) in [("Read", missing.read), ("Write", missing.write)] {
        for topic in topics {
            let remedy = allow(&format!("--operation {operation} --topic {topic}"));
            findings.error(format!("the login lacks {operation} on topic {topic}"), remedy);
        }
    }
    if missing.has_no_transactional_ids {
        let prefix = config.transactional_id_prefix();
        let remedy = allow(&format!(
            "--operation Write --operation Describe --resource-pattern-type prefixed --transactional-id {prefix}"
        ));
        let what =
            format!("the login lacks Write on the transactional ids that begin with {prefix}");
        findings.error(what, remedy);
    }
}

/// The topics that the relay reads and writes, of those that exist and have leaders: of events,
/// claims, checkpoints and replays.
fn topics(config: &Config, inspection: &Inspection) -> Vec<String> {
    let is_own = |name: &str| {
        config.generation_of(name, Deployments::Configured).is_some()
            || name == &*config.replays_topic()
    };
    let own = inspection.names.iter().filter(|name| is_own(name));
    let led = inspection.topics.iter().filter(|(_, topic)| topic.leaderless == 0);
    own.chain(led.map(|(name, _)| name)).cloned().collect()
}
