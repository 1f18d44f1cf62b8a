//! Claims of topics: checked when a relay starts, before it fences or publishes anything.

use std::sync::Arc;

use annals_store::Store;

use crate::config::Config;
use crate::kafka::claims_topic::ClaimsTopic;
use crate::kafka::topic_admin::TopicAdmin;
use crate::report::failure::Failure;
use crate::report::threads::in_a_thread;
use crate::state::store_facts;

/// The claims, once they were checked.
pub(crate) struct CheckedClaims {
    admin: TopicAdmin,
    claims: ClaimsTopic,
}

/// Checks that the configured publication may run: no other one publishes to its topics, and the
/// database is no copy. Returns the configuration with its store. To be called before anything is
/// fenced: a copy of a database has the transactional ids of the relays that run on the original.
///
/// # Errors
/// [`Failure::PublicationRefused`]; [`Failure::Claims`], [`Failure::Kafka`] and
/// [`Failure::Outage`] if that is unknown.
pub(crate) async fn begin(
    config: Config,
    store: &Store,
) -> Result<(Config, CheckedClaims), Failure> {
    let (facts, publications) = store_facts(store).await?;
    let config = Arc::new(config.of_store(facts));
    let of = Arc::clone(&config);
    let checked = in_a_thread("claims", move || {
        let (admin, mut claims) = (TopicAdmin::open(&of)?, ClaimsTopic::new(&of));
        claims.begin(&admin, &publications)?;
        Ok(CheckedClaims { admin, claims })
    });
    let checked = checked.await?;
    Ok((Arc::unwrap_or_clone(config), checked))
}

/// Claims the topic of a deployment's checkpoints.
///
/// # Errors
/// As [`begin`]; [`Failure::TopicClaimed`] if another publication claims it.
pub(crate) async fn claim_checkpoints(
    config: &Config,
    claims: CheckedClaims,
) -> Result<(), Failure> {
    let topic = config.checkpoint_topic().to_string();
    in_a_thread("claims", move || {
        let CheckedClaims { admin, mut claims } = claims;
        let claimed = claims.claim(&admin, &[topic])?;
        claimed.into_values().next().map_or(Ok(()), Err)
    })
    .await
}
