//! Strangers: sessions that have producers, and that the database does not know in its present
//! incarnation. A promoted standby or a restored copy can lack their rows, or the shards that they
//! acquired: so no list of ids to fence has them, and they could still publish.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::config::Config;
use crate::kafka::claims_topic::ClaimsTopic;
use crate::kafka::topic_admin::TopicAdmin;
use crate::publish::{FENCED_AT_ONCE, fence};
use crate::report::failure::Failure;
use crate::report::threads::in_a_thread;
use crate::state::RelayTables;

/// The maximum time for which the end of a process waits until its announcement is withdrawn. There
/// is time for a connection while brokers are away: the next process cannot fence a busy id.
const WITHDRAW_MAX: Duration = Duration::from_secs(5);

/// Fences the announced sessions that did not join in this incarnation of the database.
///
/// The announcements are read first: a session that announces itself later has joined later, and
/// reads checkpoints after that.
///
/// # Errors
/// [`Failure::DatabaseChanged`] if the database has another incarnation; [`Failure::Claims`],
/// [`Failure::Kafka`] and [`Failure::Outage`].
pub(crate) async fn fence_strangers(
    config: &Arc<Config>,
    tables: &RelayTables,
    incarnation: &str,
) -> Result<(), Failure> {
    let announced = announced_ids(config).await?;
    if announced.is_empty() {
        return Ok(());
    }
    let known: BTreeSet<String> = tables.joined_ids(incarnation).await?.into_iter().collect();
    fence_all(config, announced.into_iter().filter(|id| !known.contains(id)).collect()).await
}

/// The transactional ids of all announced sessions of the configured publication.
///
/// # Errors
/// [`Failure::Claims`] and [`Failure::Kafka`].
pub(crate) async fn announced_ids(config: &Arc<Config>) -> Result<Vec<String>, Failure> {
    let of = Arc::clone(config);
    let announced = in_a_thread("announced sessions", move || {
        ClaimsTopic::new(&of).sessions(&TopicAdmin::open(&of)?)
    });
    Ok(announced.await?.into_iter().flat_map(|of| of.transactional_ids).collect())
}

/// Fences transactional ids, and withdraws their announcements.
///
/// # Errors
/// [`Failure::Claims`] and [`Failure::Kafka`].
pub(crate) async fn fence_all(config: &Arc<Config>, ids: BTreeSet<String>) -> Result<(), Failure> {
    if ids.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = ids.into_iter().collect();
    let transactional_ids = ids.len();
    tracing::info!(
        event = "fencing_strangers",
        transactional_ids,
        "fencing sessions that the database does not know"
    );
    let config = Arc::clone(config);
    in_a_thread("fencing", move || {
        let (mut fenced, mut done) = (Vec::new(), Ok(()));
        for some in ids.chunks(FENCED_AT_ONCE) {
            done = fence(&config, some);
            if done.is_err() {
                break;
            }
            fenced.extend_from_slice(some);
        }
        // What is fenced stays so, if one of the others is busy.
        if !fenced.is_empty() {
            ClaimsTopic::new(&config).withdraw(&fenced)?;
        }
        done
    })
    .await
}

/// Withdraws the announcements of sessions that have ended and can publish no more. Without that,
/// they are fenced once more in the next incarnation of the database.
pub(crate) async fn withdraw(config: &Arc<Config>, ids: Vec<String>) {
    let (config, (done, withdrawn)) = (Arc::clone(config), oneshot::channel());
    // A process that ends does not wait for this thread.
    let thread = std::thread::Builder::new().name("withdrawing".into()).spawn(move || {
        if let Err(failure) = ClaimsTopic::new(&config).withdraw(&ids) {
            tracing::debug!(%failure, "the announcement of a session is not withdrawn");
        }
        // The process may not wait for it.
        done.send(()).ok();
    });
    if thread.is_ok() && tokio::time::timeout(WITHDRAW_MAX, withdrawn).await.is_err() {
        tracing::debug!("the announcement of a session is not withdrawn in time");
    }
}
