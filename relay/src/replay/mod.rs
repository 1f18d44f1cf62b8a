//! Replay: published events are published again, to their topics or to a side topic, in the order
//! of their streams, each once.
//!
//! The replayed events are fixed at the begin: the events that cursors cover, which no later append
//! changes. The progress is a record in the transaction of the replayed records, under one
//! transactional id of the deployment: a process that resumes fences an earlier one, reads the last
//! progress, and continues behind it. So each event is replayed once, wherever a process dies.

mod covered;
mod destinations;
mod pages;
pub(crate) mod plan;
mod producer;
mod repair;
mod session;
mod transactions;

use std::collections::BTreeMap;
use std::sync::Arc;

use annals_store::{Position, Store, Version};
use jiff::Timestamp;
use sqlx::Row;

use crate::config::Config;
pub(crate) use crate::replay::pages::PartCount;
use crate::replay::plan::{Plan, Range, ReplayPart};
pub(crate) use crate::replay::repair::Losses;
use crate::replay::session::{ReplayEnd, ReplaySession};
use crate::replay::transactions::Transactions;
use crate::report::failure::Failure;
use crate::state::overview;

/// Why a replay is refused, or ends early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    /// A component failed: resume it.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// Another process replays.
    #[error("replay {replay} of this deployment runs in another process: one at a time")]
    Running {
        /// The replay.
        replay: i64,
    },
    /// An earlier replay is not finished.
    #[error(
        "replay {replay} of this deployment is not finished: continue it with --resume, or give it up with --abandon"
    )]
    Unfinished {
        /// The replay.
        replay: i64,
    },
    /// There is no unfinished replay.
    #[error("no replay of this deployment is unfinished")]
    NothingToResume,
    /// Relays run that publish to the same topics.
    #[error(
        "relays of this deployment run ({running}) and publish to {topic}: new events would come before the replayed ones, \
         and readers from the beginning would stop at a gap. Stop the relays, or quarantine the category, or give \
         --beside-relays if all consumers have applied these events"
    )]
    RelaysRun {
        /// The relays.
        running: String,
        /// One of the topics.
        topic: String,
    },
    /// No relay has published anything.
    #[error("no relay of deployment {0} has run: there is nothing to publish again")]
    NeverRun(String),
    /// The side topic cannot be used.
    #[error("--to {topic}: {reason}")]
    Target {
        /// The topic.
        topic: String,
        /// Why.
        reason: &'static str,
    },
    /// An event cannot be read.
    #[error("the event of {stream} at position {position} cannot be replayed: {reason}")]
    Unreadable {
        /// Its stream.
        stream: String,
        /// Its position.
        position: Position,
        /// Why.
        reason: String,
    },
    /// Another replay ran after the losses were found.
    #[error(
        "replay {replay} of this deployment ran after the audit had begun, and may have published the same events: audit again"
    )]
    Meanwhile {
        /// The other replay.
        replay: i64,
    },
    /// Too many events are lost for a list of them.
    #[error(
        "more than {max} events are lost: delete the topics that lost them, and replay their categories"
    )]
    TooManyLost {
        /// The most that are listed.
        max: usize,
    },
    /// A plan cannot be written or read.
    #[error("write the plan of the replay")]
    Plan(#[from] serde_json::Error),
}

type Result<T = (), E = ReplayError> = std::result::Result<T, E>;

/// Which events an operator wants to replay.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReplaySelection {
    pub(crate) categories: Vec<String>,
    pub(crate) streams: Vec<String>,
    pub(crate) versions: (Option<Version>, Option<Version>),
    pub(crate) positions: (Option<Position>, Option<Position>),
    pub(crate) times: (Option<Timestamp>, Option<Timestamp>),
    /// The side topic.
    pub(crate) target: Option<String>,
    /// Whether relays may publish to the same topics meanwhile.
    pub(crate) beside_relays: bool,
}

/// The result of a replay.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Replayed {
    /// Its number, the value of `ce_replayed`.
    pub(crate) replay: i64,
    /// All replayed events, those before a resumption included.
    pub(crate) events: u64,
    /// The events of this run.
    pub(crate) events_of_this_run: u64,
    /// The duration of this run.
    pub(crate) seconds: f64,
}

/// A deployment whose events are replayed. `config` has its store and its generation.
pub(crate) struct Replay<'a> {
    pub(crate) config: &'a Arc<Config>,
    pub(crate) store: &'a Store,
    /// The most events a second.
    pub(crate) rate_max: Option<u32>,
}

