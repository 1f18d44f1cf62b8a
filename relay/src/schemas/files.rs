//! Reads schemas from FOLDER/CATEGORY/NAME.vN.avsc.

use std::path::{Path, PathBuf};

use annals_schemas::Schema;

use super::{Result, SchemaFile};

/// Reads the files of folders, each category in the order of its names and versions.
///
/// # Errors
/// A folder or file that cannot be read, or no file at all.
pub(crate) fn read(folders: &[PathBuf]) -> Result<Vec<SchemaFile>> {
    let mut files = Vec::new();
    for folder in folders {
        for category in entries(folder)?.into_iter().filter(|path| path.is_dir()) {
            files.extend(of_category(&category)?);
        }
    }
    if files.is_empty() {
        return Err(format!("no FOLDER/CATEGORY/NAME.avsc below {}", shown(folders)).into());
    }
    files.sort_by_cached_key(|file| {
        let (name, version) = name_and_version(&file.path);
        (file.category.clone(), name, version)
    });
    Ok(files)
}

fn of_category(folder: &Path) -> Result<Vec<SchemaFile>> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_schema = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "avsc");
    entries(folder)?.into_iter().filter(is_schema).map(|path| file(&name, path)).collect()
}

fn file(category: &str, path: PathBuf) -> Result<SchemaFile> {
    let text = std::fs::read_to_string(&path).map_err(|error| unread(&path, &error))?;
    let schema = Schema::parse(&text).map_err(|error| error.to_string());
    Ok(SchemaFile { category: category.to_owned(), path, schema })
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|error| unread(folder, &error))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let paths: Result<Vec<_>, _> = paths.collect();
    Ok(paths.map_err(|error| unread(folder, &error))?)
}

fn unread(path: &Path, error: &std::io::Error) -> String {
    format!("read {}: {error}", path.display())
}

fn shown(folders: &[PathBuf]) -> String {
    let folders: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
    folders.join(", ")
}

/// `OrderPlaced.v10.avsc` is version 10 of `OrderPlaced`; a file without a number is the newest.
fn name_and_version(path: &Path) -> (String, u64) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    match stem.rsplit_once(".v").map(|(name, version)| (name.to_owned(), version.parse())) {
        Some((name, Ok(version))) => (name, version),
        Some((_, Err(_))) | None => (stem, u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_follow_their_numbers_and_a_file_without_one_is_the_newest() {
        let named = |name: &str| name_and_version(Path::new(name));
        assert!(named("a/X.v2.avsc") < named("a/X.v10.avsc"));
        assert!(named("a/X.v10.avsc") < named("b/X.avsc"));
        assert_eq!(named("X.very.avsc").0, "X.very");
    }
}
