//! What people do about what is held: the `quarantine` subcommands.

use std::fmt::Write as _;

use annals_schemas::Fingerprint;
use annals_store::Store;
use clap::Subcommand;
use jiff::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

/// What can be done about streams and categories that are held.
#[derive(Debug, Clone, Subcommand)]
pub enum Quarantine {
    /// Everything that is held, and why.
    List,
    /// The event that holds a stream, decoded, and why it cannot be published.
    Show {
        /// The stream.
        stream: String,
    },
    /// Try again what is held: a stream or a category.
    Retry {
        /// Its name.
        name: String,
        /// Why it should be possible now; for the record.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Never publish the event that holds a stream, and go on behind it.
    Skip {
        /// The stream.
        stream: String,
        /// The event's position, as `show` says it.
        #[arg(long)]
        position: i64,
        /// Why the event may be missing from its topic; for the record.
        #[arg(long)]
        reason: String,
    },
    /// Try again everything that is held.
    Release {
        /// Why it should be possible now; for the record.
        #[arg(long)]
        reason: Option<String>,
    },
}

/// A wish that cannot be met.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// Nothing of that name is held.
    #[error(
        "nothing named {0} is held in deployment {1}: `annals-relay quarantine list` says what is"
    )]
    NotHeld(String, String),
    /// Another event holds the stream.
    #[error(
        "it is not the event at position {position} that holds stream {stream} in deployment {deployment}: \
         `annals-relay quarantine show {stream}` says which one"
    )]
    OtherEvent {
        /// The stream.
        stream: String,
        /// The position that was asked for.
        position: i64,
        /// The deployment.
        deployment: String,
    },
    /// A reason is empty.
    #[error("say why the event may be missing from its topic: --reason must not be empty")]
    NoReason,
}

/// Does what `wish` says, and returns what there is to say about it.
///
/// # Errors
/// [`QuarantineError`], or what the database says.
pub async fn execute(
    wish: &Quarantine,
    store: &Store,
    deployment: &str,
) -> Result<String, Box<dyn std::error::Error>> {
    match wish {
        Quarantine::List => list(store, deployment).await,
        Quarantine::Show { stream } => show(store, deployment, stream).await,
        Quarantine::Retry { name, reason } => {
            retry(store, deployment, Some(name), reason.as_deref()).await
        }
        Quarantine::Release { reason } => retry(store, deployment, None, reason.as_deref()).await,
        Quarantine::Skip { stream, position, reason } => {
            skip(store, deployment, stream, *position, reason).await
        }
    }
}

async fn list(store: &Store, deployment: &str) -> Result<String, Box<dyn std::error::Error>> {
    let statement = store.schema().statement(include_str!("../../sql/quarantine_list.sql"));
    let rows = sqlx::query(statement).bind(deployment).fetch_all(store.pool()).await?;
    if rows.is_empty() {
        return Ok(format!("nothing is held in deployment {deployment}\n"));
    }
    let mut text = format!(
        "{:<9} {:<32} {:<7} {:>12} {:>5}  {:<20}  why\n",
        "what", "name", "cause", "position", "tries", "since"
    );
    for row in &rows {
        let position: Option<i64> = row.try_get("position")?;
        let position = position.map_or_else(|| "-".to_owned(), |position| position.to_string());
        let wanted = if row.try_get("is_retry_requested")? { " (to be tried again)" } else { "" };
        writeln!(
            text,
            "{:<9} {:<32} {:<7} {position:>12} {:>5}  {:<20}  {}{wanted}",
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

async fn show(
    store: &Store,
    deployment: &str,
    stream: &str,
) -> Result<String, Box<dyn std::error::Error>> {
    let statement = store.schema().statement(include_str!("../../sql/quarantine_event.sql"));
    let row = sqlx::query(statement).bind(deployment).bind(stream);
    let row = row.fetch_optional(store.pool()).await?;
    let row = row.ok_or_else(|| not_held(stream, deployment))?;
    let fingerprint: i64 = row.try_get("fingerprint")?;
    let fingerprint = Fingerprint::from(fingerprint);
    let payload: Vec<u8> = row.try_get("payload")?;
    let (schema, event) = decoded(store, fingerprint, &payload).await?;
    let mut text = String::new();
    writeln!(text, "stream      {stream}")?;
    writeln!(text, "cause       {}", row.try_get::<String, _>("cause")?)?;
    writeln!(text, "why         {}", row.try_get::<String, _>("reason")?)?;
    writeln!(text, "held since  {}", time(&row, "quarantined_us")?)?;
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

/// The name of an event's schema, and the event. What cannot be decoded is shown as it is: that may be why it is held.
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
) -> Result<String, Box<dyn std::error::Error>> {
    let statement = store.schema().statement(include_str!("../../sql/quarantine_retry.sql"));
    let wanted: i64 = sqlx::query_scalar(statement)
        .bind(deployment)
        .bind(name)
        .bind(reason)
        .fetch_one(store.pool())
        .await?;
    match (wanted, name) {
        (0, Some(name)) => Err(not_held(name, deployment).into()),
        (0, None) => Ok(format!("nothing is held in deployment {deployment}\n")),
        _ => Ok(format!("asked the relays to try again: {wanted} holds\n")),
    }
}

async fn skip(
    store: &Store,
    deployment: &str,
    stream: &str,
    position: i64,
    reason: &str,
) -> Result<String, Box<dyn std::error::Error>> {
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
    Ok(format!(
        "the event at position {position} will not be published; {stream} goes on behind it\n"
    ))
}

fn not_held(name: &str, deployment: &str) -> QuarantineError {
    QuarantineError::NotHeld(name.to_owned(), deployment.to_owned())
}

fn time(row: &PgRow, column: &str) -> Result<String, sqlx::Error> {
    let us: i64 = row.try_get(column)?;
    let time = Timestamp::from_microsecond(us).ok();
    Ok(time.map_or_else(|| "-".to_owned(), |time| format!("{time:.0}")))
}
