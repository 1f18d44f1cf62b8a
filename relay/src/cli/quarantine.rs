//! The `quarantine` subcommands.

use std::fmt::Write as _;

use annals_schemas::Fingerprint;
use annals_store::{Position, Store};
use clap::Subcommand;
use jiff::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::cli::output::Output;

/// The operations on quarantined streams and categories.
#[derive(Debug, Clone, Subcommand)]
pub enum QuarantineCommand {
    /// List quarantined streams and categories, and why they are quarantined.
    List,
    /// Show the event that a stream is quarantined for, decoded, and why it cannot be published.
    Show {
        /// The stream.
        stream: String,
    },
    /// Retry a stream or a category.
    Retry {
        /// Its name.
        name: String,
        /// Why it can be published now; recorded.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Never publish the event that a stream is quarantined for, and continue behind it.
    Skip {
        /// The stream.
        stream: String,
        /// The event's position, as `show` prints it.
        #[arg(long, value_parser = position)]
        position: Position,
        /// Why the event may be missing in its topic; recorded.
        #[arg(long)]
        reason: String,
    },
    /// Retry all streams and categories.
    Release {
        /// Why they can be published now; recorded.
        #[arg(long)]
        reason: Option<String>,
    },
}

/// Why a subcommand is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum QuarantineError {
    /// There is no entry of that name.
    #[error(
        "nothing named {0} is quarantined in deployment {1}: see `annals-relay quarantine list`"
    )]
    NoEntry(String, String),
    /// The stream is quarantined for another event.
    #[error(
        "stream {stream} of deployment {deployment} is not quarantined for the event at position {position}: \
         see `annals-relay quarantine show {stream}`"
    )]
    OtherEvent {
        /// The stream.
        stream: String,
        /// The given position.
        position: Position,
        /// The deployment.
        deployment: String,
    },
    /// A reason is empty.
    #[error("say why the event may be missing in its topic: --reason must not be empty")]
    NoReason,
}

/// Executes a subcommand, and returns its output.
///
/// # Errors
/// [`QuarantineError`]; errors of the database.
pub(super) async fn execute(
    command: &QuarantineCommand,
    store: &Store,
    deployment: &str,
    output: Output,
) -> Result<String, Box<dyn std::error::Error>> {
    match command {
        QuarantineCommand::List => list(store, deployment, output).await,
        QuarantineCommand::Show { stream } => show(store, deployment, stream, output).await,
        QuarantineCommand::Retry { name, reason } => {
            let entries = retry(store, deployment, Some(name), reason.as_deref()).await?;
            Ok(retried(entries, deployment, output))
        }
        QuarantineCommand::Release { reason } => {
            let entries = retry(store, deployment, None, reason.as_deref()).await?;
            Ok(retried(entries, deployment, output))
        }
        QuarantineCommand::Skip { stream, position, reason } => {
            skip(store, deployment, stream, *position, reason).await?;
            if output == Output::Json {
                let skipped = serde_json::json!({ "stream": stream, "position": position });
                return Ok(format!("{}\n", serde_json::json!({ "skipped": skipped })));
            }
            Ok(format!(
                "the event at position {position} will not be published; {stream} continues behind it\n"
            ))
        }
    }
}

async fn list(
    store: &Store,
    deployment: &str,
    output: Output,
) -> Result<String, Box<dyn std::error::Error>> {
    let statement = store.schema().statement(include_str!("../../sql/quarantine_list.sql"));
    let rows = sqlx::query(statement).bind(deployment).fetch_all(store.pool()).await?;
    if output == Output::Json {
        let entries = rows.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        return Ok(format!("{}\n", serde_json::json!({ "quarantine": entries })));
    }
    if rows.is_empty() {
        return Ok(format!("nothing is quarantined in deployment {deployment}\n"));
    }
    let mut text = format!(
        "{:<9} {:<32} {:<7} {:>12} {:>5}  {:<20}  why\n",
        "what", "name", "cause", "position", "tries", "since"
    );
    for row in &rows {
        let position: Option<Position> = row.try_get("position")?;
        let position = position.map_or_else(|| "-".to_owned(), |position| position.to_string());
        let is_retried = row.try_get("is_retry_requested")?;
        let retry = if is_retried { " (retry requested)" } else { "" };
        writeln!(
            text,
            "{:<9} {:<32} {:<7} {position:>12} {:>5}  {:<20}  {}{retry}",
            row.try_get::<String, _>("kind")?,
            row.try_get::<String, _>("name")?,
            row.try_get::<String, _>("cause")?,
            row.try_get::<i32, _>("attempts")?,
            time(row, "quarantined_us")?,
            row.try_get::<String, _>("reason")?,
        )?;
    }
    Ok(text)
}

/// An entry of the list as JSON.
fn entry(row: &PgRow) -> Result<serde_json::Value, sqlx::Error> {
    Ok(serde_json::json!({
        "kind": row.try_get::<String, _>("kind")?,
        "name": row.try_get::<String, _>("name")?,
        "cause": row.try_get::<String, _>("cause")?,
        "position": row.try_get::<Option<Position>, _>("position")?,
        "attempts": row.try_get::<i32, _>("attempts")?,
        "since": time(row, "quarantined_us")?,
        "reason": row.try_get::<String, _>("reason")?,
        "is_retry_requested": row.try_get::<bool, _>("is_retry_requested")?
    }))
}

