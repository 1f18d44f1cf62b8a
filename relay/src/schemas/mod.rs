//! Schemas of events in files, in the store and in the registry, for the subcommand `schemas`.

mod columns;
mod comparison;
mod export;
mod files;
mod printed;
mod printed_connect;
mod printed_flink;

use std::fmt;
use std::path::PathBuf;

use annals_schemas::{Fingerprint, Schema};
use serde::Serialize;

pub(crate) use comparison::{check, diff, register};
pub(crate) use export::export;
pub(crate) use files::read;
pub(crate) use printed::{ReaderTool, print_for};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// A file with a version of a schema.
#[derive(Debug)]
pub(crate) struct SchemaFile {
    category: String,
    path: PathBuf,
    /// The schema, or why it is none.
    schema: Result<Schema, String>,
}

/// Something to know about a schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SchemaFinding {
    category: String,
    /// The record's full name; none of a file that is no schema.
    schema: Option<String>,
    fingerprint: Option<String>,
    file: Option<PathBuf>,
    problem: SchemaProblem,
    what: String,
}

/// The kind of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum SchemaProblem {
    NoSchema,
    RefusedElsewhere,
    ConflictingDefinition,
    BreaksReadersOfOldEvents,
    BreaksConsumersNotUpgraded,
    NotInStore,
    NotInFiles,
    NotInRegistry,
}

/// A schema that is registered.
#[derive(Debug, Serialize)]
pub(crate) struct Registered {
    pub(crate) subject: String,
    pub(crate) id: u32,
}

impl SchemaFile {
    fn finding(&self, problem: SchemaProblem, what: String) -> SchemaFinding {
        let schema = self.schema.as_ref().ok();
        SchemaFinding {
            category: self.category.clone(),
            schema: schema.map(|schema| schema.full_name().to_owned()),
            fingerprint: schema.map(|schema| schema.fingerprint().to_string()),
            file: Some(self.path.clone()),
            problem,
            what,
        }
    }

    fn is(&self, category: &str, fingerprint: Fingerprint) -> bool {
        let own = self.schema.as_ref().map(Schema::fingerprint);
        self.category == category && own.is_ok_and(|own| own == fingerprint)
    }
}

impl fmt::Display for SchemaFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        if let (Some(schema), Some(fingerprint)) = (&self.schema, &self.fingerprint) {
            write!(f, "{schema} ({fingerprint}) of category {}: ", self.category)?;
        }
        f.write_str(&self.what)
    }
}
