//! The check before the first start: what will not work, and what to do about it. It changes
//! nothing.

mod database;
mod kafka;
mod registry;
mod rights;

use std::fmt;
use std::sync::Arc;

use annals_store::Store;
use serde::Serialize;

use crate::config::{Config, Delivery};
use crate::kafka::topic_plan::TopicPlan;
use crate::state::{overview, store_facts};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// The relay will not publish, or will lose its promises.
    Error,
    /// It will publish, with a risk.
    Warning,
}

/// Something that an operator should know before the first start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct CheckFinding {
    /// `database`, `kafka` or `registry`.
    pub(crate) component: &'static str,
    pub(crate) severity: Severity,
    /// The fault.
    pub(crate) what: String,
    /// The correction.
    pub(crate) remedy: String,
}

/// From which values on something is a finding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CheckLimits {
    /// The age of open and prepared transactions in seconds.
    pub(crate) transaction_seconds_max: u32,
}

/// Collects findings about a component.
struct ComponentFindings<'a> {
    component: &'static str,
    all: &'a mut Vec<CheckFinding>,
}

impl ComponentFindings<'_> {
    fn error(&mut self, what: impl Into<String>, remedy: impl Into<String>) {
        self.push(Severity::Error, what.into(), remedy.into());
    }

    fn warning(&mut self, what: impl Into<String>, remedy: impl Into<String>) {
        self.push(Severity::Warning, what.into(), remedy.into());
    }

    fn push(&mut self, severity: Severity, what: String, remedy: String) {
        self.all.push(CheckFinding { component: self.component, severity, what, remedy });
    }
}

/// What a part of the check finds.
#[cfg(test)]
fn found(check: impl FnOnce(&mut ComponentFindings<'_>)) -> Vec<(Severity, String)> {
    let mut all = Vec::new();
    check(&mut ComponentFindings { component: "", all: &mut all });
    all.into_iter().map(|finding| (finding.severity, finding.what)).collect()
}

/// Checks the database, Kafka and the registry.
pub(crate) async fn check(
    config: &Arc<Config>,
    store: &Store,
    limits: CheckLimits,
) -> Vec<CheckFinding> {
    let mut all = Vec::new();
    let is_migrated = database::check(
        config,
        store,
        limits,
        &mut ComponentFindings { component: "database", all: &mut all },
    )
    .await;
    let categories =
        if is_migrated { store.categories().await.unwrap_or_default() } else { Vec::new() };
    let topics: Vec<String> = categories.iter().map(|of| config.topic(of.as_str())).collect();
    // Without a store it has no topic of checkpoints.
    let facts = if is_migrated { store_facts(store).await.ok() } else { None };
    let of_store = facts.map(|(facts, _)| Arc::new(config.as_ref().clone().of_store(facts)));
    let checkpoints = match &of_store {
        Some(config) => checkpoints(config, store).await,
        None => None,
    };
    let of_store = of_store.as_ref().unwrap_or(config);
    let findings = &mut ComponentFindings { component: "kafka", all: &mut all };
    kafka::check(of_store, topics, checkpoints, findings).await;
    registry::check(config, store, &mut ComponentFindings { component: "registry", all: &mut all })
        .await;
    all
}

/// The plan of the topic of checkpoints, if the deployment has one.
async fn checkpoints(config: &Config, store: &Store) -> Option<TopicPlan> {
    if config.relay.delivery != Delivery::ExactlyOnce {
        return None;
    }
    let deployment = overview::deployment(store, &config.publication()).await.ok()?;
    let generation = deployment.generation.unwrap_or(1).unsigned_abs();
    let topic = config.clone().in_generation(generation).checkpoint_topic();
    Some(TopicPlan::checkpoints(&config.topics, &topic, deployment.shards.unsigned_abs()))
}

impl fmt::Display for CheckFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { component, severity, what, remedy } = self;
        let severity = match severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity:<8} {component:<9} {what}: {remedy}")
    }
}
