//! The subcommand `replay`.

use std::fmt::Write as _;
use std::sync::Arc;

use annals_store::{Position, Store, Version};
use clap::{ArgGroup, Args};
use jiff::Timestamp;

use crate::cli::output::Output;
use crate::cli::quarantine::position;
use crate::config::Config;
use crate::driver::topic_claims;
use crate::replay::plan::ReplayPart;
use crate::replay::{PartCount, Replay, ReplaySelection};

/// The arguments of `replay`.
#[derive(Debug, Clone, Args)]
#[command(group = selected())]
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
    #[arg(long, value_name = "VERSION", value_parser = version, allow_negative_numbers = true)]
    from_version: Option<Version>,
    /// The last version of each stream.
    #[arg(long, value_name = "VERSION", value_parser = version, allow_negative_numbers = true)]
    to_version: Option<Version>,
    /// The first position.
    #[arg(long, value_name = "POSITION", value_parser = position, allow_negative_numbers = true)]
    from_position: Option<Position>,
    /// The last position.
    #[arg(long, value_name = "POSITION", value_parser = position, allow_negative_numbers = true)]
    to_position: Option<Position>,
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

/// One of these says what to replay, or what to do with an unfinished replay.
fn selected() -> ArgGroup {
    let arguments = ["categories", "streams", "all", "resume", "abandon"];
    ArgGroup::new("selected").args(arguments).required(true).multiple(true)
}

fn version(text: &str) -> Result<Version, &'static str> {
    let version = text.parse().ok().and_then(Version::new);
    version.ok_or("versions are whole numbers from 0 on")
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
        let plan = replay.plan(&arguments.selection(), shards).await?;
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
    fn selection(&self) -> ReplaySelection {
        ReplaySelection {
            categories: self.categories.clone(),
            streams: self.streams.clone(),
            versions: (self.from_version, self.to_version),
            positions: (self.from_position, self.to_position),
            times: (self.since, self.before),
            target: self.to.clone(),
            // Counting changes nothing, and is how an operator decides whether to stop the relays.
            beside_relays: self.beside_relays || self.dry_run,
        }
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
