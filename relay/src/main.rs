//! The relay's binary: arguments, configuration, log, exit code.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use annals_relay::cli::{Arguments, execute, log};
use clap::Parser;

/// A record and its headers are a dozen allocations, which another thread frees, librdkafka's
/// included. With the C library's allocator, that takes a third of the relay's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Configuration and log are set up before other threads start: a mistake in them ends the process
/// at once.
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match start(&arguments) {
        Ok(code) => code,
        Err(error) => {
            // The log may not be set up yet, or may be JSON: this line is for operators.
            let mut line = format!("annals-relay: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                line.push_str(&format!(": {error}"));
                cause = error.source();
            }
            let printed = writeln!(std::io::stderr(), "{line}");
            if printed.is_ok() { ExitCode::FAILURE } else { ExitCode::from(2) }
        }
    }
}

fn start(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let config = arguments.read_config()?;
    log::init(&config.log)?;
    // One worker: the reader's memory is allocated and freed by the same thread. With two, a task
    // that moves between them leaves free pages in both.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let done = runtime.block_on(execute(arguments.command.clone(), config));
    // A hung thread must not keep the process from ending.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    done
}
