//! Files compared with each other, with the store and with the registry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use annals_schemas::{Broken, Compatibility, Schema, SharedSchema, conflicting_definitions};
use annals_store::{Category, Store};

use super::{Registered, Result, SchemaFile, SchemaFinding, SchemaProblem};
use crate::config::Config;
use crate::publish::registry::RegistryClient;
use crate::publish::writer_schemas::shared;
use crate::report::failure::Failure;

/// The versions in the store, by category, in the order of their registration.
type Stored = BTreeMap<String, Vec<Schema>>;

/// Checks files, against the store too if there is one.
///
/// # Errors
/// The store does not answer, or a category's name is illegal.
pub(crate) async fn check(
    store: Option<&Store>,
    files: &[SchemaFile],
    mode: Compatibility,
) -> Result<Vec<SchemaFinding>> {
    let stored = match store {
        Some(store) => stored(store, files).await?,
        None => Stored::new(),
    };
    let mut findings = Vec::new();
    for (place, file) in files.iter().enumerate() {
        let schema = match &file.schema {
            Ok(schema) => schema,
            Err(reason) => {
                findings.push(file.finding(SchemaProblem::NoSchema, reason.clone()));
                continue;
            }
        };
        let refused = schema.refused_elsewhere().into_iter();
        findings.extend(refused.map(|what| file.finding(SchemaProblem::RefusedElsewhere, what)));
        let versions = stored.get(&file.category).map_or(&[][..], Vec::as_slice);
        let earlier = files[..place].iter().filter(|other| other.category == file.category);
        let earlier = earlier.filter_map(|other| other.schema.as_ref().ok());
        findings.extend(broken(file, schema, mode, versions, earlier));
    }
    findings.extend(conflicts(files));
    Ok(findings)
}

/// The programs that a version breaks; none if it is in the store, which has checked it.
fn broken<'a>(
    file: &SchemaFile,
    schema: &Schema,
    mode: Compatibility,
    stored: &'a [Schema],
    earlier: impl Iterator<Item = &'a Schema>,
) -> Vec<SchemaFinding> {
    if stored.contains(schema) {
        return Vec::new();
    }
    let is_version = |other: &&Schema| *other != schema && other.full_name() == schema.full_name();
    let mut compared = BTreeSet::new();
    let mut findings = Vec::new();
    for other in stored.iter().chain(earlier).filter(is_version) {
        if !compared.insert(other.fingerprint()) {
            continue;
        }
        for (breaks, reason) in mode.broken_by(schema, other) {
            let problem = match breaks {
                Broken::ReadersOfOldEvents => SchemaProblem::BreaksReadersOfOldEvents,
                Broken::ConsumersNotUpgraded => SchemaProblem::BreaksConsumersNotUpgraded,
            };
            findings.push(file.finding(problem, format!("breaks {breaks}: {reason}")));
        }
    }
    findings
}

/// The newest versions of each category with two definitions of one name.
fn conflicts(files: &[SchemaFile]) -> Vec<SchemaFinding> {
    let mut newest: BTreeMap<(&str, &str), (&SchemaFile, Schema)> = BTreeMap::new();
    for file in files {
        if let Ok(schema) = &file.schema {
            newest.insert((&file.category, schema.full_name()), (file, *schema));
        }
    }
    let categories: BTreeSet<&str> = newest.keys().map(|(category, _)| *category).collect();
    let of_category = |category: &str| {
        let of = newest.iter().filter(|((other, _), _)| *other == category);
        let of: Vec<_> = of.map(|(_, newest)| newest).collect();
        let schemas: Vec<Schema> = of.iter().map(|(_, schema)| *schema).collect();
        let file = of.last().map(|(file, _)| *file);
        let what = conflicting_definitions(&schemas).into_iter();
        let findings = what.filter_map(|what| {
            Some(SchemaFinding {
                schema: None,
                fingerprint: None,
                file: None,
                ..file?.finding(
                    SchemaProblem::ConflictingDefinition,
                    format!("category {category}: {what}"),
                )
            })
        });
        findings.collect::<Vec<_>>()
    };
    categories.into_iter().flat_map(of_category).collect()
}

