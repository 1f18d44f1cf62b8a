//! A peer: how its tables are created, how it runs, and how its recorded events are counted.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use annals_store::{EventSet, StoreOptions};
use anyhow::Context;
use serde::Serialize;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::append::bed::Bed;
use crate::append::clients::Tagging;
use crate::append::pgbench::{Pgbench, Script, parse};
use crate::append::{Load, Run, clients};
use crate::event::parcel_event;
use crate::settle::settle;

/// Message DB's own files, in the order of its installation, without roles, rights and views.
const MESSAGE_DB_FILES: [&str; 14] = [
    "schema/message-store",
    "extensions/pgcrypto",
    "tables/messages",
    "types/message",
    "functions/hash-64",
    "functions/category",
    "functions/acquire-lock",
    "functions/is-category",
    "functions/id",
    "functions/cardinal-id",
    "functions/stream-version",
    "functions/write-message",
    "indexes/messages-id",
    "indexes/messages-stream",
];
const MESSAGE_DB_LAST: &str = "indexes/messages-category";
const SEARCH_PATH: &str = "set search_path = message_store, public;\n";

/// The appending program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Peer {
    Annals,
    /// Each append makes a call of its own, as from as many processes.
    AnnalsUncoalesced,
    /// Two tags, and a condition on each.
    AnnalsTagged,
    Minimal,
    MessageDb,
    MessageDbInEightCategories,
    Eventsourcing,
}

impl Peer {
    /// In the order of the table.
    pub(crate) const ALL: [Self; 7] = [
        Self::Annals,
        Self::AnnalsUncoalesced,
        Self::AnnalsTagged,
        Self::Minimal,
        Self::MessageDb,
        Self::MessageDbInEightCategories,
        Self::Eventsourcing,
    ];

    /// Creates a database in which each stream has an event, and waits until the server is idle.
    pub(crate) async fn prepare(self, load: Load, tools: &Tools) -> anyhow::Result<Ready> {
        // Annals' own streams are made for Annals only.
        let is_annals = matches!(self, Self::Annals | Self::AnnalsUncoalesced | Self::AnnalsTagged);
        let streams = if is_annals { load.streams } else { 0 };
        let bed = Bed::make(Load { streams, ..load }).await?;
        let setup = match self {
            Self::Annals | Self::AnnalsUncoalesced | Self::AnnalsTagged | Self::Eventsourcing => {
                String::new()
            }
            Self::Minimal => include_str!("../../sql/minimal_setup.sql").to_owned(),
            Self::MessageDb | Self::MessageDbInEightCategories => tools.message_db_setup()?,
        };
        if !setup.is_empty() {
            let mut connection = PgConnection::connect(bed.database_url()).await?;
            let made = sqlx::raw_sql(AssertSqlSafe(setup)).execute(&mut connection).await;
            made.with_context(|| format!("make the tables of {self}"))?;
            connection.close().await?;
            settle(bed.database_url()).await?;
        }
        Ok(Ready { peer: self, bed })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Annals => "annals",
            Self::AnnalsUncoalesced => "annals, a call per append",
            Self::AnnalsTagged => "annals, two tags and a condition on each",
            Self::Minimal => "smallest insert",
            Self::MessageDb => "message-db",
            Self::MessageDbInEightCategories => "message-db, 8 categories",
            Self::Eventsourcing => "eventsourcing (Python)",
        })
    }
}

/// A peer in a database of its own.
#[derive(Debug)]
pub(crate) struct Ready {
    peer: Peer,
    bed: Bed,
}

