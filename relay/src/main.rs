//! The relay's binary: arguments, configuration, log, exit code.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use annals_relay::cli::{Arguments, Invocation, execute, log};
use annals_relay::report::in_full;
use clap::Parser;

/// A record and its headers are a dozen allocations, which another thread frees, librdkafka's
/// included. With the C library's allocator, that takes a third of the relay's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Configuration and log are set up before other threads start: a mistake in them ends the process
/// at once.
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match start(arguments) {
        Ok(code) => code,
        Err(error) => {
            // The log may not be set up yet, or may be JSON: this line is for operators.
            // Its reader may be gone.
            drop(writeln!(std::io::stderr(), "annals-relay: {}", in_full(&*error)));
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    if let Some(done) = arguments.execute_alone() {
        return Ok(done.map(|()| ExitCode::SUCCESS)?);
    }
    let (config, effective) = arguments.read_config()?;
    let log = log::init(&config.log)?;
    let process = Invocation { arguments, config, effective, log };
    // One worker: the reader's memory is allocated and freed by the same thread. With two, a task
    // that moves between them leaves free pages in both.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let done = runtime.block_on(execute(process));
    // A hung thread must not keep the process from ending.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    done
}
