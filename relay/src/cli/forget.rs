//! The subcommand `forget`.

use std::fmt::Write as _;

use annals_store::Store;
use sqlx::Row;

use crate::cli::connection::refusal;
use crate::cli::output::Output;
use crate::model::execution::Execution;
use crate::state::overview;

/// Lets go of a deployment without relays; returns the printed text.
///
/// # Errors
/// Errors of the database, also while a relay of the deployment runs, or if there is no such
/// deployment.
pub(super) async fn execute(
    store: &Store,
    deployment: &str,
    reason: &str,
    (execution, output): (Execution, Output),
) -> Result<String, Box<dyn std::error::Error>> {
    let mut text = String::new();
    let held = overview::outbox_holders(store).await?;
    for holder in held.iter().filter(|holder| holder.deployment == deployment) {
        writeln!(text, "{holder}")?;
    }
    if execution == Execution::DryRun && output == Output::Json {
        let held: Vec<_> = held.iter().filter(|holder| holder.deployment == deployment).collect();
        return Ok(format!("{}\n", serde_json::json!({ "holds": held })));
    }
    if execution == Execution::DryRun {
        text.push_str("nothing was changed\n");
        return Ok(text);
    }
    let statement = store.schema().statement(include_str!("../../sql/forget.sql"));
    let row = sqlx::query(statement).bind(deployment).bind(reason).fetch_one(store.pool()).await;
    let row = row.map_err(refusal)?;
    let count = |name: &str| row.try_get::<i64, _>(name);
    if output == Output::Json {
        let forgotten = serde_json::json!({
            "forgotten": deployment,
            "checkpoints": count("checkpoints")?,
            "quarantine_entries": count("entries")?,
            "skipped": count("skipped")?
        });
        return Ok(format!("{forgotten}\n"));
    }
    writeln!(
        text,
        "deployment {deployment} is forgotten: {} checkpoints, {} quarantine entries and {} skipped events; partitions of \
         the outbox that only it kept are dropped by the running relays. Its topics keep their claims: see \
         `annals-relay release-topics --publication {deployment}`",
        count("checkpoints")?,
        count("entries")?,
        count("skipped")?
    )?;
    Ok(text)
}
