//! The topic of checkpoints: made, and read from its end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::home::Signpost;
use crate::kafka::{Desk, read_tails};
use crate::kafka_failure::KafkaFailure;
use crate::tails::{Tails, Wanted};
use crate::topic_policy::{TopicPlan, ensure_topic};

/// The broker looks every 10 s for transactions that are over their time: so much longer can one of
/// somebody else stand before a checkpoint.
const OVERTIME: Duration = Duration::from_secs(15);

/// Makes sure that the topic of checkpoints is there, compacted, with one partition for each shard.
/// Blocks.
///
/// # Errors
/// [`KafkaFailure::TopicUnfit`] when it is something else; those of [`ensure_topic`].
pub fn ensure_checkpoint_topic(config: &Config, shards: u16) -> Result<(), KafkaFailure> {
    let plan = TopicPlan::checkpoints(&config.topics, &config.checkpoint_topic(), shards);
    plan.fits(&ensure_topic(config, &plan)?)
}

/// The last committed checkpoint of each of these shards, wherever its last owner wrote it; none where there is no
/// record. To be called after [`Producer::init`](crate::kafka::Producer::init): everything that was
/// committed by then is seen. Blocks.
///
/// # Errors
/// [`KafkaFailure::Outage`], also when a transaction of somebody else stays open before the end;
/// [`KafkaFailure::TopicUnfit`] when a checkpoint is not where the shard's own partition says.
pub fn read_checkpoints(
    config: &Config,
    shards: &[u16],
) -> Result<BTreeMap<u16, Vec<u8>>, KafkaFailure> {
    let deadline = Instant::now() + config.kafka.transaction_timeout + OVERTIME;
    let own = shards.iter().map(|shard| (*shard, [*shard].into())).collect();
    let mut found = last_of(config, &own, deadline)?;
    let mut elsewhere = Wanted::new();
    found.retain(|shard, record| {
        let signpost = Signpost::from_bytes(record);
        if let Some(signpost) = &signpost {
            elsewhere.entry(signpost.partition).or_default().insert(*shard);
        }
        signpost.is_none()
    });
    if elsewhere.is_empty() {
        return Ok(found);
    }
    found.extend(last_of(config, &elsewhere, deadline)?);
    for (partition, shards) in elsewhere {
        if let Some(shard) = shards.iter().find(|shard| !found.contains_key(shard)) {
            let topic = config.checkpoint_topic().to_string();
            let reason = format!(
                "partition {partition} has no checkpoint of shard {shard}, though partition {shard} leads there"
            );
            return Err(KafkaFailure::TopicUnfit { topic, reason });
        }
    }
    Ok(found)
}

/// The last committed record of each of these shards, in the partition in which it is looked for.
fn last_of(
    config: &Config,
    wanted: &Wanted,
    deadline: Instant,
) -> Result<BTreeMap<u16, Vec<u8>>, KafkaFailure> {
    let topic = config.checkpoint_topic();
    let partitions: Vec<u16> = wanted.keys().copied().collect();
    let mut tails = Tails::new(wanted, Desk::open(config)?.ends(&topic, &partitions)?);
    while !tails.is_done() {
        let last = read_tails(config, &topic, &tails, deadline)?;
        tails.take(last);
    }
    Ok(tails.records())
}
