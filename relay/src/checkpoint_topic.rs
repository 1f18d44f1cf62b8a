//! The topic of checkpoints: made, and read from its end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::kafka::{Desk, read_tails};
use crate::kafka_failure::KafkaFailure;
use crate::tails::Tails;
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

/// The last committed record of these shards' partitions of the checkpoint topic; none where there is no
/// record. To be called after [`Producer::init`](crate::kafka::Producer::init): everything that was
/// committed by then is seen. Blocks.
///
/// # Errors
/// [`KafkaFailure::Outage`], also when a transaction of somebody else stays open before the end.
pub fn read_checkpoints(
    config: &Config,
    shards: &[u16],
) -> Result<BTreeMap<u16, Vec<u8>>, KafkaFailure> {
    let topic = config.checkpoint_topic();
    let deadline = Instant::now() + config.kafka.transaction_timeout + OVERTIME;
    let mut tails = Tails::new(Desk::open(config)?.ends(&topic, shards)?);
    while !tails.is_done() {
        let last = read_tails(config, &topic, &tails, deadline)?;
        tails.take(last);
    }
    Ok(tails.records())
}
