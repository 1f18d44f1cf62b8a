//! The relay's binary: arguments, configuration, log, and an exit code that says how it ended.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use annals_relay::commands::{Arguments, execute};
use annals_relay::telemetry;
use clap::Parser;

/// A record and its headers are a dozen pieces of memory, taken on one thread and given back on another, by
/// librdkafka as well. The C library's allocator takes a third of the relay's time for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Configuration and log are set up before anything runs beside them, so that a mistake in them ends the
/// process at once.
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The log may not be there yet, or may be in a form for machines: this line is for people.
            let mut line = format!("annals-relay: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                line.push_str(&format!(": {error}"));
                cause = error.source();
            }
            let said = writeln!(std::io::stderr(), "{line}");
            if said.is_ok() { ExitCode::FAILURE } else { ExitCode::from(2) }
        }
    }
}

fn start(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let config = arguments.read_config()?;
    telemetry::init(&config.log)?;
    // One worker: what the reader takes of the memory is taken by one thread, and given back to it. With two, a task that
    // moves between them leaves its pages behind in both.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let done = runtime.block_on(execute(arguments.command.clone(), config));
    // A thread that hangs must not keep the process from ending.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    done
}