impl Replay<'_> {
    /// The configuration with the generation of its deployment, whose checkpoints are read.
    pub(crate) async fn in_generation(config: Config, store: &Store) -> Result<(Config, i16)> {
        let state = overview::deployment(store, &config.publication()).await?;
        let generation = state.generation.unwrap_or(1);
        Ok((config.in_generation(generation.unsigned_abs()), state.shards))
    }

    /// Plans a replay.
    pub(crate) async fn plan(&self, selection: &ReplaySelection, shards: i16) -> Result<Plan> {
        let parts = self.parts(selection).await?;
        self.plan_of(parts, selection, shards).await
    }

    async fn plan_of(
        &self,
        parts: Vec<ReplayPart>,
        selection: &ReplaySelection,
        shards: i16,
    ) -> Result<Plan> {
        let target = selection.target.clone();
        if let Some(topic) = &target {
            self.may_be_target(topic)?;
        } else if !selection.beside_relays {
            self.relays_do_not_publish(&parts).await?;
        }
        let acquired = self.store.pool().acquire().await;
        let mut connection = acquired.map_err(Failure::database("connect"))?;
        let end = self.store.log_end(&mut connection).await.map_err(Failure::from)?.bound;
        drop(connection);
        let covered = match &target {
            Some(_) => covered::everything(&end, shards)?,
            None => covered::published(self.config, self.store, shards).await?,
        };
        if covered.shards.is_empty() {
            return Err(ReplayError::NeverRun(self.config.publication()));
        }
        let (first, last) = selection.positions;
        let before = |position: Position| Position::new(position.get() - 1);
        let range = Range {
            after: first.and_then(before).unwrap_or(Position::ORIGIN),
            until: last.unwrap_or(end.position).min(end.position),
            first_version: selection.versions.0,
            last_version: selection.versions.1,
            first_time: selection.times.0,
            end_time: selection.times.1,
        };
        Ok(Plan { target, parts, range, covered })
    }

    /// Counts the events of a plan.
    pub(crate) async fn count(&self, plan: &Plan) -> Result<Vec<PartCount>> {
        pages::count(self.store, &self.config.publication(), plan).await
    }

    /// Begins a replay; or resumes the unfinished one without a plan.
    pub(crate) async fn run(&self, new: Option<(&Plan, &str)>) -> Result<Replayed> {
        let session = self.begin(new).await?;
        self.execute(session).await
    }

    async fn begin(&self, new: Option<(&Plan, &str)>) -> Result<ReplaySession> {
        let lease = self.config.relay.lease;
        ReplaySession::begin(self.store, &self.config.publication(), new, lease).await
    }

    async fn execute(&self, session: ReplaySession) -> Result<Replayed> {
        let total = self.count(&session.plan).await?.iter().map(|part| part.events).sum::<i64>();
        Transactions::open(self, &session).await?.publish_all(total.unsigned_abs()).await
    }

    /// Gives the unfinished replay up.
    pub(crate) async fn abandon(&self) -> Result<i64> {
        let session = self.begin(None).await?;
        session.end(ReplayEnd::Abandoned, 0).await?;
        Ok(session.replay)
    }

    /// The streams and categories of a selection; all categories if it names none.
    async fn parts(&self, selection: &ReplaySelection) -> Result<Vec<ReplayPart>> {
        let streams = selection.streams.iter().cloned().map(ReplayPart::Stream);
        let mut parts: Vec<ReplayPart> =
            selection.categories.iter().cloned().map(ReplayPart::Category).chain(streams).collect();
        if parts.is_empty() {
            let all = self.store.categories().await.map_err(Failure::from)?;
            parts = all.iter().map(|of| ReplayPart::Category(of.as_str().to_owned())).collect();
        }
        Ok(parts)
    }

    /// Refuses a side topic with another meaning.
    fn may_be_target(&self, topic: &str) -> Result {
        let refused = |reason| Err(ReplayError::Target { topic: topic.to_owned(), reason });
        let is_legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let prefix = &self.config.topics.prefix;
        let rest = topic.strip_prefix(prefix.as_str());
        if topic.is_empty() || topic.len() > 249 || !topic.chars().all(is_legal) {
            return refused("letters, digits, '.', '_' and '-', at most 249");
        }
        if topic == self.config.topics.claims || topic == &*self.config.replays_topic() {
            return refused("the relays use this topic themselves");
        }
        match rest {
            Some(rest) if rest.contains("-checkpoints-") => {
                refused("the relays use this topic themselves")
            }
            Some(rest) if !rest.contains(['-', '.']) => refused(
                "a category has a topic of this name: choose one with a '-' or a '.' behind the prefix",
            ),
            Some(_) | None => Ok(()),
        }
    }

    /// Refuses a replay to topics that relays publish to.
    async fn relays_do_not_publish(&self, parts: &[ReplayPart]) -> Result {
        let action = "read the running relays";
        let statement = self.store.schema().statement(include_str!("../../sql/replay_running.sql"));
        let row = sqlx::query(statement).bind(self.config.publication());
        let row = row.fetch_one(self.store.pool()).await.map_err(Failure::database(action))?;
        let running: Vec<String> = row.try_get("running").map_err(Failure::database(action))?;
        let quarantined: Vec<String> =
            row.try_get("quarantined").map_err(Failure::database(action))?;
        let published =
            parts.iter().find(|part| !quarantined.iter().any(|of| of == part.category()));
        match published {
            Some(part) if !running.is_empty() => Err(ReplayError::RelaysRun {
                running: running.join(", "),
                topic: self.config.topic(part.category()),
            }),
            Some(_) | None => Ok(()),
        }
    }

    async fn recorded_partitions(&self) -> Result<BTreeMap<String, i32>> {
        let action = "read the partitions of topics";
        let statement =
            self.store.schema().statement(include_str!("../../sql/audit_partitions.sql"));
        let rows: Vec<(String, i32)> = sqlx::query_as(statement)
            .fetch_all(self.store.pool())
            .await
            .map_err(Failure::database(action))?;
        Ok(rows.into_iter().collect())
    }
}
