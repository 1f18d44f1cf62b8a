//! The subcommand `release-topics`.

use std::fmt::Write as _;
use std::sync::Arc;

use annals_store::Store;
use uuid::Uuid;

use crate::cli::output::Output;
use crate::config::Config;
use crate::kafka::claims_topic::{ClaimsTopic, summary};
use crate::kafka::topic_admin::TopicAdmin;
use crate::model::execution::Execution;
use crate::report::threads::in_a_thread;
use crate::state::store_facts;

/// Why topics are not released.
#[derive(Debug, thiserror::Error)]
#[error("say why the topics are released: --reason must not be empty")]
struct NoReason;

/// Whose topics are released: those of another store, or of another publication than the configured
/// one.
pub(super) struct Publication {
    pub(super) store: Option<Uuid>,
    pub(super) name: Option<String>,
}

/// Releases the topics that a publication claims, and returns their names.
///
/// # Errors
/// [`NoReason`]; a [`Failure`](crate::Failure) of Kafka; errors of the database, also
/// while a relay of the publication runs.
pub(super) async fn release(
    config: Config,
    store: &Store,
    of: Publication,
    reason: &str,
    (execution, output): (Execution, Output),
) -> Result<String, Box<dyn std::error::Error>> {
    if reason.trim().is_empty() {
        return Err(NoReason.into());
    }
    let (facts, _) = store_facts(store).await?;
    let publication = of.name.unwrap_or_else(|| config.publication());
    let store_id = of.store.unwrap_or(facts.id);
    if execution == Execution::Apply {
        // First, since the database checks whether a relay runs, and the user's rights.
        let name = if store_id == facts.id {
            publication.clone()
        } else {
            format!("{publication} of store {store_id}")
        };
        let statement = store.schema().statement(include_str!("../../sql/release_topics.sql"));
        sqlx::query(statement).bind(name).bind(reason).execute(store.pool()).await?;
    }
    let config = Arc::new(config.of_store(facts));
    let released = in_a_thread("claims", move || {
        let admin = TopicAdmin::open(&config)?;
        ClaimsTopic::new(&config).release(&admin, store_id, &publication, execution)
    })
    .await?;
    if output == Output::Json {
        let topics: Vec<_> = released.iter().map(|claim| &claim.topic).collect();
        let is_released = execution == Execution::Apply;
        let said = serde_json::json!({ "topics": topics, "is_released": is_released });
        return Ok(format!("{said}\n"));
    }
    let mut text = String::new();
    for claim in &released {
        writeln!(text, "{}", claim.topic)?;
    }
    text.push_str(&summary(&released));
    let end = match (released.is_empty(), execution) {
        (true, _) => "it claims no topic",
        (false, Execution::DryRun) => "nothing was changed",
        (false, Execution::Apply) => "released: another deployment or store can claim them",
    };
    writeln!(text, "{end}")?;
    Ok(text)
}
