//! The database: its version, its settings, rights, and transactions that stay open.

use std::time::SystemTime;

use annals_store::{POSTGRES_MAJOR_MIN, Store};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::check::{CheckLimits, ComponentFindings};
use crate::config::{Config, Durability};

const CLOCK_SECONDS_MAX: f64 = 5.0;

/// Checks it; true if the store is migrated.
pub(super) async fn check(
    config: &Config,
    store: &Store,
    limits: CheckLimits,
    findings: &mut ComponentFindings<'_>,
) -> bool {
    // It names no table of the store.
    let server = sqlx::query(include_str!("../../sql/check_server.sql"));
    let server = server
        .bind(config.database.schema.to_string())
        .bind(f64::from(limits.transaction_seconds_max))
        .fetch_one(store.pool())
        .await;
    let checked = server.and_then(|row| {
        let major = row.try_get("major")?;
        Ok((is_new_enough(major, findings), of_server(config, &row, limits, findings)?))
    });
    let is_migrated = match checked {
        Ok((true, is_migrated)) => is_migrated,
        Ok((false, _)) => return false,
        Err(error) => {
            let remedy = "correct database.url, the login, or the network";
            findings.error(format!("the database does not answer: {error}"), remedy);
            return false;
        }
    };
    if !is_migrated {
        findings.error(
            format!("schema {} has no event store", config.database.schema),
            "run `annals-relay migrate` with a login that may create tables, or set database.schema",
        );
        return false;
    }
    let statement = store.schema().statement(include_str!("../../sql/check_store.sql"));
    let row = sqlx::query(statement).bind(config.publication()).fetch_one(store.pool()).await;
    if let Err(error) = row.and_then(|row| of_store(config, &row, findings)) {
        let remedy = "grant annals_relay to the login; run `annals-relay migrate` after an upgrade";
        findings.error(format!("the store cannot be read: {error}"), remedy);
    }
    true
}

fn of_server(
    config: &Config,
    row: &PgRow,
    limits: CheckLimits,
    findings: &mut ComponentFindings<'_>,
) -> Result<bool, sqlx::Error> {
    let is_durable: bool = row.try_get("is_fsync")? && row.try_get("is_full_page_writes")?;
    match (is_durable, config.database.allow_fsync_off) {
        (true, _) => {}
        (false, true) => findings.warning(
            "fsync or full_page_writes is off, which database.allow_fsync_off accepts",
            "remove it, unless the server keeps its data in another place, as Neon does",
        ),
        (false, false) => findings.error(
            "the server loses committed events in a crash",
            "set fsync = on and full_page_writes = on; or database.allow_fsync_off = true, if the server keeps its data in \
             another place, as Neon does",
        ),
    }
    if row.try_get("is_asynchronous")? {
        let remedy = "set it on for the server, the database and its roles: an append sets it for itself, and other writes of \
                      the service can be lost in a crash";
        findings.warning("synchronous_commit is off", remedy);
    }
    if row.try_get("is_standby")? {
        findings.error("the server is a standby", "connect to the primary");
    } else if row.try_get("is_read_only")? {
        let remedy = "reset it for the relay's login, the database or the server";
        findings.error("default_transaction_read_only is on", remedy);
    }
    let reads_stats: bool = row.try_get("may_read_stats")?;
    if !reads_stats && config.relay.durability == Durability::Standby {
        let remedy = "grant pg_read_all_stats to the login of the relay";
        findings
            .error("relay.durability is standby, and the login cannot see the standbys", remedy);
    } else if !reads_stats {
        let remedy = "grant pg_read_all_stats to the login of the relay";
        findings.warning("status cannot name the queries of long transactions", remedy);
    }
    of_transactions(row, limits, findings)?;
    of_surroundings(row, findings)?;
    row.try_get("is_migrated")
}

/// Nothing else makes sense on an older server: not even a migration.
fn is_new_enough(major: i32, findings: &mut ComponentFindings<'_>) -> bool {
    let is_new_enough = major >= POSTGRES_MAJOR_MIN;
    if !is_new_enough {
        let remedy = format!("use PostgreSQL {POSTGRES_MAJOR_MIN} or later");
        findings.error(format!("PostgreSQL {major} is too old"), remedy);
    }
    is_new_enough
}

