//! The generations that Kafka has checkpoints of: a database that was restored to an earlier state
//! has forgotten the latest ones.

use annals_store::Store;

use crate::config::{Config, Deployments};
use crate::kafka;
use crate::report::failure::Failure;
use crate::report::threads::in_a_thread;
use crate::state::store_facts;

/// The latest generation that Kafka has checkpoints of; 0 if there is none. `config` is of its
/// store.
///
/// # Errors
/// [`Failure::Kafka`].
pub(crate) async fn latest_generation(config: &Config, of: Deployments) -> Result<u32, Failure> {
    let config = config.clone();
    in_a_thread("generations", move || Ok(kafka::latest_generation(&config, of)?)).await
}

/// The same as a number of the database, for a configuration without its store.
///
/// # Errors
/// [`Failure::Kafka`]; [`Failure::Outage`].
pub(crate) async fn known_generation(
    config: &Config,
    store: &Store,
    of: Deployments,
) -> Result<i32, Failure> {
    let (facts, _) = store_facts(store).await?;
    let latest = latest_generation(&config.clone().of_store(facts), of).await?;
    Ok(i32::try_from(latest).unwrap_or(i32::MAX))
}
