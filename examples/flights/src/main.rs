//! The demo of Annals: real flights, from a file through PostgreSQL and Kafka into a read model
//! that must add up, with the relay killed on the way.
//!
//! The way of a flight through the files: a row (`rows`) becomes events (`happenings`, `events`)
//! that writers append to the store (`writers`); a relay publishes them (`relay`, `outage`); two
//! projections consume the topics into a read model (`projections`, `read_model`); its totals must
//! be those of the file (`totals_csv`, `totals_kafka`, `comparison`). `demo` sees them all.

mod args;
mod background;
mod comparison;
mod counts;
mod database;
mod demo;
mod environment;
mod events;
mod farewell;
mod figures;
mod happenings;
mod lags;
mod logging;
mod orphans;
mod outage;
mod progress;
mod projections;
mod read_model;
mod relay;
mod report;
mod rows;
mod run;
mod screen;
mod seen;
mod show;
mod signals;
mod topics;
mod totals;
mod totals_csv;
mod totals_kafka;
mod writers;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args).await,
        Command::Show(args) => show::run(&args).await,
    };
    ended.unwrap_or_else(|error| {
        // Nothing more can be done where not even this is taken.
        let _written = writeln!(std::io::stderr().lock(), "annals-flights: {error:#}");
        ExitCode::FAILURE
    })
}