/// Registers files under the subjects of their topics.
///
/// # Errors
/// The registry refuses one, or a component does not answer.
pub(crate) async fn register(
    mut config: Config,
    store: &Store,
    files: &[SchemaFile],
) -> Result<Vec<Registered>> {
    config.registry.auto_register = true;
    let client = RegistryClient::connect(&config, store)?;
    let mut known = stored(store, files).await?;
    let mut registered = Vec::new();
    for file in files {
        let Ok(schema) = &file.schema else { continue };
        let topic = Arc::<str>::from(config.topic(&file.category));
        let shared = shared_of(&config, &topic, file, &mut known)?;
        let id = client.id(&topic, *schema, shared.as_ref()).await?;
        let subject = match shared {
            Some(_) => format!("{topic}-value"),
            None => format!("{topic}-{}", schema.full_name()),
        };
        registered.push(Registered { subject, id: id.0 });
    }
    Ok(registered)
}

/// The schema that the types of a file's category share, where the file's is the newest. One that
/// is not in the store counts as registered next.
fn shared_of(
    config: &Config,
    topic: &Arc<str>,
    file: &SchemaFile,
    known: &mut Stored,
) -> Result<Option<SharedSchema>, Failure> {
    let Ok(schema) = file.schema else { return Ok(None) };
    let versions = known.entry(file.category.clone()).or_default();
    if !versions.contains(&schema) {
        versions.push(schema);
    }
    let up_to = versions.iter().position(|version| *version == schema).map_or(0, |at| at + 1);
    let layout = config.topics.layout(&file.category);
    shared(layout, (topic, &file.category), &versions[..up_to])
}

/// The differences between files, store and registry.
///
/// # Errors
/// A component does not answer.
pub(crate) async fn diff(
    config: &Config,
    store: &Store,
    files: &[SchemaFile],
) -> Result<Vec<SchemaFinding>> {
    let client = RegistryClient::connect(config, store)?;
    let stored = stored(store, files).await?;
    let mut known = stored.clone();
    let mut findings = Vec::new();
    for file in files {
        let schema = match &file.schema {
            Ok(schema) => schema,
            Err(reason) => {
                findings.push(file.finding(SchemaProblem::NoSchema, reason.clone()));
                continue;
            }
        };
        if !stored.get(&file.category).is_some_and(|versions| versions.contains(schema)) {
            findings
                .push(file.finding(SchemaProblem::NotInStore, "is not in the store".to_owned()));
        }
        let topic = Arc::<str>::from(config.topic(&file.category));
        let shared = shared_of(config, &topic, file, &mut known)?;
        match client.look_up(&topic, *schema, shared.as_ref()).await {
            Ok(()) => {}
            Err(Failure::Schema { .. }) => {
                let what = format!("is not in the registry, for topic {topic}");
                findings.push(file.finding(SchemaProblem::NotInRegistry, what));
            }
            Err(failure) => return Err(failure.into()),
        }
    }
    findings.extend(not_in_files(&stored, files));
    Ok(findings)
}

fn not_in_files(stored: &Stored, files: &[SchemaFile]) -> Vec<SchemaFinding> {
    let all = stored
        .iter()
        .flat_map(|(category, versions)| versions.iter().map(move |schema| (category, schema)));
    let missing = all.filter(|(category, schema)| {
        !files.iter().any(|file| file.is(category, schema.fingerprint()))
    });
    let finding = |(category, schema): (&String, &Schema)| SchemaFinding {
        category: category.clone(),
        schema: Some(schema.full_name().to_owned()),
        fingerprint: Some(schema.fingerprint().to_string()),
        file: None,
        problem: SchemaProblem::NotInFiles,
        what: "is in the store, and in no file".to_owned(),
    };
    missing.map(finding).collect()
}

/// The versions in the store of the files' categories.
async fn stored(store: &Store, files: &[SchemaFile]) -> Result<Stored> {
    let mut stored = Stored::new();
    for file in files {
        if !stored.contains_key(&file.category) {
            let category = Category::new(file.category.as_str())?;
            stored.insert(file.category.clone(), store.recorded_schemas(&category).await?);
        }
    }
    Ok(stored)
}