async fn show(
    store: &Store,
    deployment: &str,
    stream: &str,
    output: Output,
) -> Result<String, Box<dyn std::error::Error>> {
    let statement = store.schema().statement(include_str!("../../sql/quarantine_event.sql"));
    let row = sqlx::query(statement).bind(deployment).bind(stream);
    let row = row.fetch_optional(store.pool()).await?;
    let row = row.ok_or_else(|| no_entry(stream, deployment))?;
    let fingerprint: i64 = row.try_get("fingerprint")?;
    let fingerprint = Fingerprint::from(fingerprint);
    let payload: Vec<u8> = row.try_get("payload")?;
    let (schema, event) = decoded(store, fingerprint, &payload).await?;
    if output == Output::Json {
        let shown = serde_json::json!({
            "stream": stream,
            "cause": row.try_get::<String, _>("cause")?,
            "reason": row.try_get::<String, _>("reason")?,
            "since": time(&row, "quarantined_us")?,
            "attempts": row.try_get::<i32, _>("attempts")?,
            "position": row.try_get::<i64, _>("position")?,
            "version": row.try_get::<i64, _>("version")?,
            "behind": row.try_get::<i64, _>("behind")?,
            "event_id": row.try_get::<Uuid, _>("event_id")?,
            "event_type": row.try_get::<String, _>("event_type")?,
            "schema": schema,
            "event": event
        });
        return Ok(format!("{shown}\n"));
    }
    let mut text = String::new();
    writeln!(text, "stream      {stream}")?;
    writeln!(text, "cause       {}", row.try_get::<String, _>("cause")?)?;
    writeln!(text, "why         {}", row.try_get::<String, _>("reason")?)?;
    writeln!(text, "since       {}", time(&row, "quarantined_us")?)?;
    let (tries, tried) = (row.try_get::<i32, _>("attempts")?, time(&row, "tried_us")?);
    writeln!(text, "tried       {tries} times, last {tried}")?;
    writeln!(text, "position    {}", row.try_get::<i64, _>("position")?)?;
    writeln!(text, "version     {}", row.try_get::<i64, _>("version")?)?;
    writeln!(text, "behind it   {} events of the stream", row.try_get::<i64, _>("behind")?)?;
    writeln!(text, "event id    {}", row.try_get::<Uuid, _>("event_id")?)?;
    writeln!(text, "type        {}", row.try_get::<String, _>("event_type")?)?;
    writeln!(text, "schema      {schema} ({} bytes)", payload.len())?;
    writeln!(text, "metadata    {}", row.try_get::<String, _>("metadata")?)?;
    writeln!(text, "headers     {}", row.try_get::<String, _>("headers")?)?;
    writeln!(text, "event       {event}")?;
    Ok(text)
}

/// The name of an event's schema, and the event. An event that cannot be decoded may be quarantined
/// for that reason.
async fn decoded(
    store: &Store,
    fingerprint: Fingerprint,
    payload: &[u8],
) -> Result<(String, String), Box<dyn std::error::Error>> {
    let raw = |error: &dyn std::error::Error| {
        format!("cannot be decoded ({error}): {} bytes of Avro", payload.len())
    };
    let schemas = match store.schemas([fingerprint].into()).await {
        Ok(schemas) => schemas,
        Err(error @ annals_store::Error::Unreadable { .. }) => {
            return Ok((fingerprint.to_string(), raw(&error)));
        }
        Err(error) => return Err(error.into()),
    };
    let schema = schemas[&fingerprint];
    let event = match schema.decode_json(payload) {
        Ok(value) => serde_json::to_string_pretty(&value)?,
        Err(error) => raw(&error),
    };
    Ok((schema.full_name().to_owned(), event))
}

async fn retry(
    store: &Store,
    deployment: &str,
    name: Option<&str>,
    reason: Option<&str>,
) -> Result<i64, Box<dyn std::error::Error>> {
    let statement = store.schema().statement(include_str!("../../sql/quarantine_retry.sql"));
    let entries: i64 = sqlx::query_scalar(statement)
        .bind(deployment)
        .bind(name)
        .bind(reason)
        .fetch_one(store.pool())
        .await?;
    match (entries, name) {
        (0, Some(name)) => Err(no_entry(name, deployment).into()),
        _ => Ok(entries),
    }
}

fn retried(entries: i64, deployment: &str, output: Output) -> String {
    match entries {
        _ if output == Output::Json => format!("{}\n", serde_json::json!({ "retried": entries })),
        0 => format!("nothing is quarantined in deployment {deployment}\n"),
        _ => format!("asked the relays to retry {entries} entries\n"),
    }
}

async fn skip(
    store: &Store,
    deployment: &str,
    stream: &str,
    position: Position,
    reason: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    if reason.trim().is_empty() {
        return Err(QuarantineError::NoReason.into());
    }
    let statement = store.schema().statement(include_str!("../../sql/quarantine_skip.sql"));
    let is_skipped: bool = sqlx::query_scalar(statement)
        .bind(deployment)
        .bind(stream)
        .bind(position)
        .bind(reason)
        .fetch_one(store.pool())
        .await?;
    if !is_skipped {
        let (stream, deployment) = (stream.to_owned(), deployment.to_owned());
        return Err(QuarantineError::OtherEvent { stream, position, deployment }.into());
    }
    Ok(())
}

pub(super) fn position(text: &str) -> Result<Position, String> {
    let position = text.parse().ok().and_then(Position::new);
    position.ok_or_else(|| "a position is a whole number from 1 on".to_owned())
}

fn no_entry(name: &str, deployment: &str) -> QuarantineError {
    QuarantineError::NoEntry(name.to_owned(), deployment.to_owned())
}

fn time(row: &PgRow, column: &str) -> Result<String, sqlx::Error> {
    let us: i64 = row.try_get(column)?;
    let time = Timestamp::from_microsecond(us).ok();
    Ok(time.map_or_else(|| "-".to_owned(), |time| format!("{time:.0}")))
}
