//! One run of the demo: a database, topics and a directory of its own, so that it can be run again
//! at once.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use toml::Value;

use crate::environment::Environment;

/// Directories of runs that are kept, this one included.
const KEPT: usize = 5;

/// The names of a run, and where its components are. Written to `run.json` of its directory.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Run {
    /// When it began: `20261121_093000_123`, UTC.
    pub(crate) id: String,
    pub(crate) database: String,
    pub(crate) database_url: String,
    pub(crate) kafka: String,
    pub(crate) registry_url: String,
    pub(crate) topic_prefix: String,
    pub(crate) deployment: String,
    #[serde(skip)]
    pub(crate) directory: PathBuf,
}

impl Run {
    /// Names a new run, and makes its directory.
    pub(crate) fn begin(environment: &Environment) -> Result<Self> {
        let now = Timestamp::now().to_zoned(TimeZone::UTC);
        let id = now.strftime("%Y%m%d_%H%M%S_%3f").to_string();
        let name = id.replace('_', "-");
        let database = format!("annals_demo_{id}");
        let run = Self {
            database_url: environment.url_of_database(&database),
            database,
            kafka: environment.kafka.clone(),
            registry_url: environment.registry_url.clone(),
            topic_prefix: format!("demo-{name}-"),
            deployment: format!("demo-{name}"),
            directory: home().join(&id),
            id,
        };
        run.make_directory()
            .with_context(|| format!("make the directory {}", run.directory.display()))?;
        Ok(run)
    }

    /// Reads back what a run wrote down.
    pub(crate) fn of_directory(directory: &Path) -> Result<Self> {
        let path = directory.join("run.json");
        let text = fs::read_to_string(&path);
        let text =
            text.with_context(|| format!("read {}: has the demo been run?", path.display()))?;
        let run: Self =
            serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
        Ok(Self { directory: directory.to_owned(), ..run })
    }

    /// The directory of the latest run.
    pub(crate) fn latest() -> PathBuf {
        home().join("last")
    }

    /// The topic of a category.
    pub(crate) fn topic(&self, category: &str) -> String {
        format!("{}{category}", self.topic_prefix)
    }

    pub(crate) fn relay_config(&self) -> PathBuf {
        self.directory.join("relay.toml")
    }

    pub(crate) fn relay_log(&self) -> PathBuf {
        self.directory.join("relay.log")
    }

    pub(crate) fn relay_pid(&self) -> PathBuf {
        self.directory.join("relay.pid")
    }

    pub(crate) fn demo_log(&self) -> PathBuf {
        self.directory.join("demo.log")
    }

    fn make_directory(&self) -> Result<()> {
        fs::create_dir_all(home())?;
        DirBuilder::new().mode(0o700).create(&self.directory)?;
        self.write("run.json", &serde_json::to_string_pretty(self)?)?;
        self.write("relay.toml", &self.relay_settings()?)?;
        // Renamed, not replaced: another demo may begin at the same time.
        let link = home().join(format!("{}.link", self.id));
        symlink(&self.id, &link)?;
        fs::rename(&link, Self::latest())?;
        remove_old()
    }

    /// Only for the eyes of the user who runs the demo: a URL may have a password.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.directory.join(name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(file.write_all(text.as_bytes())?)
    }

    fn relay_settings(&self) -> Result<String> {
        let text = |text: &str| Value::from(text);
        let registry = [("url", text(&self.registry_url)), ("auto_register", Value::from(true))];
        let settings = table([
            ("relay", table([("deployment", text(&self.deployment)), ("instance", text("demo"))])),
            ("database", table([("url", text(&self.database_url))])),
            ("kafka", table([("bootstrap_servers", text(&self.kafka))])),
            ("registry", table(registry)),
            ("topics", table([("prefix", text(&self.topic_prefix))])),
            ("http", table([("listen", text("127.0.0.1:0"))])),
        ]);
        Ok(toml::to_string(&settings)?)
    }
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Table(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// The checkout that this program was built from.
pub(crate) fn checkout() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).unwrap_or(package)
}

/// A path as it is written in the current directory.
pub(crate) fn from_here(path: &Path) -> &Path {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path)
}

/// Where the runs have their directories: beside the data of the components.
fn home() -> PathBuf {
    checkout().join(".dev/demo")
}

/// All runs that still have a directory, oldest first.
pub(crate) fn all() -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for entry in fs::read_dir(home()).with_context(|| format!("list {}", home().display()))? {
        let path = entry?.path();
        // A file that cannot be read is not a run of this version of the demo.
        if !path.is_symlink()
            && let Ok(run) = Run::of_directory(&path)
        {
            runs.push(run);
        }
    }
    runs.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(runs)
}

fn remove_old() -> Result<()> {
    let mut runs = all()?;
    runs.truncate(runs.len().saturating_sub(KEPT));
    for run in runs {
        fs::remove_dir_all(run.directory)?;
    }
    Ok(())
}
