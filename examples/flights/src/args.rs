//! The command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Real flights, from a file through PostgreSQL and Kafka into a read model, with totals that must
/// agree.
#[derive(Debug, Parser)]
#[command(name = "annals-flights", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Appends a month of flights while a relay publishes them, kills the relay on the way, and
    /// proves that everything came out once. Reads `ANNALS_DATABASE_URL`, `ANNALS_KAFKA` and
    /// `ANNALS_REGISTRY_URL`.
    Demo(Demo),
    /// Shows a stream as the store has it and as the topic has it, event by event.
    Show(Show),
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// The flights, as CSV, plain or gzip [default: the month that comes with the demo]
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// How many append at the same time
    #[arg(long, value_name = "N", default_value = "16")]
    pub(crate) writers: NonZeroUsize,
    /// The annals-relay to start [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) relay: Option<PathBuf>,
    /// Let the relay live
    #[arg(long)]
    pub(crate) no_kill: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// For example flight-2013-01-01-UA-1545-EWR or aircraft-N14228
    pub(crate) stream: String,
    /// The directory of a run [default: the latest]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) run: Option<PathBuf>,
}
