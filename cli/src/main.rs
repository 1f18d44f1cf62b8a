//! `annals`: the audit log, personal data, projections and the life of streams, from the command
//! line.

mod audit_log;
mod documents;
mod personal;
mod projection;
mod stream;

use std::io::Write;
use std::process::ExitCode;

use annals_store::{
    Error, MigrationError, PersonalError, ProjectionError, SchemaName, SchemaNameError, Store,
    StoreOptions,
};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

/// Administration of an Annals event store.
#[derive(Debug, Parser)]
#[command(name = "annals", version)]
struct AnnalsArguments {
    /// The URL of the database; roles: annals_read for the audit log and the state of projections,
    /// annals_append for erasures and switches, annals_admin for keys and streams.
    #[arg(long, env = "ANNALS_DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// The database schema that has the tables.
    #[arg(long, env = "ANNALS_SCHEMA", default_value = "annals", value_parser = schema)]
    schema: SchemaName,
    /// Accepts a server with `fsync = off`: Neon, which keeps its data in another place.
    #[arg(long, env = "ANNALS_ALLOW_FSYNC_OFF")]
    allow_fsync_off: bool,
    #[command(subcommand)]
    command: AnnalsCommand,
}

#[derive(Debug, Subcommand)]
enum AnnalsCommand {
    /// Prints the audit log of a period, a stream, an actor or a correlation, as JSON lines.
    Log(audit_log::LogArguments),
    /// Prints the causal tree of an event, as JSON lines with their depth.
    Tree(audit_log::Tree),
    /// Erases subjects, and rotates the key that encrypts their keys.
    Personal(personal::PersonalArguments),
    /// Prints the state of projections, skips events, and switches versions.
    Projection(projection::ProjectionArguments),
    /// Shows, closes, truncates and archives a stream.
    Stream(stream::Stream),
    /// Prints a script for a shell that completes the commands of this program.
    Completions(documents::Completions),
    /// Writes the manual pages.
    Man(documents::Man),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(AnnalsArguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "annals: {}", in_full(&error)));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: AnnalsArguments) -> anyhow::Result<()> {
    let AnnalsArguments { database_url, schema, allow_fsync_off, command } = arguments;
    let options = StoreOptions::default().schema(schema).connections_max(2);
    let options = if allow_fsync_off { options.allow_fsync_off() } else { options };
    let connect = async || connect(database_url, options).await;
    match command {
        AnnalsCommand::Completions(completions) => completions.run(),
        AnnalsCommand::Man(man) => man.run(),
        AnnalsCommand::Log(log) => log.run(&connect().await?).await,
        AnnalsCommand::Tree(tree) => tree.run(&connect().await?).await,
        AnnalsCommand::Personal(personal) => personal.run(&connect().await?).await,
        AnnalsCommand::Projection(projection) => projection.run(&connect().await?).await,
        AnnalsCommand::Stream(stream) => stream.run(&connect().await?).await,
    }
}

async fn connect(database_url: Option<String>, options: StoreOptions) -> anyhow::Result<Store> {
    let Some(url) = database_url else {
        let missing = "no database: give --database-url or ANNALS_DATABASE_URL";
        AnnalsArguments::command().error(ErrorKind::MissingRequiredArgument, missing).exit();
    };
    let store = options.without_notifications().connect(&url).await?;
    // What else is wrong with the database, the statements of the command report.
    match store.check().await {
        Err(
            error @ Error::Migrate(
                MigrationError::OfALaterVersion { .. } | MigrationError::ServerTooOld { .. },
            ),
        ) => Err(error.into()),
        Ok(()) | Err(_) => Ok(store),
    }
}

fn schema(text: &str) -> Result<SchemaName, SchemaNameError> {
    SchemaName::new(text)
}

/// An error with its causes, in one line, each said once; and what makes an event store, if there
/// is none.
fn in_full(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !line.ends_with(&cause) {
            let gap = if line.is_empty() { "" } else { ": " };
            line = format!("{line}{gap}{cause}");
        }
    }
    let of_store = match (error.downcast_ref(), error.downcast_ref()) {
        (Some(PersonalError::Store(error)), _) | (_, Some(ProjectionError::Store(error))) => {
            Some(error)
        }
        (Some(_) | None, Some(_) | None) => error.downcast_ref(),
    };
    if of_store.is_some_and(Error::is_not_migrated) {
        line.push_str(": run `annals-relay migrate`, or give --schema");
    }
    line
}

/// The reader of the output, such as `head`, has enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::BrokenPipe)
}

/// Prints one line.
fn print(line: &impl std::fmt::Display) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
