//! Writes the schemas of the store as files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use annals_schemas::Schema;
use annals_store::Store;

use super::Result;

/// Writes every version of every schema to FOLDER/CATEGORY/NAME.vN.avsc; returns the paths.
///
/// # Errors
/// The store does not answer, or a file cannot be written.
pub(crate) async fn export(store: &Store, folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for category in store.categories().await? {
        let folder = folder.join(category.as_str());
        std::fs::create_dir_all(&folder)?;
        let schemas = store.recorded_schemas(&category).await?;
        let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
        for schema in &schemas {
            let version = versions.entry(schema.full_name()).or_default();
            *version += 1;
            let path = folder.join(format!("{}.v{version}.avsc", file_name(schema, &schemas)));
            std::fs::write(&path, format!("{}\n", schema.definition()))?;
            paths.push(path);
        }
    }
    Ok(paths)
}

/// The record's name; with its namespace if the category has two of that name.
fn file_name(schema: &Schema, all: &[Schema]) -> &'static str {
    let is_namesake =
        |other: &Schema| other.name() == schema.name() && other.full_name() != schema.full_name();
    if all.iter().any(is_namesake) { schema.full_name() } else { schema.name() }
}
