//! The subcommand `audit`.

use std::io::Write;
use std::sync::Arc;

use annals_store::Store;
use clap::Args;

use crate::audit::finding::Finding;
use crate::audit::{AuditSettings, Listing, Start, Summary, audit};
use crate::config::Config;

/// The arguments of `audit`.
#[derive(Debug, Clone, Args)]
pub struct AuditArguments {
    /// Begin where the last audit without faults ended. Events that were changed in the database
    /// since then are found only by an audit from the beginning.
    #[arg(long)]
    incremental: bool,
    /// What to print: faults; also each event that is not published, with its cause; or every event,
    /// with its topic, partition and offset.
    #[arg(long, value_enum, default_value = "faults", value_name = "WHAT")]
    list: Listing,
    /// The most memory for the set of published positions, in megabytes: one suffices for eight
    /// million events.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..), value_name = "MB")]
    memory_mb_max: u32,
    /// Print one JSON object for each finding, and one for the summary.
    #[arg(long)]
    json: bool,
}

/// Audits the configured deployment; true if there is no fault.
///
/// # Errors
/// Errors of the database, of Kafka and of standard output.
pub(super) async fn execute(
    config: Config,
    store: &Store,
    arguments: AuditArguments,
) -> Result<bool, Box<dyn std::error::Error>> {
    let AuditArguments { incremental, list, memory_mb_max, json } = arguments;
    let settings = AuditSettings {
        start: if incremental { Start::LastProof } else { Start::Beginning },
        listing: list,
        memory_mb_max: usize::try_from(memory_mb_max)?,
    };
    let mut out = std::io::BufWriter::new(std::io::stdout());
    let mut print = |finding: &Finding| {
        if !json {
            return writeln!(out, "{finding}");
        }
        serde_json::to_writer(&mut out, finding)?;
        out.write_all(b"\n")
    };
    let summary = audit(&Arc::new(config), store, settings, &mut print).await?;
    let text =
        if json { serde_json::json!({ "summary": summary }).to_string() } else { text(&summary) };
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(summary.faults() == 0)
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
