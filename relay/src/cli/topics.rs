//! The subcommands `topics plan` and `topics apply`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use annals_store::Store;
use clap::Subcommand;
use tokio::time::Instant;

use crate::cli::output::Output;
use crate::config::{Config, Delivery};
use crate::driver::topic_claims;
use crate::kafka::claims_topic::ClaimsTopic;
use crate::kafka::inspection::inspect;
use crate::kafka::topic_admin::TopicAdmin;
use crate::kafka::topic_changes::{ChangeKind, TopicChange, changes};
use crate::kafka::topic_plan::{TopicPlan, topics_per_request};
use crate::report::failure::Failure;
use crate::report::progress::Progress;
use crate::report::threads::in_a_thread;
use crate::state::{overview, store_facts};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Time within which brokers show a change that the controller has acknowledged.
const VISIBLE_WITHIN: Duration = Duration::from_secs(10);
/// Time between two looks at the topics.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The operations on topics.
#[derive(Debug, Clone, Subcommand)]
pub enum TopicsCommand {
    /// Print how the topics of the broker differ from the declared ones, and change nothing.
    ///
    /// Declared by `[topics]`, `[topics.config]` and `[topics.categories]`: the topics of the
    /// store's categories and of `[topics.categories]`, and those of claims and checkpoints. Exits
    /// with 0 without a difference, with 3 if there is one, with 1 after an error.
    Plan,
    /// Create missing topics, correct settings, and print the remaining differences: numbers of
    /// partitions and replicas are never changed.
    ///
    /// Exits with 0 if nothing is left, with 3 if something is, with 1 after an error.
    Apply,
}

/// Executes it; returns the output, and whether no difference is left.
pub(super) async fn execute(
    config: Config,
    store: &Store,
    command: &TopicsCommand,
    output: Output,
) -> Result<(String, bool)> {
    let (facts, _) = store_facts(store).await?;
    let deployment = overview::deployment(store, &config.publication()).await?;
    let generation = deployment.generation.unwrap_or(1).unsigned_abs();
    let config = config.of_store(facts).in_generation(generation);
    let plans = plans(&config, store, deployment.shards.unsigned_abs()).await?;
    let config = Arc::new(config);
    match command {
        TopicsCommand::Plan => {
            let left = planned(&config, &plans).await?;
            Ok((text(&[], &left, output)?, left.is_empty()))
        }
        TopicsCommand::Apply => {
            let wanted = planned(&config, &plans).await?;
            // It refuses a copy of a database, and creates the topic of claims.
            topic_claims::begin(Config::clone(&config), store).await?;
            apply(&config, &plans).await?;
            let left = left(&config, &plans, &wanted).await?;
            let applied =
                wanted.into_iter().filter(|change| !left.contains(change)).collect::<Vec<_>>();
            Ok((text(&applied, &left, output)?, left.is_empty()))
        }
    }
}

/// The topics that a relay needs.
async fn plans(config: &Config, store: &Store, shards: u16) -> Result<Vec<TopicPlan>> {
    let known = store.categories().await?;
    let mut categories: BTreeSet<&str> =
        config.topics.categories.keys().map(String::as_str).collect();
    categories.extend(known.iter().map(annals_store::Category::as_str));
    let topics = &config.topics;
    let events = categories.into_iter().map(|of| TopicPlan::events(topics, &config.topic(of)));
    let mut plans: Vec<TopicPlan> = events.chain([TopicPlan::claims(topics)]).collect();
    if config.relay.delivery == Delivery::ExactlyOnce {
        plans.push(TopicPlan::checkpoints(topics, &config.checkpoint_topic(), shards));
    }
    Ok(plans)
}

async fn planned(config: &Arc<Config>, plans: &[TopicPlan]) -> Result<Vec<TopicChange>, Failure> {
    let (config, plans) = (Arc::clone(config), plans.to_vec());
    in_a_thread("topics", move || {
        let names: BTreeSet<&str> = plans.iter().map(|plan| plan.name.as_str()).collect();
        let inspection = inspect(&config, |name| names.contains(name))?;
        Ok(changes(&plans, &inspection, &config.kafka.bootstrap_servers))
    })
    .await
}

/// The differences after [`apply`]. A broker can answer with the old state for a while: it learns
/// of a change after the controller has acknowledged it.
async fn left(
    config: &Arc<Config>,
    plans: &[TopicPlan],
    wanted: &[TopicChange],
) -> Result<Vec<TopicChange>, Failure> {
    let deadline = Instant::now() + VISIBLE_WITHIN;
    loop {
        let left = planned(config, plans).await?;
        let is_applied = |change: &TopicChange| {
            !matches!(change.kind, ChangeKind::Manual { .. }) && wanted.contains(change)
        };
        if Instant::now() >= deadline || !left.iter().any(is_applied) {
            return Ok(left);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Claims and creates missing topics, and corrects settings.
async fn apply(config: &Arc<Config>, plans: &[TopicPlan]) -> Result<(), Failure> {
    let wanted = planned(config, plans).await?;
    let (config, plans) = (Arc::clone(config), plans.to_vec());
    in_a_thread("topics", move || {
        let admin = TopicAdmin::open(&config)?;
        let claimed = plans.iter().map(|plan| plan.name.clone());
        let claimed: Vec<String> = claimed.filter(|name| *name != config.topics.claims).collect();
        let refused = ClaimsTopic::new(&config).claim(&admin, &claimed)?;
        if let Some(failure) = refused.into_values().next() {
            return Err(failure);
        }
        let is_missing = |plan: &&TopicPlan| {
            let create = |of: &TopicChange| {
                of.topic == plan.name && matches!(of.kind, ChangeKind::Create { .. })
            };
            wanted.iter().any(create)
        };
        let missing: Vec<&TopicPlan> = plans.iter().filter(is_missing).collect();
        let mut settings: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
        for change in &wanted {
            if let ChangeKind::Set { setting, planned, .. } = &change.kind {
                settings.entry(&change.topic).or_default().insert(setting, planned);
            }
        }
        let changed = missing.len() + settings.len();
        let mut progress = Progress::new("topics changed", changed as u64);
        for some in missing.chunks(topics_per_request(&config.topics)) {
            admin.create(some)?.into_values().collect::<Result<Vec<()>, _>>()?;
            progress.advance(some.len() as u64);
        }
        for (topic, settings) in settings {
            admin.configure(topic, &settings)?;
            progress.advance(1);
        }
        Ok(())
    })
    .await
}

fn text(applied: &[TopicChange], left: &[TopicChange], output: Output) -> Result<String> {
    if output == Output::Json {
        let all = serde_json::json!({ "applied": applied, "differences": left });
        return Ok(format!("{all}\n"));
    }
    let mut text: String = applied.iter().map(|of| format!("applied: {of}\n")).collect();
    text.extend(left.iter().map(|of| format!("{of}\n")));
    text.push_str(&format!("{} differences\n", left.len()));
    Ok(text)
}
