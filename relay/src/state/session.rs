//! Leases in PostgreSQL: which relay publishes which shard. The database's clock decides, and epochs only grow.
//!
//! They spare replicas from fencing each other; they are not what keeps a deposed relay from publishing. That
//! is Kafka's fencing, and it holds even when a lease is wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use annals_relay_machine::{Lease, Leases, Shard};
use annals_store::Store;
use jiff::Timestamp;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::types::Json;
use sqlx::{PgPool, Postgres, Row, SqlStr};
use uuid::Uuid;

use crate::checkpoint::{Checkpoint, Place, Progress};
use crate::config::Config;
use crate::config_check::host_name;
use crate::failure::Failure;
use crate::holds::{Hold, Holds, Kind, Named, Refusal, Standing};
use crate::process::Process;

/// A session: from joining the deployment to the loss of the lease or the end of the process.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    id: Uuid,
    steps: Arc<AtomicI64>,
    /// One for each producer. New with each session, so that fencing an old one never hits a new one.
    pub(crate) transactional_ids: [String; 2],
}

impl Session {
    pub(crate) fn new(config: &Config) -> Self {
        let id = Uuid::now_v7();
        let start = id.simple();
        let name = |letter| format!("{}.{start}.{letter}", config.transactional_id_prefix());
        Self { id, steps: Arc::default(), transactional_ids: [name('a'), name('b')] }
    }

    /// The next thing that is to be done about what is held. Drawn in the order in which things happened: once it is
    /// done, nothing that was drawn before is done any more.
    pub(crate) fn step(&self) -> Step {
        let number = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
        Step { session: self.id, number }
    }
}

/// One thing that a session does about what is held, in one statement or several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    session: Uuid,
    number: i64,
}

/// The leases of one deployment.
#[derive(Debug, Clone)]
pub(crate) struct LeaseTable {
    store: Store,
    publication: String,
    generation: i32,
    instance: String,
    process: Arc<Process>,
    lease: Duration,
}

impl LeaseTable {
    pub(crate) fn new(config: &Config, store: &Store) -> Self {
        let relay = &config.relay;
        Self {
            store: store.clone(),
            publication: config.publication(),
            generation: i32::try_from(config.generation).unwrap_or(i32::MAX),
            instance: relay.instance.clone(),
            process: Arc::new(Process::this(&host_name())),
            lease: relay.lease,
        }
    }

    /// Begins a session. One that a killed process of this instance left is ended first, where it is seen that it is gone.
    ///
    /// # Errors
    /// [`Failure::InstanceTaken`] while another session of this instance lives; [`Failure::BegunAnew`];
    /// [`Failure::Outage`].
    pub(crate) async fn join(&self, session: &Session) -> Result<(), Failure> {
        match self.try_to_join(session, None).await? {
            Some(living) if living.process.has_ended() => {
                let still = self.try_to_join(session, Some(living.session)).await?;
                still.map_or(Ok(()), |living| Err(self.taken(living)))
            }
            Some(living) => Err(self.taken(living)),
            None => Ok(()),
        }
    }

    /// Begins a session, unless another one of this instance lives.
    async fn try_to_join(
        &self,
        session: &Session,
        gone: Option<Uuid>,
    ) -> Result<Option<Living>, Failure> {
        let action = "join the deployment";
        let query = self
            .query(include_str!("../../sql/join.sql"))
            .bind(self.generation)
            .bind(&self.instance)
            .bind(session.id)
            .bind(session.transactional_ids.to_vec())
            .bind(self.lease_ms())
            .bind(Json(&*self.process))
            .bind(gone);
        let rows = self.rows(action, query).await?;
        match rows.first().map(joined).transpose().map_err(Failure::database(action))? {
            Some(Joined::Yes) => Ok(None),
            Some(Joined::Taken(living)) => Ok(Some(living)),
            Some(Joined::BegunAnew) | None => Err(Failure::BegunAnew),
        }
    }

    fn taken(&self, living: Living) -> Failure {
        let Living { process, since, seen, left, .. } = living;
        let (instance, lease) = (self.instance.clone(), self.lease);
        Failure::InstanceTaken { instance, process: process.to_string(), since, seen, left, lease }
    }

