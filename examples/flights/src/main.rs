//! The demo of Annals: real flights, from a file through PostgreSQL and Kafka into a read model
//! whose totals must be those of the file, while the relay is killed and started again.
//!
//! The files, in the order of the data: a row (`rows`) becomes events (`flight`, `events`) that
//! writers append to the store (`writers`); a relay publishes them and is killed (`outage`); two
//! projections consume the topics (`projections`) into a read model (`read_model`); its totals are
//! compared with those of the file (`totals`). `demo` runs all steps, and reports them (`report`).

mod demo;
mod events;
mod flight;
mod lags;
mod outage;
mod projections;
mod read_model;
mod report;
mod rows;
mod totals;
mod writers;

use std::io::stderr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Appends a month of flights while a relay publishes them, kills the relay halfway, and checks
/// that every event was published and applied exactly once. Reads `ANNALS_DATABASE_URL`,
/// `ANNALS_KAFKA` and `ANNALS_REGISTRY_URL`.
#[derive(Debug, Parser)]
#[command(name = "annals-flights", version)]
struct Arguments {
    /// The flights, as CSV, plain or gzip [default: the month that comes with the demo]
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Concurrent writers
    #[arg(long, value_name = "N", default_value = "16")]
    writers: NonZeroUsize,
    /// Do not kill the relay
    #[arg(long)]
    no_kill: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    // Errors only, unless RUST_LOG is set: the projections wait for topics that do not exist yet.
    let log = tracing_subscriber::fmt().with_writer(stderr);
    log.with_env_filter(EnvFilter::from_default_env()).init();
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = demo::run(Arguments::parse()) => ended,
        _ = terminate.recv() => bail!("terminated; the relay ends with the demo"),
        _ = tokio::signal::ctrl_c() => bail!("interrupted; the relay ends with the demo"),
    }
}