fn of_transactions(
    row: &PgRow,
    limits: CheckLimits,
    findings: &mut ComponentFindings<'_>,
) -> Result<(), sqlx::Error> {
    let seconds_max = limits.transaction_seconds_max;
    let prepared: i64 = row.try_get("prepared")?;
    if prepared > 0 {
        let remedy = "commit or roll back those of pg_prepared_xacts: their events, and vacuum, wait for them";
        findings.warning(
            format!("{prepared} prepared transactions are older than {seconds_max} s"),
            remedy,
        );
    }
    let seconds: f64 = row.try_get("oldest_transaction_seconds")?;
    if seconds > f64::from(seconds_max) {
        let remedy = "end it: its own events, partitions of the outbox and vacuum wait for it; see `annals-relay status`";
        findings.warning(format!("a transaction or a snapshot is open for {seconds:.0} s"), remedy);
    }
    Ok(())
}

fn of_surroundings(row: &PgRow, findings: &mut ComponentFindings<'_>) -> Result<(), sqlx::Error> {
    let slots: i64 = row.try_get("inactive_slots")?;
    if slots > 0 {
        let remedy =
            "drop the unused ones of pg_replication_slots: they fill the disk of the server";
        findings.warning(format!("{slots} replication slots are inactive"), remedy);
    }
    let clock: f64 = row.try_get("clock")?;
    let here = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    of_clock(clock - here.as_secs_f64(), findings);
    Ok(())
}

/// `ahead` is the number of seconds by which the clock of the database is ahead of this one.
fn of_clock(ahead: f64, findings: &mut ComponentFindings<'_>) {
    if ahead.abs() > CLOCK_SECONDS_MAX {
        let remedy = "synchronize both clocks: logs and ages are wrong, no event is";
        let direction = if ahead > 0.0 { "ahead of" } else { "behind" };
        let what =
            format!("the clock of the database is {:.0} s {direction} this one", ahead.abs());
        findings.warning(what, remedy);
    }
}

fn of_store(
    config: &Config,
    row: &PgRow,
    findings: &mut ComponentFindings<'_>,
) -> Result<(), sqlx::Error> {
    let missing: Vec<String> = row.try_get("missing")?;
    if !missing.is_empty() {
        let remedy = "grant annals_relay to the login of the relay";
        findings.error(format!("the login lacks rights: {}", missing.join(", ")), remedy);
    }
    if !row.try_get::<bool, _>("is_own_cluster")? {
        let remedy =
            "run `annals-relay adopt` if it was moved here, `adopt --copy` if it is a copy";
        findings.error("the store belongs to another database cluster", remedy);
    }
    if row.try_get::<i64, _>("sequence_cache")? > 1 {
        let remedy = "alter sequence annals.positions cache 1: otherwise events of a stream are published out of order";
        findings.error("the sequence of positions has a cache", remedy);
    }
    let delivery: Option<String> = row.try_get("delivery")?;
    let configured = config.relay.delivery.name();
    if let Some(found) = delivery.filter(|found| found != configured) {
        findings.error(
            format!("the deployment delivers {found}, and relay.delivery is {configured}"),
            format!("set relay.delivery to {found}, or run `annals-relay deliver {configured}`"),
        );
    }
    if row.try_get::<Option<bool>, _>("is_forgotten")? == Some(true) {
        let remedy = "set another relay.deployment, or run `annals-relay rebase`";
        findings.error(format!("deployment {} was forgotten", config.publication()), remedy);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Severity::Warning;
    use crate::check::found;

    #[test]
    fn clocks_that_differ_are_a_risk_in_either_direction() {
        for ahead in [0.0, 4.9, -4.9] {
            assert_eq!(found(|findings| of_clock(ahead, findings)), []);
        }
        for (ahead, text) in [(5.2, "5 s ahead of"), (-3_600.0, "3600 s behind")] {
            let what = format!("the clock of the database is {text} this one");
            assert_eq!(found(|findings| of_clock(ahead, findings)), [(Warning, what)]);
        }
    }
}
