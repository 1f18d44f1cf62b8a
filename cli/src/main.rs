//! `annals`: the audit log, personal data and the life of streams, from the command line.

mod audit_log;
mod personal;
mod stream;

use std::io::Write;
use std::process::ExitCode;

use annals_store::{Store, StoreOptions};
use clap::{Parser, Subcommand};

/// Administration of an Annals event store.
#[derive(Debug, Parser)]
#[command(version)]
struct AnnalsArguments {
    /// The URL of the database; roles: annals_read for the audit log, annals_append for erasures,
    /// annals_admin for keys and streams.
    #[arg(long, env = "ANNALS_DATABASE_URL", hide_env_values = true)]
    database_url: String,
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
    /// Shows, closes, truncates and archives a stream.
    Stream(stream::Stream),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(AnnalsArguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "annals: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: AnnalsArguments) -> anyhow::Result<()> {
    let options = StoreOptions::default().connections_max(2).without_notifications();
    let store: Store = options.connect(&arguments.database_url).await?;
    match arguments.command {
        AnnalsCommand::Log(log) => log.run(&store).await,
        AnnalsCommand::Tree(tree) => tree.run(&store).await,
        AnnalsCommand::Personal(personal) => personal.run(&store).await,
        AnnalsCommand::Stream(stream) => stream.run(&store).await,
    }
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