impl Ready {
    /// Runs it for the duration of the load.
    pub(crate) async fn run(&self, load: Load, tools: &Tools) -> anyhow::Result<Run> {
        let (script, categories) = match self.peer {
            Peer::Annals => return clients::run(self.bed.store(), load, Tagging::None).await,
            Peer::AnnalsUncoalesced | Peer::AnnalsTagged => {
                let tagging = match self.peer {
                    Peer::AnnalsTagged => Tagging::Conditions,
                    _ => Tagging::None,
                };
                let options = StoreOptions::default().connections_max(load.clients);
                let store = options.without_coalescing().connect(self.bed.database_url()).await?;
                return clients::run(&store, load, tagging).await;
            }
            Peer::Eventsourcing => return tools.eventsourcing(self.bed.database_url(), load).await,
            Peer::Minimal => (("minimal", include_str!("../../sql/minimal.pgbench.sql")), 1),
            Peer::MessageDb => {
                (("message_db", include_str!("../../sql/message_db.pgbench.sql")), 1)
            }
            Peer::MessageDbInEightCategories => {
                (("message_db", include_str!("../../sql/message_db.pgbench.sql")), 8)
            }
        };
        let path = tools.scripts.join(format!("{}.pgbench.sql", script.0));
        std::fs::write(&path, script.1).with_context(|| format!("write {}", path.display()))?;
        let variables = vec![
            ("append", "0".to_owned()),
            ("streams", load.streams.to_string()),
            ("categories", categories.to_string()),
            ("data", event_json()?),
        ];
        tools.pgbench.run(self.bed.database_url(), load, &Script { path, variables }).await
    }

    /// The number of recorded events.
    pub(crate) async fn recorded(&self) -> anyhow::Result<i64> {
        let count = match self.peer {
            Peer::Annals | Peer::AnnalsUncoalesced | Peer::AnnalsTagged => {
                return self.bed.events().await;
            }
            Peer::Minimal => include_str!("../../sql/minimal_count.sql"),
            Peer::MessageDb | Peer::MessageDbInEightCategories => {
                include_str!("../../sql/message_db_count.sql")
            }
            Peer::Eventsourcing => include_str!("../../sql/eventsourcing_count.sql"),
        };
        let counted = sqlx::query_scalar(count).fetch_one(self.bed.store().pool()).await;
        match counted {
            Ok(events) => Ok(events),
            // Its client creates the table.
            Err(sqlx::Error::Database(error)) if error.code().is_some_and(|c| c == "42P01") => {
                Ok(0)
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn event_json() -> anyhow::Result<String> {
    Ok(parcel_event(0).encode()?.data.get().to_owned())
}

/// The programs that run the peers, and their paths.
#[derive(Debug)]
pub(crate) struct Tools {
    pgbench: Pgbench,
    message_db: PathBuf,
    python: PathBuf,
    scripts: PathBuf,
}

impl Tools {
    /// Looks for them; without pgbench there is no comparison.
    pub(crate) fn find(peers: &Path, scripts: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            pgbench: Pgbench::find().context("find pgbench")?,
            message_db: peers.join("message-db/package/database"),
            python: peers.join("eventsourcing/bin/python"),
            scripts: scripts.to_owned(),
        })
    }

    /// Whether a peer is installed.
    pub(crate) fn has(&self, peer: Peer) -> bool {
        match peer {
            Peer::Annals | Peer::AnnalsUncoalesced | Peer::AnnalsTagged | Peer::Minimal => true,
            Peer::MessageDb | Peer::MessageDbInEightCategories => self.message_db.is_dir(),
            Peer::Eventsourcing => self.python.is_file(),
        }
    }

    fn message_db_setup(&self) -> anyhow::Result<String> {
        let mut setup = SEARCH_PATH.to_owned();
        for name in MESSAGE_DB_FILES.into_iter().chain([MESSAGE_DB_LAST]) {
            let path = self.message_db.join(format!("{name}.sql"));
            let text = std::fs::read_to_string(&path);
            setup += &text.with_context(|| format!("read {}", path.display()))?;
            setup.push_str("\n;\n");
        }
        Ok(setup + include_str!("../../sql/message_db_seed.sql"))
    }

    async fn eventsourcing(&self, url: &str, load: Load) -> anyhow::Result<Run> {
        let mut child = Command::new(&self.python)
            .arg("bench/peers/eventsourcing/append.py")
            .arg(url)
            .args([load.clients.to_string(), load.duration.as_secs().to_string()])
            .arg(load.streams.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start the Python peer")?;
        let mut input = child.stdin.take().context("open its input")?;
        input.write_all(event_json()?.as_bytes()).await?;
        drop(input);
        let output = child.wait_with_output().await?;
        anyhow::ensure!(output.status.success(), "the Python peer failed");
        parse(&String::from_utf8_lossy(&output.stdout))
    }
}