    /// Prolongs the lease, and reads all; `None` when there is no such session any more.
    pub(crate) async fn look(
        &self,
        session: &Session,
        ready: bool,
    ) -> Result<Option<Leases>, Failure> {
        let action = "look at the leases";
        let query = self
            .query(include_str!("../../sql/lease_renew.sql"))
            .bind(session.id)
            .bind(ready)
            .bind(self.lease_ms());
        leases(&self.rows(action, query).await?).map_err(Failure::database(action))
    }

    pub(crate) async fn take(
        &self,
        session: &Session,
        shards: &[Shard],
    ) -> Result<Vec<Lease>, Failure> {
        let action = "take shards";
        let shards: Vec<i16> = shards.iter().map(|shard| number(*shard)).collect();
        let query = self.query(include_str!("../../sql/shards_acquire.sql")).bind(session.id).bind(shards);
        let rows = self.rows(action, query).await?;
        rows.iter().map(lease).collect::<Result<_, _>>().map_err(Failure::database(action))
    }

    pub(crate) async fn release(&self, session: &Session, leases: &[Lease]) -> Result<(), Failure> {
        let query = self.of(include_str!("../../sql/shards_release.sql"), session, leases);
        self.rows("give shards back", query).await.map(drop)
    }

    pub(crate) async fn leave(&self, session: &Session, clean: bool) -> Result<(), Failure> {
        let query = self.query(include_str!("../../sql/leave.sql")).bind(session.id).bind(clean);
        self.rows("leave the deployment", query).await.map(drop)
    }

    /// The transactional ids to fence before these leases are published.
    ///
    /// # Errors
    /// [`Failure::Fenced`] when one of the leases is lost; [`Failure::Outage`].
    pub(crate) async fn to_fence(
        &self,
        session: &Session,
        leases: &[Lease],
    ) -> Result<Vec<String>, Failure> {
        let action = "read what is to be fenced";
        let query = self.of(include_str!("../../sql/ids_to_fence.sql"), session, leases);
        let rows = self.rows(action, query).await?;
        let ids = rows.first().map(|row| row.try_get("transactional_ids")).transpose();
        let ids: Option<Vec<String>> = ids.map_err(Failure::database(action))?.flatten();
        ids.ok_or(Failure::Fenced)
    }

    pub(crate) async fn fenced(
        &self,
        session: &Session,
        leases: &[Lease],
        ids: &[String],
    ) -> Result<(), Failure> {
        let query = self.of(include_str!("../../sql/fenced_record.sql"), session, leases).bind(ids.to_vec());
        self.rows("note what is fenced", query).await.map(drop)
    }

    /// Where these shards go on by what PostgreSQL knows: where the generation began, and the copies of checkpoints.
    pub(crate) async fn checkpoints(
        &self,
        leases: &[Lease],
    ) -> Result<BTreeMap<i16, Known>, Failure> {
        let action = "read checkpoints";
        let shards: Vec<i16> = leases.iter().map(|lease| number(lease.shard)).collect();
        let query = self.query(include_str!("../../sql/checkpoints_read.sql")).bind(shards);
        let rows = self.rows(action, query).await?;
        rows.iter().map(known).collect::<Result<_, _>>().map_err(Failure::database(action))
    }

    /// Writes checkpoints here, where no Kafka transaction has them.
    ///
    /// # Errors
    /// [`Failure::Fenced`] when one of the leases is lost, or a later step is done; [`Failure::Outage`].
    pub(crate) async fn checkpoint(
        &self,
        step: Step,
        incarnation: &str,
        checkpoints: &[(Lease, Checkpoint)],
    ) -> Result<(), Failure> {
        let action = "write checkpoints";
        let leases: Vec<Lease> = checkpoints.iter().map(|(lease, _)| *lease).collect();
        let positions: Vec<i64> =
            checkpoints.iter().map(|(_, checkpoint)| checkpoint.place.position()).collect();
        let checkpoints: Vec<_> = checkpoints.iter().map(|(_, of)| Json(of)).collect();
        let query = self.in_step(include_str!("../../sql/checkpoints_write.sql"), step, &leases);
        let query = query.bind(incarnation);
        let rows = self.rows(action, query.bind(positions).bind(checkpoints)).await?;
        match is(&rows, "is_written").map_err(Failure::database(action))? {
            true => Ok(()),
            false => Err(Failure::Fenced),
        }
    }

