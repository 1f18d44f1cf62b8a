//! The cost of Annals, measured beside the bare components. README.md explains each command and its
//! figures; `bench/run` runs them.

mod append;
mod backlog;
mod bulk;
mod debezium;
mod drain;
mod event;
mod follow;
mod goals;
mod idle;
mod kafka;
mod large;
mod latency;
mod load;
mod machine;
mod neighbour;
mod peers;
mod process;
mod projection;
mod relay;
mod report;
mod scrape;
mod settle;
mod size;
mod spread;
mod steady;
mod takeover;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::report::{Report, progress};

/// Measures Annals beside the bare components: PostgreSQL alone, Kafka alone.
///
/// Reads `ANNALS_DATABASE_URL`, `ANNALS_KAFKA` and `ANNALS_REGISTRY_URL`, as `ops/dev/dev with`
/// sets them. Works in databases and topics of its own, and removes them.
#[derive(Debug, Parser)]
#[command(name = "annals-bench")]
struct Arguments {
    /// Directory for a file per run with one JSON object per line.
    #[arg(long, global = true, default_value = "target/bench")]
    output: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Appends per second: the store beside pgbench, which calls the same SQL procedure.
    Append(append::Arguments),
    /// Appends per second: the store beside other event stores and the smallest insert, on the same
    /// server.
    Peers(peers::Arguments),
    /// Appends per second with millions of events in the tables, beside empty ones.
    Size(size::Arguments),
    /// Append, read, follow and drain with a hundred million events in the tables, beside a million.
    Large(large::Arguments),
    /// What another program on the same server loses: TPC-B beside appends and their relay.
    Neighbour(neighbour::Arguments),
    /// The delay of an append at a steady rate, with coalescing and without.
    Steady(steady::Arguments),
    /// From append to an idle follower.
    Follow(follow::Arguments),
    /// The time to load an aggregate with many events, with a snapshot and without.
    Load(load::Arguments),
    /// Events per second of a projection that is built from history.
    Projection(projection::Arguments),
    /// Events per second out of a backlog: the relay beside a bare producer of the same bytes.
    Drain(drain::Arguments),
    /// Events per second out of ten million, beside a million.
    Backlog(backlog::Arguments),
    /// Events per second of large transactions, by relay and follower, beside those of small ones.
    Bulk(bulk::Arguments),
    /// From append to consumer, at a steady rate.
    Latency(latency::Arguments),
    /// The cost of a relay that has nothing to publish.
    Idle(idle::Arguments),
    /// One table of all figures that have a goal, from the files of a directory.
    Goals,
    /// From the end of a relay until another one publishes its shards.
    Takeover(takeover::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = run(&arguments) => ended,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        }
    });
    // Blocked calls in librdkafka no longer matter.
    runtime.shutdown_background();
    ended.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
}

fn failed(error: &anyhow::Error) -> ExitCode {
    progress(&format!("annals-bench: {error:#}"));
    ExitCode::FAILURE
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let machine = machine::Machine::look().await?;
    machine.print();
    let report = |command| Report::create(&arguments.output, command, &machine);
    match &arguments.command {
        Command::Append(append) => append::run(append, report("append")?).await,
        Command::Peers(peers) => peers::run(peers, report("peers")?).await,
        Command::Size(size) => size::run(size, report("size")?).await,
        Command::Large(large) => large::run(large, report("large")?).await,
        Command::Neighbour(arguments) => neighbour::run(arguments, report("neighbour")?).await,
        Command::Steady(steady) => steady::run(steady, report("steady")?).await,
        Command::Follow(follow) => follow::run(follow, report("follow")?).await,
        Command::Load(load) => load::run(load, report("load")?).await,
        Command::Projection(arguments) => projection::run(arguments, report("projection")?).await,
        Command::Drain(drain) => drain::run(drain, report("drain")?).await,
        Command::Backlog(backlog) => backlog::run(backlog, report("backlog")?).await,
        Command::Bulk(bulk) => bulk::run(bulk, report("bulk")?).await,
        Command::Idle(idle) => idle::run(idle, report("idle")?).await,
        Command::Goals => goals::run(&arguments.output),
        Command::Takeover(takeover) => takeover::run(takeover, report("takeover")?).await,
        Command::Latency(latency) => latency::run(latency, report("latency")?).await,
    }
}
