//! The subcommand `schemas`.

use std::path::PathBuf;

use annals_schemas::Compatibility;
use annals_store::Store;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use crate::cli::output::Output;
use crate::config::Config;
use crate::schemas::{ReaderTool, SchemaFinding, check, diff, export, print_for, read, register};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The operations on schemas.
#[derive(Debug, Clone, Subcommand)]
pub enum SchemasCommand {
    /// Check files, before a service with them is deployed: each must parse, be portable to other
    /// languages, and break neither readers of old events nor consumers that are not upgraded.
    /// Compared with every version in the store, and with the earlier versions among the files.
    Check {
        /// The files.
        #[command(flatten)]
        files: Files,
        /// The programs that they must not break.
        #[command(flatten)]
        mode: CompatibilityArguments,
        /// Compare with the files only: the store is not asked.
        #[arg(long)]
        offline: bool,
    },
    /// Check files, and register them in the schema registry under the subjects of their topics.
    /// Needs the role `annals_relay`, since it records the ids.
    Register {
        /// The files.
        #[command(flatten)]
        files: Files,
        /// The programs that they must not break.
        #[command(flatten)]
        mode: CompatibilityArguments,
    },
    /// Print the schemas of the files that the store or the registry lacks, and those of the store
    /// that the files lack.
    Diff {
        /// The files.
        #[command(flatten)]
        files: Files,
    },
    /// Write the schemas of the store as files, for code generation; or print what a tool needs to
    /// read a category's topic.
    Export(ExportArguments),
}

/// Folders of files.
#[derive(Debug, Clone, Args)]
pub struct Files {
    /// The folder, with a folder for each category.
    #[arg(required = true, value_name = "FOLDER")]
    folders: Vec<PathBuf>,
}

/// The programs that a new version may break.
#[derive(Debug, Clone, Copy, Args)]
pub struct CompatibilityArguments {
    /// The programs that a new version must not break: all, or readers of old events only.
    #[arg(long, value_enum, default_value = "full")]
    compatibility: CompatibilityArgument,
}

/// The programs that a new version must not break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CompatibilityArgument {
    /// Readers of old events.
    Backward,
    /// Also consumers that are not upgraded.
    Full,
}

/// The arguments of `schemas export`.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct ExportArguments {
    /// Write all versions of all schemas to FOLDER/CATEGORY/NAME.vN.avsc.
    #[arg(long, value_name = "FOLDER")]
    files: Option<PathBuf>,
    /// Print the DDL of a Flink SQL table that reads the category's whole topic.
    #[arg(long, value_name = "CATEGORY")]
    flink: Option<String>,
    /// Print the DDL of `ClickHouse` tables that read the category's whole topic.
    #[arg(long, value_name = "CATEGORY")]
    clickhouse: Option<String>,
    /// Print the statements of ksqlDB for a stream of each event type.
    #[arg(long, value_name = "CATEGORY")]
    ksql: Option<String>,
    /// Print the settings of a sink of Kafka Connect.
    #[arg(long, value_name = "CATEGORY")]
    connect: Option<String>,
}

impl From<CompatibilityArguments> for Compatibility {
    fn from(mode: CompatibilityArguments) -> Self {
        match mode.compatibility {
            CompatibilityArgument::Backward => Self::Backward,
            CompatibilityArgument::Full => Self::Full,
        }
    }
}

/// Executes the subcommand; returns the output, and whether there is no finding.
pub(super) async fn execute(
    config: Config,
    store: &Store,
    command: SchemasCommand,
    output: Output,
) -> Result<(String, bool)> {
    match command {
        SchemasCommand::Check { files, mode, offline } => {
            let files = read(&files.folders)?;
            let store = (!offline).then_some(store);
            let findings = check(store, &files, mode.into()).await?;
            Ok(told(&findings, files.len(), output))
        }
        SchemasCommand::Register { files, mode } => {
            let files = read(&files.folders)?;
            let findings = check(Some(store), &files, mode.into()).await?;
            if !findings.is_empty() {
                return Ok(told(&findings, files.len(), output));
            }
            let registered = register(config, store, &files).await?;
            if output == Output::Json {
                return Ok((format!("{}\n", json!({ "registered": registered })), true));
            }
            let lines = registered.iter().map(|of| format!("{} {}\n", of.id, of.subject));
            Ok((lines.collect(), true))
        }
        SchemasCommand::Diff { files } => {
            let files = read(&files.folders)?;
            let findings = diff(&config, store, &files).await?;
            Ok(told(&findings, files.len(), output))
        }
        SchemasCommand::Export(arguments) => {
            Ok((exported(&config, store, arguments, output).await?, true))
        }
    }
}

async fn exported(
    config: &Config,
    store: &Store,
    arguments: ExportArguments,
    output: Output,
) -> Result<String> {
    if let Some(folder) = arguments.files {
        let paths = export(store, &folder).await?;
        if output == Output::Json {
            return Ok(format!("{}\n", json!({ "files": paths })));
        }
        return Ok(paths.iter().map(|path| format!("{}\n", path.display())).collect());
    }
    let readers = [
        (ReaderTool::Flink, "flink", arguments.flink),
        (ReaderTool::ClickHouse, "clickhouse", arguments.clickhouse),
        (ReaderTool::Ksql, "ksql", arguments.ksql),
        (ReaderTool::Connect, "connect", arguments.connect),
    ];
    let mut text = String::new();
    for (reader, tool, category) in readers {
        let Some(category) = category else { continue };
        let printed = print_for(reader, config, store, &category).await?;
        text += &match output {
            Output::Text => printed,
            Output::Json => {
                format!("{}\n", json!({ "tool": tool, "category": category, "text": printed }))
            }
        };
    }
    Ok(text)
}

fn told(findings: &[SchemaFinding], files: usize, output: Output) -> (String, bool) {
    let is_sound = findings.is_empty();
    if output == Output::Json {
        let object = json!({ "is_sound": is_sound, "files": files, "findings": findings });
        return (format!("{object}\n"), is_sound);
    }
    let lines: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
    (format!("{lines}{files} files, {} findings\n", findings.len()), is_sound)
}
