//! The rights of the login in Kafka: to read and write the topics that exist, and to use the
//! transactional ids of the deployment. The relay uses no consumer group.

use std::sync::Arc;

use crate::check::ComponentFindings;
use crate::check::kafka::{TRANSACTIONS, Transactions};
use crate::config::Config;
use crate::kafka::inspection::{InspectedTopic, Inspection};
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
    transactions: Transactions,
    findings: &mut ComponentFindings<'_>,
) {
    let of = Arc::clone(config);
    // Where no right can be tried, a request would be repeated until its time limit.
    let read = topics(config, inspection, |topic| topic.leaderless == 0);
    let written = topics(config, inspection, InspectedTopic::is_writable);
    let tried = in_a_thread("check", move || {
        Ok(MissingRights {
            read: unreadable(&of, &read)?,
            write: unwritable(&of, &written)?,
            has_no_transactional_ids: transactions == Transactions::Possible
                && !may_use_transactional_ids(&of)?,
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

/// The topics that the relay reads and writes, of those that exist and can be used: of events,
/// claims, checkpoints and replays.
fn topics(
    config: &Config,
    inspection: &Inspection,
    is_usable: impl Fn(&InspectedTopic) -> bool,
) -> Vec<String> {
    let replays = config.replays_topic();
    let replays = inspection.names.iter().filter(|name| **name == *replays);
    let own = inspection.topics.iter().filter(|(name, _)| *name != TRANSACTIONS);
    let usable = own.filter(|(_, topic)| is_usable(topic)).map(|(name, _)| name);
    replays.chain(usable).cloned().collect()
}
