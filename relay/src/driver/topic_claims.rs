//! Whose topics they are, before anything is published: looked at when a relay starts, and given up by a command.

use std::fmt::Write as _;
use std::sync::Arc;

use annals_store::{Identity, Store};
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::claims_topic::{Claims, summary};
use crate::config::{Config, StoreFacts};
use crate::failure::Failure;
use crate::kafka::Desk;
use crate::shell::in_a_thread;

/// The way to what is claimed, once it was looked at.
pub(crate) struct Claiming {
    desk: Desk,
    claims: Claims,
}

/// The configuration of the store that is there, once it is known that its publication may run: nobody else publishes
/// into its topics, and it is not a copy. To be called before anything is fenced: a copy of a database has the
/// transactional ids of the relays that run on the original.
///
/// # Errors
/// [`Failure::NotMine`]; [`Failure::Claims`], [`Failure::Kafka`] and [`Failure::Outage`] where that is not known.
pub(crate) async fn begin(config: Config, store: &Store) -> Result<(Config, Claiming), Failure> {
    let (facts, known) = facts(store).await?;
    let config = Arc::new(config.of_store(facts));
    let of = Arc::clone(&config);
    let claiming = in_a_thread("claims", move || {
        let (desk, mut claims) = (Desk::open(&of)?, Claims::new(&of));
        claims.begin(&desk, &known)?;
        Ok(Claiming { desk, claims })
    });
    let claiming = claiming.await?;
    Ok((Arc::unwrap_or_clone(config), claiming))
}

/// Claims the topic of a deployment's checkpoints.
///
/// # Errors
/// As [`begin`]; [`Failure::Taken`] if it is another publication's.
pub(crate) async fn claim_checkpoints(config: &Config, claiming: Claiming) -> Result<(), Failure> {
    let topic = config.checkpoint_topic().to_string();
    in_a_thread("claims", move || {
        let Claiming { desk, mut claims } = claiming;
        let taken = claims.claim(&desk, &[topic])?;
        taken.into_values().next().map_or(Ok(()), Err)
    })
    .await
}

/// What the store says of itself, and the publications that it knows.
async fn facts(store: &Store) -> Result<(StoreFacts, Vec<String>), Failure> {
    let failed = Failure::database("read where the store is");
    let identity = store.identity().await?;
    let statement = store.schema().statement(include_str!("../../sql/store_facts.sql"));
    let row = sqlx::query(statement).fetch_one(store.pool()).await;
    row.and_then(|row| Ok((facts_of(&identity, &row)?, row.try_get("publications")?)))
        .map_err(failed)
}

fn facts_of(identity: &Identity, row: &PgRow) -> Result<StoreFacts, sqlx::Error> {
    let oids: Vec<i64> = row.try_get("database_oids")?;
    let names: Vec<String> = row.try_get("database_names")?;
    Ok(StoreFacts {
        id: identity.store_id,
        history: i32::try_from(identity.history).unwrap_or(i32::MAX),
        system_identifier: row.try_get("system_identifier")?,
        database_oid: row.try_get("database_oid")?,
        databases: oids.into_iter().zip(names).collect(),
    })
}

/// Why topics are not released.
#[derive(Debug, thiserror::Error)]
#[error("say why they are given up: --reason must not be empty")]
pub struct NoReason;

/// Gives up the topics that a publication claims, and says which; with `dry_run`, it only says it. `store` is another store
/// than this one.
///
/// # Errors
/// [`NoReason`]; a [`Failure`] of Kafka; what the database says, also when a relay of the publication runs.
pub async fn release(
    config: Config,
    store: &Store,
    of: (Option<Uuid>, Option<String>),
    reason: &str,
    dry_run: bool,
) -> Result<String, Box<dyn std::error::Error>> {
    if reason.trim().is_empty() {
        return Err(NoReason.into());
    }
    let (facts, _) = facts(store).await?;
    let (other, publication) = (of.0, of.1.unwrap_or_else(|| config.publication()));
    let store_id = other.unwrap_or(facts.id);
    if !dry_run {
        // First, for it says whether a relay runs, and who may do this.
        let name = if store_id == facts.id {
            publication.clone()
        } else {
            format!("{publication} of store {store_id}")
        };
        let statement = store.schema().statement(include_str!("../../sql/release_topics.sql"));
        sqlx::query(statement).bind(name).bind(reason).execute(store.pool()).await?;
    }
    let config = Arc::new(config.of_store(facts));
    let released = in_a_thread("claims", move || {
        Claims::new(&config).release(&Desk::open(&config)?, store_id, &publication, dry_run)
    })
    .await?;
    let mut text = String::new();
    for claim in &released {
        writeln!(text, "{}", claim.topic)?;
    }
    text.push_str(&summary(&released));
    let end = match (released.is_empty(), dry_run) {
        (true, _) => "nothing is claimed by it",
        (false, true) => "nothing was changed",
        (false, false) => "released: another deployment or store can claim them",
    };
    writeln!(text, "{end}")?;
    Ok(text)
}
