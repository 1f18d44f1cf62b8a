//! Going on after the database has lost a part of its history (it was restored to an earlier state, or a standby was promoted that
//! had not got everything), or Kafka its checkpoints: what is published is found out from the topics themselves.
//!
//! The copies of checkpoints in PostgreSQL are of the history that the database has, and everything before them is
//! in it: the log is sequential, and a copy is written after what it covers. The same holds for the recorded ends of topics. What
//! the topics have beyond these is compared with the store: what it has is not published again; what it does not have diverges,
//! and is listed.

use std::sync::Arc;

use annals_store::Store;
use sqlx::Row;

use crate::config::{Config, Delivery};
use crate::copy::{Ends, record_ends};
use crate::failure::Failure;
use crate::kafka::TopicEnds;
use crate::published::{Behind, Comparison, line};
use crate::sender;

/// Why a deployment is not begun anew.
#[derive(Debug, thiserror::Error)]
pub enum RebaseError {
    /// Relays run.
    #[error(
        "relays of deployment {deployment} run: {running}. Stop them, and start them again afterwards"
    )]
    Running {
        /// The deployment.
        deployment: String,
        /// Their instances.
        running: String,
    },
    /// A reason is empty.
    #[error("say what happened: --reason must not be empty")]
    NoReason,
}

/// Finds out what is published and the store does not have, says it line by line, and lets the deployment go on from there;
/// with `dry_run`, it only says it. No relay of the deployment may run, neither on this database nor on the one before.
///
/// # Errors
/// [`RebaseError`], a [`Failure`] of Kafka, or what the database says.
pub async fn execute(
    config: Config,
    store: &Store,
    dry_run: bool,
    reason: &str,
    say: impl Fn(&str) -> std::io::Result<()>,
) -> Result<(), Box<dyn std::error::Error>> {
    if reason.trim().is_empty() {
        return Err(RebaseError::NoReason.into());
    }
    let config = Arc::new(config);
    let deployment = config.publication();
    let ids = left_open(store, &deployment).await?;
    if !dry_run && config.relay.delivery == Delivery::ExactlyOnce {
        let config = Arc::clone(&config);
        tokio::task::spawn_blocking(move || sender::fence(&config, &ids)).await??;
    }
    let mut connection = store.pool().acquire().await?;
    let end = store.outbox_bound(&mut connection).await?;
    drop(connection);
    let mut comparison = Comparison::begin(&config, store, Behind::Covered).await?;
    let (mut ends, mut has, mut passed, mut diverging) = (TopicEnds::new(), 0, 0, 0);
    while let Some(compared) = comparison.next().await? {
        for record in &compared.diverging {
            say(&format!("{}\n", line(record)))?;
        }
        diverging += compared.diverging.len();
        has += compared.positions.len();
        if !dry_run {
            passed += pass(store, &deployment, &compared.positions).await?;
        }
        ends.extend(compared.ends);
    }
    say(&format!(
        "{} records read; the store has {has} of these events, and {diverging} published versions diverge\n",
        comparison.records()
    ))?;
    if dry_run {
        return Ok(say("nothing was changed\n")?);
    }
    let rebase = store.schema().statement(include_str!("../sql/rebase.sql"));
    sqlx::query(rebase).bind(&deployment).bind(reason).execute(store.pool()).await?;
    record_ends(store, &config, &end.incarnation, (Ends::Passed, &ends)).await?;
    Ok(say(&format!(
        "deployment {deployment} begins anew from here, behind {passed} events that were published after the last copies of its \
         checkpoints: start its relays\n"
    ))?)
}

/// The transactional ids that earlier relays may have left open.
async fn left_open(
    store: &Store,
    deployment: &str,
) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let begin = store.schema().statement(include_str!("../sql/rebase_begin.sql"));
    let begin = sqlx::query(begin).bind(deployment).fetch_one(store.pool()).await?;
    let running: Vec<String> = begin.try_get("running")?;
    if !running.is_empty() {
        let (deployment, running) = (deployment.to_owned(), running.join(", "));
        return Err(RebaseError::Running { deployment, running }.into());
    }
    Ok(begin.try_get("transactional_ids")?)
}

/// Takes published events for passed; returns how many were not known to be.
async fn pass(store: &Store, deployment: &str, positions: &[i64]) -> Result<i64, Failure> {
    let statement = store.schema().statement(include_str!("../sql/pass.sql"));
    sqlx::query_scalar(statement)
        .bind(deployment)
        .bind(positions)
        .fetch_one(store.pool())
        .await
        .map_err(Failure::database("take published events for passed"))
}
