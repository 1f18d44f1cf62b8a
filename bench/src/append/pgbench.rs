//! The other side: pgbench, which calls the same procedure with the same events.

use std::path::{Path, PathBuf};

use annals_store::EventSet;
use anyhow::Context;
use tokio::process::Command;

use super::{Load, Run};
use crate::event::parcel_event;
use crate::machine::cores;

const SCRIPT: &str = include_str!("../../sql/append.pgbench.sql");
const PROGRAMS: &str = "/usr/lib/postgresql";

/// The pgbench program and its path.
#[derive(Debug)]
pub(crate) struct Pgbench {
    program: PathBuf,
}

impl Pgbench {
    /// Looks for it on PATH and where Debian installs it; of several the last version.
    pub(crate) fn find() -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut versions: Vec<PathBuf> = std::fs::read_dir(PROGRAMS)
            .map(|entries| {
                entries.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).collect()
            })
            .unwrap_or_default();
        versions.sort();
        let places = std::env::split_paths(&path).chain(versions.into_iter().rev());
        let program =
            places.map(|place| place.join("pgbench")).find(|program| program.is_file())?;
        Some(Self { program })
    }

    /// Calls the procedure that the store calls. The script remains in `directory`, for manual
    /// runs.
    pub(crate) async fn append(
        &self,
        url: &str,
        load: Load,
        directory: &Path,
    ) -> anyhow::Result<Run> {
        let path = directory.join("append.pgbench.sql");
        std::fs::write(&path, SCRIPT).with_context(|| format!("write {}", path.display()))?;
        self.run(url, load, &Script { path, variables: variables(load)? }).await
    }

    /// Runs a script for the duration of the load.
    pub(crate) async fn run(&self, url: &str, load: Load, script: &Script) -> anyhow::Result<Run> {
        let mut command = self.command(load)?;
        let variables = script.variables.iter();
        command
            .arg("--file")
            .arg(&script.path)
            .args(variables.flat_map(|(name, value)| ["-D".to_owned(), format!("{name}={value}")]))
            .arg(url);
        parse(&succeed(command).await?)
    }

    /// Makes the tables of pgbench's own TPC-B with so many branches, of 100,000 accounts each.
    pub(crate) async fn initialize_tpcb(&self, url: &str, branches: u32) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        command.args(["--initialize", "--quiet", "--scale", &branches.to_string(), url]);
        succeed(command).await.map(drop)
    }

    /// Runs pgbench's own TPC-B for the duration of the load.
    pub(crate) async fn tpcb(&self, url: &str, load: Load) -> anyhow::Result<Run> {
        let mut command = self.command(load)?;
        command.args(["--builtin=tpcb-like", url]);
        parse(&succeed(command).await?)
    }

    fn command(&self, load: Load) -> anyhow::Result<Command> {
        let threads = usize::try_from(load.clients)?.min(cores());
        let mut command = Command::new(&self.program);
        command
            .args(["--no-vacuum", "--protocol=prepared"])
            .args(["--time", &load.duration.as_secs().to_string()])
            .args(["--client", &load.clients.to_string(), "--jobs", &threads.to_string()])
            // Message DB's functions refer to each other without their schema.
            .env("PGOPTIONS", "-c search_path=message_store,public");
        Ok(command)
    }
}

/// Runs a command, and returns what it prints.
async fn succeed(mut command: Command) -> anyhow::Result<String> {
    let program = command.as_std().get_program().to_owned();
    let output = command.kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("start {}", program.display()))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{} failed: {errors}", program.display());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The arguments of a pgbench run.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) path: PathBuf,
    pub(crate) variables: Vec<(&'static str, String)>,
}

/// The events of an append, as array literals for the script's variables.
fn variables(load: Load) -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut encoded = Vec::with_capacity(load.events);
    for sequence in 0..load.events {
        encoded.push(parcel_event(i64::try_from(sequence)?).encode()?);
    }
    let repeated = |text: &str| array(std::iter::repeat_n(text.to_owned(), load.events));
    Ok(vec![
        ("append", "0".to_owned()),
        ("streams", load.streams.to_string()),
        ("stream_of", repeated("1")),
        // Nineteen digits replace append-id, which gives a UUID.
        ("event_ids", array((0..load.events).map(|event| format!("append-id{event:013}")))),
        ("event_types", array(encoded.iter().map(|event| event.event_type.to_owned()))),
        ("fingerprints", array(encoded.iter().map(|event| event.fingerprint.get().to_string()))),
        ("payloads", array(encoded.iter().map(|event| bytea(&event.payload)))),
        ("data", array(encoded.iter().map(|event| event.data.get().to_owned()))),
        ("metadata", repeated("{}")),
        ("headers", repeated("{}")),
    ])
}

/// An array literal with quoted elements.
fn array(elements: impl IntoIterator<Item = String>) -> String {
    let quoted = |element: String| {
        let escaped = element.replace('\\', "\\\\").replace('"', "\\\"");
        format!("\"{escaped}\"")
    };
    let elements: Vec<String> = elements.into_iter().map(quoted).collect();
    format!("{{{}}}", elements.join(","))
}

fn bytea(bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    format!("\\x{}", digits.collect::<String>())
}

/// Reads the two figures of pgbench's summary.
pub(crate) fn parse(text: &str) -> anyhow::Result<Run> {
    let behind = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|rest| rest.split([' ', '/']).next());
        number.with_context(|| format!("no line with {key:?} in:\n{text}"))
    };
    Ok(Run {
        appends: behind("number of transactions actually processed: ")?.parse()?,
        appends_per_second: behind("tps = ")?.parse()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_pgbench_is_read() {
        let text = "transaction type: append.pgbench.sql\nnumber of transactions actually processed: 13519\n\
             number of failed transactions: 0 (0.000%)\ntps = 3379.881125 (without initial connection time)\n";
        let run = Run { appends: 13_519, appends_per_second: 3_379.881_125 };
        assert_eq!(parse(text).unwrap(), run);
        assert!(parse("pgbench: error").is_err());
    }

    #[test]
    fn an_array_literal_keeps_quotes_and_backslashes() {
        let elements = [r#"{"a": "b\n"}"#, r"\x00ff"].map(str::to_owned);
        assert_eq!(array(elements), r#"{"{\"a\": \"b\\n\"}","\\x00ff"}"#);
        assert_eq!(bytea(&[0, 255]), "\\x00ff");
    }
}
