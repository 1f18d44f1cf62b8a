//! The subcommand `replay`.

use std::fmt::Write as _;
use std::sync::Arc;

use annals_store::{Position, Store, Version};
use clap::Args;
use jiff::Timestamp;

use crate::cli::output::Output;
use crate::config::Config;
use crate::driver::topic_claims;
use crate::replay::plan::ReplayPart;
use crate::replay::{PartCount, Replay, ReplaySelection};

/// The arguments of `replay`.
#[derive(Debug, Clone, Args)]
pub struct ReplayArguments {
    /// A category whose events are replayed; may be repeated.
    #[arg(long = "category", value_name = "NAME")]
    categories: Vec<String>,
    /// A stream whose events are replayed; may be repeated.
    #[arg(long = "stream", value_name = "NAME")]
    streams: Vec<String>,
    /// Replay all categories.
    #[arg(long, conflicts_with_all = ["categories", "streams"])]
    all: bool,
    /// The first version of each stream.
    #[arg(long, value_name = "VERSION")]
    from_version: Option<i64>,
    /// The last version of each stream.
    #[arg(long, value_name = "VERSION")]
    to_version: Option<i64>,
    /// The first position.
    #[arg(long, value_name = "POSITION")]
    from_position: Option<i64>,
    /// The last position.
    #[arg(long, value_name = "POSITION")]
    to_position: Option<i64>,
    /// Events recorded at this time or later, such as 2026-11-28T01:03:00Z.
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Events recorded before this time.
    #[arg(long, value_name = "TIME")]
    before: Option<Timestamp>,
    /// A side topic, which gets every selected event up to now; it is created if it is missing.
    /// Without it, the events that the deployment has published go to their own topics again.
    #[arg(long, value_name = "TOPIC")]
    to: Option<String>,
    /// The most events a second.
    #[arg(long, value_name = "EVENTS", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Replay to the own topics while relays publish to them. Consumers that have applied the
    /// events drop them; one that reads the topic from its beginning may stop at a gap.
    #[arg(long)]
    beside_relays: bool,
    /// Only count the events.
    #[arg(long)]
    dry_run: bool,
    /// Why; recorded in `relay_actions`.
    #[arg(long, required_unless_present_any = ["resume", "abandon", "dry_run"])]
    reason: Option<String>,
    /// Continue the unfinished replay of the deployment, behind its last committed event.
    #[arg(long, conflicts_with_all = ["categories", "streams", "all", "to", "abandon", "dry_run"])]
    resume: bool,
    /// Give the unfinished replay of the deployment up. Its published records stay.
    #[arg(long, conflicts_with_all = ["categories", "streams", "all", "to", "dry_run"])]
    abandon: bool,
}

/// Why arguments are refused.
#[derive(Debug, thiserror::Error)]
enum ArgumentError {
    #[error("say what to replay: --category, --stream or --all")]
    NothingSelected,
    #[error("{0} is no version: whole numbers from 0 on are")]
    Version(i64),
    #[error("{0} is no position: whole numbers from 1 on are")]
    Position(i64),
}

/// Replays events of the configured deployment; returns the output.
///
/// # Errors
/// Wrong arguments, a replay that is refused, errors of components.
pub(super) async fn execute(
    config: Config,
    store: &Store,
    arguments: ReplayArguments,
    output: Output,
) -> Result<String, Box<dyn std::error::Error>> {
    let (config, _) = topic_claims::begin(config, store).await?;
    let (config, shards) = Replay::in_generation(config, store).await?;
    let config = Arc::new(config);
    let replay = Replay { config: &config, store, rate_max: arguments.rate };
    if arguments.abandon {
        let number = replay.abandon().await?;
        if output == Output::Json {
            return Ok(format!("{}\n", serde_json::json!({ "abandoned": number })));
        }
        return Ok(format!("replay {number} is abandoned; what it has published stays\n"));
    }
    let replayed = if arguments.resume {
        replay.run(None).await?
    } else {
        let plan = replay.plan(&arguments.selection()?, shards).await?;
        if arguments.dry_run {
            return counts(&replay.count(&plan).await?, output);
        }
        let reason = arguments.reason.as_deref().unwrap_or_default();
        replay.run(Some((&plan, reason))).await?
    };
    if output == Output::Json {
        return Ok(format!("{}\n", serde_json::to_string(&replayed)?));
    }
    Ok(format!(
        "replay {}: {} events, {} of them in this run, in {:.1} s\n",
        replayed.replay, replayed.events, replayed.events_of_this_run, replayed.seconds
    ))
}

impl ReplayArguments {
    fn selection(&self) -> Result<ReplaySelection, ArgumentError> {
        if self.categories.is_empty() && self.streams.is_empty() && !self.all {
            return Err(ArgumentError::NothingSelected);
        }
        let version = |number: Option<i64>| {
            number
                .map(|number| Version::new(number).ok_or(ArgumentError::Version(number)))
                .transpose()
        };
        let position = |number: Option<i64>| {
            number
                .map(|number| Position::new(number).ok_or(ArgumentError::Position(number)))
                .transpose()
        };
        Ok(ReplaySelection {
            categories: self.categories.clone(),
            streams: self.streams.clone(),
            versions: (version(self.from_version)?, version(self.to_version)?),
            positions: (position(self.from_position)?, position(self.to_position)?),
            times: (self.since, self.before),
            target: self.to.clone(),
            beside_relays: self.beside_relays,
        })
    }
}

fn counts(parts: &[PartCount], output: Output) -> Result<String, Box<dyn std::error::Error>> {
    if output == Output::Json {
        return Ok(format!("{}\n", serde_json::json!({ "parts": parts })));
    }
    let mut text = String::new();
    for PartCount { part, events, bytes, first, last } in parts {
        let what = match part {
            ReplayPart::Category(name) => format!("category {name}"),
            ReplayPart::Stream(name) => format!("stream {name}"),
            ReplayPart::Lost(lost) => format!("lost events of category {}", lost.category),
        };
        let number =
            |position: &Option<i64>| position.map_or_else(|| "-".to_owned(), |at| at.to_string());
        writeln!(
            text,
            "{what}: {events} events, {bytes} bytes, positions {} to {}",
            number(first),
            number(last)
        )?;
    }
    let events: i64 = parts.iter().map(|part| part.events).sum();
    writeln!(text, "{events} events would be replayed; nothing was changed")?;
    Ok(text)
}
