//! The subcommand `check`.

use std::sync::Arc;

use annals_store::Store;

use crate::check::{CheckLimits, Severity, check};
use crate::cli::output::Output;
use crate::config::Config;

/// Checks the components; returns the output, and whether there is no error.
pub(super) async fn execute(
    config: Config,
    store: &Store,
    limits: CheckLimits,
    output: Output,
) -> Result<(String, bool), Box<dyn std::error::Error>> {
    let findings = check(&Arc::new(config), store, limits).await;
    let errors = findings.iter().filter(|of| of.severity == Severity::Error).count();
    let is_sound = errors == 0;
    if output == Output::Json {
        let line = serde_json::json!({ "is_ready": is_sound, "findings": findings });
        return Ok((format!("{line}\n"), is_sound));
    }
    let lines: String = findings.iter().map(|of| format!("{of}\n")).collect();
    let warnings = findings.len() - errors;
    Ok((format!("{lines}{errors} errors, {warnings} warnings\n"), is_sound))
}
