//! The subcommand `audit`.

use std::io::Write;
use std::sync::Arc;

use annals_store::Store;
use clap::Args;

use crate::audit::finding::Finding;
use crate::audit::{AuditListing, AuditSettings, AuditStart, Summary, audit};
use crate::cli::output::Output;
use crate::config::Config;
use crate::driver::topic_claims;
use crate::replay::{Losses, Replay, ReplaySelection};

/// The arguments of `audit`.
#[derive(Debug, Clone, Args)]
pub struct AuditArguments {
    /// Begin where the last audit without faults ended. Events that were changed in the database
    /// since then are found only by an audit from the beginning.
    #[arg(long)]
    incremental: bool,
    /// The printed lines: faults; also each event that is not published, with its cause; or every
    /// event, with its topic, partition and offset.
    #[arg(long, value_enum, default_value = "faults", value_name = "WHAT")]
    list: AuditListing,
    /// The most memory for the set of published positions, in megabytes: one suffices for eight
    /// million events.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..), value_name = "MB")]
    memory_mb_max: u32,
    /// Publish lost events again, in the order of their streams and marked by `ce_replayed`, and
    /// audit once more. Refused beside another replay, and while relays publish to the same topics.
    ///
    /// An event whose later versions are still in the topic comes behind them (`restored`): a
    /// reader from the beginning meets a gap. To avoid it, delete the topic and replay the
    /// category.
    #[arg(long, requires = "reason")]
    repair: bool,
    /// Repair while relays publish to the same topics.
    #[arg(long, requires = "repair")]
    beside_relays: bool,
    /// Why events are published again; recorded in `relay_actions`.
    #[arg(long, requires = "repair")]
    reason: Option<String>,
}

/// Audits the configured deployment; true if there is no fault.
///
/// # Errors
/// Errors of the database, of Kafka and of standard output.
pub(super) async fn execute(
    config: Config,
    store: &Store,
    arguments: AuditArguments,
    output: Output,
) -> Result<bool, Box<dyn std::error::Error>> {
    if !arguments.repair {
        let mut losses = Losses::default();
        let found = audited(&Arc::new(config), store, (&arguments, output), &mut losses).await?;
        return Ok(found.faults() == 0);
    }
    let (config, _) = topic_claims::begin(config, store).await?;
    let (config, shards) = Replay::in_generation(config, store).await?;
    let config = Arc::new(config);
    let replay = Replay { config: &config, store, rate_max: None };
    let last = replay.last_before_audit().await?;
    let mut losses = Losses::default();
    let found = audited(&config, store, (&arguments, output), &mut losses).await?;
    if losses.is_empty() {
        return Ok(found.faults() == 0);
    }
    let selection =
        ReplaySelection { beside_relays: arguments.beside_relays, ..ReplaySelection::default() };
    let reason = arguments.reason.as_deref().unwrap_or_default();
    let repaired = replay.repair(&losses, (&selection, shards), reason, last).await?;
    let text = if output == Output::Json {
        serde_json::json!({ "repaired": repaired }).to_string()
    } else {
        format!("replay {}: {} lost events are published again", repaired.replay, repaired.events)
    };
    writeln!(std::io::stdout(), "{text}")?;
    Ok(audited(&config, store, (&arguments, output), &mut Losses::default()).await?.faults() == 0)
}

/// Audits once, prints the findings and the summary, and lists the lost events.
async fn audited(
    config: &Arc<Config>,
    store: &Store,
    (arguments, output): (&AuditArguments, Output),
    losses: &mut Losses,
) -> Result<Summary, Box<dyn std::error::Error>> {
    let AuditArguments { incremental, list, memory_mb_max, .. } = *arguments;
    let settings = AuditSettings {
        start: if incremental { AuditStart::LastProof } else { AuditStart::Beginning },
        listing: list,
        memory_mb_max: usize::try_from(memory_mb_max)?,
    };
    let mut out = std::io::BufWriter::new(std::io::stdout());
    let mut print = |finding: &Finding| {
        if let Finding::Lost { event, .. } = finding {
            losses.add(&event.category, event.position);
        }
        if output == Output::Text {
            return writeln!(out, "{finding}");
        }
        serde_json::to_writer(&mut out, finding)?;
        out.write_all(b"\n")
    };
    let summary = audit(config, store, settings, &mut print).await?;
    let text = if output == Output::Json {
        serde_json::json!({ "summary": summary }).to_string()
    } else {
        text(&summary)
    };
    writeln!(out, "{text}")?;
    out.flush()?;
    drop(out);
    Ok(summary)
}

fn text(of: &Summary) -> String {
    let mut lines = Vec::new();
    if let Some(reason) = &of.began_anew {
        lines.push(format!("began at the first event, since {reason}"));
    }
    lines.push(format!(
        "deployment {}, positions {} to {}: {} events and {} records in {:.1} s",
        of.deployment,
        of.after.get() + 1,
        of.until,
        of.events,
        of.records,
        of.seconds
    ));
    lines.push(format!(
        "events: {} published, {} waiting, {} quarantined, {} skipped, {} lost",
        of.published, of.waiting, of.quarantined, of.skipped, of.lost
    ));
    lines.push(format!(
        "records: {} duplicates, {} inversions, {} changed, {} unknown, {} misplaced; {} of removed events, {} repeated, \
         {} replayed, {} restored behind later versions",
        of.duplicates,
        of.inversions,
        of.changed,
        of.unknown,
        of.misplaced,
        of.removed,
        of.repeated,
        of.replayed,
        of.restored
    ));
    lines.push(match (of.faults(), of.proven) {
        (0, Some(proven)) => format!("no fault; proven up to position {proven}"),
        (0, None) => "no fault; not recorded, since this login may not: the next incremental audit begins earlier".to_owned(),
        (faults, _) => format!("{faults} faults"),
    });
    lines.join("\n")
}
