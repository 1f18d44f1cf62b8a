//! The subcommand `rebase`: a deployment resumes after the database has lost a part of its history
//! (it was restored to an earlier state, or a standby was promoted that lacked the last
//! transactions), or Kafka the checkpoints.
//!
//! The copied checkpoints are of the history that the database has, and it has every event before
//! them: the log is sequential, and a copy is written after the events that it covers. The same is
//! true of the recorded end offsets of topics. The records beyond these are compared with the
//! store: events that it has are not published again; events that it does not have diverge, and are
//! listed.

use std::sync::Arc;

use annals_store::{Position, Store};
use sqlx::Row;

use crate::cli::output::Output;
use crate::config::{Config, Delivery, Deployments};
use crate::driver::comparison::{ComparedTopics, Comparison, describe};
use crate::driver::known_generation;
use crate::driver::strangers::{announced_ids, fence_all};
use crate::model::execution::Execution;
use crate::model::offsets::TopicEnds;
use crate::report::failure::Failure;
use crate::report::progress::Progress;
use crate::state::topic_ends::{EndsOrigin, StartOffset, record_ends};

/// Why a rebase is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum RebaseError {
    /// Relays of the deployment run.
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
    #[error("--reason must not be empty: it is recorded")]
    NoReason,
}

/// Lists the published events that the store does not have, line by line, and begins a new
/// generation of the deployment behind the published events. No relay of the deployment may run,
/// neither on this database nor on the one before.
///
/// # Errors
/// [`RebaseError`]; a [`Failure`] of Kafka; errors of the database.
pub(super) async fn execute(
    config: Config,
    store: &Store,
    (execution, output): (Execution, Output),
    reason: &str,
    print: impl Fn(&str) -> std::io::Result<()>,
) -> Result<(), Box<dyn std::error::Error>> {
    if execution == Execution::Apply && reason.trim().is_empty() {
        return Err(RebaseError::NoReason.into());
    }
    let config = Arc::new(config);
    let deployment = config.publication();
    let ids = ids_to_fence(store, &deployment).await?;
    if execution == Execution::Apply && config.relay.delivery == Delivery::ExactlyOnce {
        // Also those that this database does not know.
        let announced = announced_ids(&config).await?;
        fence_all(&config, ids.into_iter().chain(announced).collect()).await?;
    }
    let mut connection = store.pool().acquire().await?;
    let end = store.log_end(&mut connection).await?;
    drop(connection);
    let compared = compare(&config, store, (execution, output), &print).await?;
    let ComparedTotals { records, has, diverging, skipped, ends } = compared;
    if output == Output::Text {
        print(&format!(
            "{records} records read; the store has {has} of these events, and {diverging} published versions diverge\n"
        ))?;
    }
    if execution == Execution::Apply {
        begin_generation(store, &config, reason).await?;
        record_ends(store, &config, &end.incarnation, (EndsOrigin::Skipped, &ends)).await?;
    }
    let summary = serde_json::json!({
        "records": records, "events": has, "diverging": diverging, "skipped": skipped,
        "is_begun": execution == Execution::Apply
    });
    Ok(print(&match (output, execution) {
        (Output::Json, _) => format!("{}\n", serde_json::json!({ "summary": summary })),
        (Output::Text, Execution::DryRun) => "nothing was changed\n".to_owned(),
        (Output::Text, Execution::Apply) => format!(
            "deployment {deployment} begins a new generation, and skips {skipped} events that were published after its last \
             copied checkpoints: start its relays\n"
        ),
    })?)
}

/// The published records beside the store.
#[derive(Debug, Default)]
struct ComparedTotals {
    records: u64,
    /// Number of events that the store has.
    has: usize,
    diverging: usize,
    skipped: u64,
    ends: TopicEnds,
}

/// Compares the published records with the store, prints those that diverge, and, unless it is a
/// dry run, skips the events that are published.
async fn compare(
    config: &Arc<Config>,
    store: &Store,
    (execution, output): (Execution, Output),
    print: impl Fn(&str) -> std::io::Result<()>,
) -> Result<ComparedTotals, Box<dyn std::error::Error>> {
    let mut comparison =
        Comparison::begin(config, store, (ComparedTopics::All, StartOffset::Covered)).await?;
    let mut all = ComparedTotals::default();
    let mut progress = None;
    while let Some(page) = comparison.next().await? {
        let offsets = comparison.offsets();
        let progress = progress.get_or_insert_with(|| Progress::new("records compared", offsets));
        progress.at(comparison.records());
        if let Some(failure) = page.unread.into_values().next() {
            return Err(failure.into());
        }
        for record in &page.diverging {
            let line = describe(record);
            print(&match output {
                Output::Json => format!("{}\n", serde_json::json!({ "diverging": line })),
                Output::Text => format!("{line}\n"),
            })?;
        }
        all.diverging += page.diverging.len();
        all.has += page.positions.len();
        if execution == Execution::Apply {
            all.skipped += skip_published(store, &config.publication(), &page.positions).await?;
        }
        all.ends.extend(page.ends);
    }
    all.records = comparison.records();
    Ok(all)
}

/// Begins a generation with a number above all that Kafka has checkpoints of.
async fn begin_generation(
    store: &Store,
    config: &Config,
    reason: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let known = known_generation(config, store, Deployments::Configured).await?;
    let rebase = store.schema().statement(include_str!("../../sql/rebase.sql"));
    let rebase = sqlx::query(rebase).bind(config.publication()).bind(reason).bind(known);
    Ok(rebase.execute(store.pool()).await.map(drop)?)
}

/// The transactional ids that may have an open transaction.
async fn ids_to_fence(
    store: &Store,
    deployment: &str,
) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let begin = store.schema().statement(include_str!("../../sql/rebase_prerequisites.sql"));
    let begin = sqlx::query(begin).bind(deployment).fetch_one(store.pool()).await?;
    let running: Vec<String> = begin.try_get("running")?;
    if !running.is_empty() {
        let (deployment, running) = (deployment.to_owned(), running.join(", "));
        return Err(RebaseError::Running { deployment, running }.into());
    }
    Ok(begin.try_get("transactional_ids")?)
}

/// Records published events as skipped; returns how many of them no checkpoint covered.
async fn skip_published(
    store: &Store,
    deployment: &str,
    positions: &[Position],
) -> Result<u64, Failure> {
    let statement = store.schema().statement(include_str!("../../sql/skip_published.sql"));
    let skipped = sqlx::query_scalar(statement).bind(deployment).bind(positions);
    let skipped: Result<i64, _> = skipped.fetch_one(store.pool()).await;
    let skipped = skipped.map_err(Failure::database("record published events as skipped"))?;
    Ok(skipped.unsigned_abs())
}
