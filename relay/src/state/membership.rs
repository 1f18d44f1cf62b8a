//! Joining and leaving a deployment.

use std::time::Duration;

use annals_relay_machine::Departure;
use jiff::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use uuid::Uuid;

use crate::report::failure::Failure;
use crate::state::process::Process;
use crate::state::session::Session;
use crate::state::tables::RelayTables;

/// The outcome of joining.
enum Joined {
    Yes,
    NewGeneration,
    Taken(LivingSession),
}

/// A living session of the same instance.
struct LivingSession {
    session: Uuid,
    process: Process,
    since: Timestamp,
    seen: Timestamp,
    /// The time until its lease expires, unless it is renewed.
    left: Duration,
}

impl RelayTables {
    /// Begins a session. An earlier session of this instance is ended first if its process has
    /// ended for certain.
    ///
    /// # Errors
    /// [`Failure::InstanceTaken`] while another session of this instance lives;
    /// [`Failure::NewGeneration`]; [`Failure::Outage`].
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

    /// Begins a session, unless another one of this instance lives; `ended` does not.
    async fn try_to_join(
        &self,
        session: &Session,
        ended: Option<Uuid>,
    ) -> Result<Option<LivingSession>, Failure> {
        let action = "join the deployment";
        let query = self
            .query(include_str!("../../sql/join.sql"))
            .bind(self.generation)
            .bind(&self.instance)
            .bind(session.id)
            .bind(session.transactional_ids.all())
            .bind(self.lease_ms())
            .bind(Json(&*self.process))
            .bind(ended);
        let rows = self.rows(action, query).await?;
        match rows.first().map(joined).transpose().map_err(Failure::database(action))? {
            Some(Joined::Yes) => Ok(None),
            Some(Joined::Taken(living)) => Ok(Some(living)),
            Some(Joined::NewGeneration) | None => Err(Failure::NewGeneration),
        }
    }

    fn taken(&self, living: LivingSession) -> Failure {
        let LivingSession { process, since, seen, left, .. } = living;
        let (instance, lease) = (self.instance.clone(), self.lease);
        Failure::InstanceTaken { instance, process: process.to_string(), since, seen, left, lease }
    }

    pub(crate) async fn leave(
        &self,
        session: &Session,
        departure: Departure,
    ) -> Result<(), Failure> {
        let query = self.query(include_str!("../../sql/leave.sql")).bind(session.id);
        let query = query.bind(departure == Departure::Clean);
        self.rows("leave the deployment", query).await.map(drop)
    }
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
            Ok(Joined::Taken(LivingSession {
                session: row.try_get("living")?,
                process,
                since: time("joined_us")?,
                seen: time("seen_us")?,
                left: Duration::from_millis(left.max(0).unsigned_abs()),
            }))
        }
        _ => Ok(Joined::NewGeneration),
    }
}
