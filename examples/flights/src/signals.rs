//! Ctrl-C and SIGTERM.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

/// Waits for one of them. Returns what a shell expects of a program that ends for it: 128 and its
/// number.
pub(crate) async fn told_to_end() -> Result<ExitCode> {
    let listen = |kind| signal(kind).context("listen for signals");
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let kind = tokio::select! {
        _ = interrupt.recv() => SignalKind::interrupt(),
        _ = terminate.recv() => SignalKind::terminate(),
    };
    writeln!(std::io::stderr().lock(), "annals-flights: told to end; the relay ends with it")?;
    Ok(ExitCode::from(128 + u8::try_from(kind.as_raw_value())?))
}
