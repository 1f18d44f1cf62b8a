//! Waits for a standby, if `relay.durability` is `standby`.

use std::time::{Duration, Instant};

use annals_store::Store;
use sqlx::{PgConnection, Row};

use crate::report::failure::{Component, Failure};

/// The time that a standby has to flush the log before the relay reports an outage.
const STANDBY_DEADLINE: Duration = Duration::from_secs(5);
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
#[error("the relay's user may not know: grant pg_read_all_stats to it")]
struct StandbyUnknown;

#[derive(Debug, thiserror::Error)]
#[error("no standby {} has flushed the committed transactions: see pg_stat_replication", counted(.0))]
struct StandbyBehind(Vec<String>);

fn counted(standbys: &[String]) -> String {
    if standbys.is_empty() {
        "(logical subscribers, backups and pg_receivewal do not count)".to_owned()
    } else {
        format!("of relay.standbys ({})", standbys.join(", "))
    }
}

/// Waits until a standby has flushed everything that is written by now.
pub(crate) async fn until_flushed(
    connection: &mut PgConnection,
    store: &Store,
    standbys: &[String],
) -> Result<(), Failure> {
    let action = "read what standbys have flushed";
    let began = Instant::now();
    let mut position: Option<String> = None;
    let mut pause = PAUSE_MIN;
    loop {
        let statement = store.schema().statement(include_str!("../../sql/standby_position.sql"));
        let query = sqlx::query(statement).bind(position.take()).bind(standbys);
        let row = query.fetch_one(&mut *connection).await;
        let row = row.map_err(Failure::database(action))?;
        if row.try_get("is_flushed").map_err(Failure::database(action))? {
            return Ok(());
        }
        if !row.try_get("may_know").map_err(Failure::database(action))? {
            return Err(Failure::outage(Component::Standby, action, StandbyUnknown));
        }
        if began.elapsed() >= STANDBY_DEADLINE {
            return Err(Failure::outage(
                Component::Standby,
                action,
                StandbyBehind(standbys.to_vec()),
            ));
        }
        position = Some(row.try_get("lsn").map_err(Failure::database(action))?);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