    /// Notes how far holds got by what is committed. False if one of the leases is lost, or a later step is done:
    /// somebody may have got further.
    pub(crate) async fn holds_went_on(
        &self,
        step: Step,
        incarnation: &str,
        leases: &[Lease],
        progress: &[Progress],
    ) -> Result<bool, Failure> {
        let action = "note how far holds got";
        let holds: Vec<i64> = progress.iter().map(|progress| progress.hold).collect();
        let places: Vec<Option<Json<&Place>>> =
            progress.iter().map(|progress| progress.place.as_ref().map(Json)).collect();
        let query = self.in_step(include_str!("../../sql/quarantine_advance.sql"), step, leases);
        let query = query.bind(incarnation);
        let rows = self.rows(action, query.bind(holds).bind(places)).await?;
        is(&rows, "is_written").map_err(Failure::database(action))
    }

    /// Holds what was refused, from where the shards stand in Kafka.
    ///
    /// # Errors
    /// [`Failure::Fenced`] when one of the leases is lost, or a later step is done; [`Failure::Outage`].
    pub(crate) async fn hold(
        &self,
        step: Step,
        leases: &[Lease],
        (incarnation, places): (&str, &[&Place]),
        refused: &[Refusal],
    ) -> Result<(), Failure> {
        let action = "hold what cannot be published";
        let places: Vec<Json<&Place>> = places.iter().map(|place| Json(*place)).collect();
        let query = self.in_step(include_str!("../../sql/quarantine_add.sql"), step, leases).bind(incarnation);
        let rows = self.rows(action, query.bind(places).bind(Json(refused))).await?;
        match is(&rows, "is_written").map_err(Failure::database(action))? {
            true => Ok(()),
            false => Err(Failure::Fenced),
        }
    }

    /// What is held in these shards.
    pub(crate) async fn holds(&self, leases: &[Lease]) -> Result<BTreeMap<i16, Holds>, Failure> {
        let action = "read what is held";
        let shards: Vec<i16> = leases.iter().map(|lease| number(lease.shard)).collect();
        let rows = self.rows(action, self.query(include_str!("../../sql/quarantine_of_shards.sql")).bind(shards));
        let mut holds: BTreeMap<i16, Vec<_>> = BTreeMap::new();
        for row in rows.await? {
            let (shard, named) = hold(&row).map_err(Failure::database(action))?;
            holds.entry(shard).or_default().push(named);
        }
        Ok(holds.into_iter().map(|(shard, holds)| (shard, Holds::new(holds))).collect())
    }

    fn query(&self, statement: &'static str) -> Query<'_, Postgres, PgArguments> {
        let statement: SqlStr = self.store.schema().statement(statement);
        sqlx::query(statement).bind(&self.publication)
    }

    fn of(
        &self,
        statement: &'static str,
        session: &Session,
        leases: &[Lease],
    ) -> Query<'_, Postgres, PgArguments> {
        self.of_session(statement, session.id, leases)
    }

    fn in_step(
        &self,
        statement: &'static str,
        step: Step,
        leases: &[Lease],
    ) -> Query<'_, Postgres, PgArguments> {
        self.of_session(statement, step.session, leases).bind(step.number)
    }

    fn of_session(
        &self,
        statement: &'static str,
        session: Uuid,
        leases: &[Lease],
    ) -> Query<'_, Postgres, PgArguments> {
        let shards: Vec<i16> = leases.iter().map(|lease| number(lease.shard)).collect();
        let epoch = |lease: &Lease| i64::try_from(lease.epoch).unwrap_or(i64::MAX);
        let epochs: Vec<i64> = leases.iter().map(epoch).collect();
        self.query(statement).bind(session).bind(shards).bind(epochs)
    }

    /// An answer that takes longer than the lease is of no use.
    async fn rows(
        &self,
        action: &'static str,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, Failure> {
        let pool: &PgPool = self.store.pool();
        match tokio::time::timeout(self.lease, query.fetch_all(pool)).await {
            Ok(rows) => rows.map_err(Failure::database(action)),
            Err(elapsed) => Err(Failure::late(action, elapsed)),
        }
    }

    fn lease_ms(&self) -> i64 {
        i64::try_from(self.lease.as_millis()).unwrap_or(i64::MAX)
    }
}

