//! The topic of checkpoints: made, and read from its end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::home::Signpost;
use crate::kafka::{Desk, read_tails};
use crate::kafka_failure::KafkaFailure;
use crate::tails::{Last, Tails, Wanted};
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
    let topic = config.checkpoint_topic();
    let deadline = Instant::now() + config.kafka.transaction_timeout + OVERTIME;
    // All partitions at once, for it is not known yet which of them matter: that is quicker than one after the other.
    let desk = Desk::open(config)?;
    let all =
        (0..desk.partitions(&topic)?.unwrap_or_default()).filter_map(|n| u16::try_from(n).ok());
    let mut wanted: Wanted = all.map(|partition| (partition, BTreeSet::new())).collect();
    wanted.extend(shards.iter().map(|shard| (*shard, [*shard].into())));
    let last = last_of(config, &desk, &wanted, deadline)?;

    let record = |last: &Last, partition: u16, shard: u16| {
        last.get(&(partition.into(), shard)).cloned().flatten()
    };
    let (mut found, mut further_back) = (BTreeMap::new(), Wanted::new());
    for &shard in shards {
        let Some(own) = record(&last, shard, shard) else { continue };
        let Some(Signpost { partition, .. }) = Signpost::from_bytes(&own) else {
            found.insert(shard, own);
            continue;
        };
        match record(&last, partition, shard) {
            Some(there) => drop(found.insert(shard, there)),
            None => drop(further_back.entry(partition).or_default().insert(shard)),
        }
    }
    if further_back.is_empty() {
        return Ok(found);
    }
    let last = last_of(config, &desk, &further_back, deadline)?;
    for (partition, shard) in
        further_back.iter().flat_map(|(p, shards)| shards.iter().map(move |s| (*p, *s)))
    {
        let Some(there) = record(&last, partition, shard) else {
            let topic = topic.to_string();
            let reason = format!(
                "partition {partition} has no checkpoint of shard {shard}, though partition {shard} leads there"
            );
            return Err(KafkaFailure::TopicUnfit { topic, reason });
        };
        found.insert(shard, there);
    }
    Ok(found)
}

/// The last committed records at the end of these partitions, those of the shards that are looked for among them.
fn last_of(
    config: &Config,
    desk: &Desk,
    wanted: &Wanted,
    deadline: Instant,
) -> Result<Last, KafkaFailure> {
    let topic = config.checkpoint_topic();
    let partitions: Vec<u16> = wanted.keys().copied().collect();
    let mut tails = Tails::new(wanted, desk.ends(&topic, &partitions)?);
    while !tails.is_done() {
        let last = read_tails(config, &topic, &tails, deadline)?;
        tails.take(last);
    }
    Ok(tails.records())
}
