//! The difference between planned topics and those of the broker.

use std::fmt;

use serde::Serialize;

use crate::kafka::inspection::{InspectedTopic, Inspection};
use crate::kafka::topic_plan::{Difference, TopicPlan};

/// A difference of a topic, and how it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TopicChange {
    pub(crate) topic: String,
    #[serde(flatten)]
    pub(crate) kind: ChangeKind,
}

/// The kind of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub(crate) enum ChangeKind {
    /// The topic is missing, and can be created.
    Create { partitions: i32, replication_factor: i32 },
    /// A setting differs, and can be changed.
    Set { setting: String, found: String, planned: String, consequence: &'static str },
    /// Something that only an operator can decide or do.
    Manual { what: String, remedy: String },
}

/// The changes that make the topics of a cluster those of the plans.
pub(crate) fn changes(
    plans: &[TopicPlan],
    inspection: &Inspection,
    servers: &str,
) -> Vec<TopicChange> {
    let of_plan = |plan: &TopicPlan| {
        let kinds = match inspection.topics.get(&plan.name) {
            Some(found) => differences(plan, found, servers),
            None => vec![missing(plan, &inspection.names)],
        };
        kinds.into_iter().map(|kind| TopicChange { topic: plan.name.clone(), kind }).collect()
    };
    plans.iter().flat_map(|plan| -> Vec<TopicChange> { of_plan(plan) }).collect()
}

/// Brokers refuse a topic whose name differs from another one only in `.` and `_`.
fn missing(plan: &TopicPlan, names: &[String]) -> ChangeKind {
    let alike = |name: &str| name.replace('.', "_");
    match names.iter().find(|name| alike(name) == alike(&plan.name)) {
        Some(other) => ChangeKind::Manual {
            what: format!(
                "cannot be created beside topic {other}: . and _ are the same in the names of Kafka's metrics"
            ),
            remedy: format!("choose another topics.prefix, or delete {other} if nothing uses it"),
        },
        None => ChangeKind::Create {
            partitions: plan.partitions,
            replication_factor: plan.replication_factor,
        },
    }
}

fn differences(plan: &TopicPlan, found: &InspectedTopic, servers: &str) -> Vec<ChangeKind> {
    let name = &plan.name;
    let mut kinds = Vec::new();
    let partitions = i32::try_from(found.partitions).unwrap_or(i32::MAX);
    if partitions != plan.partitions {
        kinds.push(ChangeKind::Manual {
            what: format!("has {partitions} partitions, not {}", plan.partitions),
            remedy: "the partition of a stream depends on the number: declare the existing one in [topics.categories], or \
                     publish under another topics.prefix"
                .to_owned(),
        });
    }
    let replicas = i32::try_from(found.replicas).unwrap_or(i32::MAX);
    if plan.replication_factor != -1 && replicas != plan.replication_factor {
        kinds.push(ChangeKind::Manual {
            what: format!("has {replicas} replicas, not {}", plan.replication_factor),
            remedy: format!(
                "move its partitions: kafka-reassign-partitions.sh --bootstrap-server {servers} --execute ..."
            ),
        });
    }
    if found.settings.is_empty() {
        kinds.push(ChangeKind::Manual {
            what: "does not show its settings".to_owned(),
            remedy: format!("allow DescribeConfigs on topic {name}"),
        });
    }
    let settings = plan.differences(&found.settings).into_iter();
    kinds.extend(settings.map(|Difference { setting, found, planned, consequence }| {
        ChangeKind::Set { setting, found, planned, consequence }
    }));
    kinds
}

impl fmt::Display for TopicChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, kind } = self;
        match kind {
            ChangeKind::Create { partitions, replication_factor: -1 } => {
                write!(f, "create  {topic}: {partitions} partitions, the brokers' replication")
            }
            ChangeKind::Create { partitions, replication_factor } => {
                write!(f, "create  {topic}: {partitions} partitions, {replication_factor} replicas")
            }
            ChangeKind::Set { setting, found, planned, consequence } => {
                write!(f, "set     {topic}: {setting} from {found} to {planned}: {consequence}")
            }
            ChangeKind::Manual { what, remedy } => write!(f, "manual  {topic} {what}: {remedy}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_topic_is_created_corrected_or_left_to_the_operator() {
        let plan = TopicPlan::events(&Config::example().topics, "shop.flight");
        let plans = std::slice::from_ref(&plan);
        let mut inspection = Inspection::default();
        let create = ChangeKind::Create { partitions: 12, replication_factor: -1 };
        assert_eq!(changes(plans, &inspection, "k:1")[0].kind, create);
        inspection.names.push("shop_flight".to_owned());
        let said = changes(plans, &inspection, "k:1")[0].to_string();
        assert!(said.starts_with("manual  shop.flight cannot be created beside topic shop_flight"));

        let mut found = InspectedTopic {
            partitions: 12,
            settings: plan.settings.clone(),
            ..InspectedTopic::default()
        };
        inspection.topics.insert(plan.name.clone(), found);
        assert_eq!(changes(plans, &inspection, "k:1"), []);
        found = InspectedTopic {
            partitions: 3,
            replicas: 1,
            leaderless: 0,
            in_sync: None,
            settings: plan.settings.clone(),
        };
        found.settings.insert("retention.ms".to_owned(), "1".to_owned());
        inspection.topics.insert(plan.name.clone(), found);
        let three = TopicPlan { replication_factor: 3, ..plan.clone() };
        let said = changes(&[three], &inspection, "k:1");
        assert!(said[1].to_string().contains("has 1 replicas, not 3: move"), "{said:?}");
        let said = changes(plans, &inspection, "k:1");
        assert!(said[0].to_string().contains("has 3 partitions, not 12"), "{said:?}");
        assert!(
            said[1].to_string().starts_with("set     shop.flight: retention.ms from 1 to -1: ")
        );
        assert_eq!(said.len(), 2);
    }
}
