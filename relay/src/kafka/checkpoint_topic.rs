//! The topic of checkpoints: its creation, and reading checkpoints from the ends of its partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::config::{Config, Deployments};
use crate::kafka::checkpoint_partition::CheckpointPointer;
use crate::kafka::scan::read_tails;
use crate::kafka::tail_scan::{LastRecords, TailScan, WantedShards};
use crate::kafka::topic_admin::TopicAdmin;
use crate::kafka::topic_plan::TopicPlan;
use crate::kafka::topic_setup::{ends_once_led, ensure_topic_at};
use crate::report::kafka_failure::KafkaFailure;

/// The broker aborts timed-out transactions every 10 s: another producer's open transaction can
/// block reading for that much longer than its time-out.
const OVERTIME: Duration = Duration::from_secs(15);

/// Creates the topic of checkpoints unless it exists: compacted, with one partition for each shard.
/// When it returns, they can be read. Blocks.
///
/// # Errors
/// [`KafkaFailure::TopicUnfit`] when it has other properties; those of
/// [`ensure_topic`](crate::kafka::ensure_topic).
pub fn ensure_checkpoint_topic(config: &Config, shards: u16) -> Result<(), KafkaFailure> {
    let plan = TopicPlan::checkpoints(&config.topics, &config.checkpoint_topic(), shards);
    let admin = TopicAdmin::open(config)?;
    let facts = ensure_topic_at(&admin, config, &plan)?;
    plan.fits(&facts)?;
    if facts.created {
        let partitions: Vec<u16> = (0..shards).collect();
        ends_once_led(&admin, &plan.name, &partitions)?;
    }
    Ok(())
}

/// The latest generation with a topic of checkpoints; 0 if there is none. Blocks.
///
/// # Errors
/// [`KafkaFailure`] if the topics cannot be listed.
pub(crate) fn latest_generation(config: &Config, of: Deployments) -> Result<u32, KafkaFailure> {
    let names = TopicAdmin::open(config)?.names()?;
    let generations = names.iter().filter_map(|topic| config.generation_of(topic, of));
    Ok(generations.max().unwrap_or_default())
}

/// The last committed checkpoint of each of these shards, in the partition to which its last owner
/// wrote it; none for a shard without a record. To be called after
/// [`Producer::init`](crate::kafka::Producer::init): it includes everything that was committed by
/// then. Blocks.
///
/// # Errors
/// [`KafkaFailure::Outage`], also when another producer's transaction stays open before the end;
/// [`KafkaFailure::TopicUnfit`] when a pointer leads to no checkpoint.
pub fn read_checkpoints(
    config: &Config,
    shards: &[u16],
) -> Result<BTreeMap<u16, Vec<u8>>, KafkaFailure> {
    let topic = config.checkpoint_topic();
    let deadline = Instant::now() + config.kafka.transaction_timeout + OVERTIME;
    // All partitions at once, since any of them can have the checkpoints: that is faster than one
    // after the other.
    let admin = TopicAdmin::open(config)?;
    let all =
        (0..admin.partitions(&topic)?.unwrap_or_default()).filter_map(|n| u16::try_from(n).ok());
    let mut wanted: WantedShards = all.map(|partition| (partition, BTreeSet::new())).collect();
    wanted.extend(shards.iter().map(|shard| (*shard, [*shard].into())));
    let last = last_of(config, &admin, &wanted, deadline)?;

    let record = |last: &LastRecords, partition: u16, shard: u16| {
        last.get(&(partition.into(), shard)).cloned().flatten()
    };
    let (mut found, mut further_back) = (BTreeMap::new(), WantedShards::new());
    for &shard in shards {
        let Some(own) = record(&last, shard, shard) else { continue };
        let Some(CheckpointPointer { partition, .. }) = CheckpointPointer::from_bytes(&own) else {
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
    let last = last_of(config, &admin, &further_back, deadline)?;
    for (partition, shard) in
        further_back.iter().flat_map(|(p, shards)| shards.iter().map(move |s| (*p, *s)))
    {
        let Some(there) = record(&last, partition, shard) else {
            let topic = topic.to_string();
            let reason = format!(
                "partition {partition} has no checkpoint of shard {shard}, although a pointer in partition {shard} leads there"
            );
            return Err(KafkaFailure::TopicUnfit { topic, reason });
        };
        found.insert(shard, there);
    }
    Ok(found)
}

/// The last committed records of these partitions, including those of the wanted shards.
fn last_of(
    config: &Config,
    admin: &TopicAdmin,
    wanted: &WantedShards,
    deadline: Instant,
) -> Result<LastRecords, KafkaFailure> {
    let topic = config.checkpoint_topic();
    let partitions: Vec<u16> = wanted.keys().copied().collect();
    let mut tails = TailScan::new(wanted, admin.ends(&topic, &partitions)?);
    while !tails.is_done() {
        let last = read_tails(config, &topic, &tails, deadline)?;
        tails.take(last);
    }
    Ok(tails.records())
}
