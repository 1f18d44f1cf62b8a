//! The subcommand `config`.

use crate::cli::output::Output;
use crate::config::Effective;

/// Each key with its value and its origin: TOML with comments, or one JSON object.
pub(super) fn text(effective: &Effective, output: Output) -> Result<String, serde_json::Error> {
    if output == Output::Json {
        let keys: Vec<_> = effective.shown().collect();
        return Ok(format!("{}\n", serde_json::to_string(&serde_json::json!({ "keys": keys }))?));
    }
    let mut text = String::new();
    let mut section = "";
    for of in effective.shown() {
        let (its_section, name) = of.key.split_once('.').unwrap_or(("", of.key));
        if its_section != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{gap}[{its_section}]\n"));
            section = its_section;
        }
        text.push_str(&format!("{:<60} # {}\n", format!("{name} = {}", of.value), of.origin));
    }
    Ok(text)
}