/// A shard's number as the database has it.
pub(crate) fn number(Shard(number): Shard) -> i16 {
    i16::try_from(number).unwrap_or(i16::MAX)
}

/// A shard by the database's number.
pub(crate) fn shard(number: i16) -> Shard {
    Shard(number.unsigned_abs())
}

/// What PostgreSQL knows of where a shard stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// Where the generation began.
    pub(crate) origin: Option<Checkpoint>,
    /// The last copy of its checkpoint; the checkpoint itself, where Kafka has none.
    pub(crate) copy: Option<Checkpoint>,
}

fn known(row: &PgRow) -> Result<(i16, Known), sqlx::Error> {
    let checkpoint =
        |name| row.try_get::<Option<Json<_>>, _>(name).map(|json| json.map(|Json(of)| of));
    Ok((row.try_get("shard")?, Known { origin: checkpoint("origin")?, copy: checkpoint("copy")? }))
}

fn is(rows: &[PgRow], column: &str) -> Result<bool, sqlx::Error> {
    rows.first().map_or(Ok(false), |row| row.try_get(column))
}

/// What came of joining.
enum Joined {
    Yes,
    BegunAnew,
    Taken(Living),
}

/// A session that lives.
struct Living {
    session: Uuid,
    process: Process,
    since: Timestamp,
    seen: Timestamp,
    /// How long its lease lasts yet, unless it is prolonged.
    left: Duration,
}

fn joined(row: &PgRow) -> Result<Joined, sqlx::Error> {
    let time = |column| {
        let us: i64 = row.try_get(column)?;
        Timestamp::from_microsecond(us).map_err(|error| sqlx::Error::Decode(Box::new(error)))
    };
    let outcome: &str = row.try_get("outcome")?;
    match outcome {
        "joined" => Ok(Joined::Yes),
        "taken" => {
            let Json(process) = row.try_get("living_process")?;
            let left: i64 = row.try_get("expires_ms")?;
            Ok(Joined::Taken(Living {
                session: row.try_get("living")?,
                process,
                since: time("joined_us")?,
                seen: time("seen_us")?,
                left: Duration::from_millis(left.max(0).unsigned_abs()),
            }))
        }
        _ => Ok(Joined::BegunAnew),
    }
}

fn hold(row: &PgRow) -> Result<(i16, Named), sqlx::Error> {
    let kind = match row.try_get("kind")? {
        "category" => Kind::Category,
        _ => Kind::Stream,
    };
    let Json(place) = row.try_get("cursor")?;
    let hold = Hold { id: row.try_get("entry")?, place, standing: Standing::Noted };
    Ok((row.try_get("shard")?, ((kind, row.try_get("name")?), hold)))
}

fn lease(row: &PgRow) -> Result<Lease, sqlx::Error> {
    let epoch: i64 = row.try_get("epoch")?;
    Ok(Lease { shard: shard(row.try_get("shard")?), epoch: epoch.unsigned_abs() })
}

fn leases(rows: &[PgRow]) -> Result<Option<Leases>, sqlx::Error> {
    let Some(first) = rows.first() else { return Ok(None) };
    let few = |name| first.try_get::<i64, _>(name).map(|n| u16::try_from(n).unwrap_or(u16::MAX));
    let mut leases = Leases { members: few("members")?, rank: few("rank")?, ..Leases::default() };
    for row in rows {
        let lease = lease(row)?;
        if row.try_get("is_mine")? {
            leases.mine.push(lease);
        }
        if row.try_get("is_free")? {
            leases.free.push(lease.shard);
        }
    }
    Ok(Some(leases))
}
