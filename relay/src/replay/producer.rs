//! The producer of a replay: one transactional id for all replays of a deployment.

use std::sync::Arc;

use crate::config::Config;
use crate::kafka::Producer;
use crate::kafka::scan::read_keyed;
use crate::kafka::topic_admin::TopicAdmin;
use crate::model::message::Message;
use crate::model::offsets::RecordOffset;
use crate::replay::Result;
use crate::replay::plan::ReplayProgress;
use crate::report::failure::Failure;
use crate::report::threads::in_a_thread;

/// Publishes pages of a replay, each in a transaction with its progress.
pub(super) struct ReplayProducer {
    producer: Arc<Producer>,
    topic: Arc<str>,
    replay: i64,
}

impl ReplayProducer {
    /// Fences the process of an earlier replay, whose open transaction is aborted, and then reads
    /// the progress.
    pub(super) async fn open(config: &Arc<Config>, replay: i64) -> Result<(Self, ReplayProgress)> {
        let (config, topic) = (Arc::clone(config), config.replays_topic());
        let name = Arc::clone(&topic);
        let opened = in_a_thread("replay", move || {
            let id = format!("{}.replay", config.transactional_id_prefix());
            let producer = Producer::connect(&config, &id)?;
            producer.init()?;
            Ok((producer, last_progress(&config, &name, replay)?))
        });
        let (producer, progress) = opened.await?;
        Ok((Self { producer: Arc::new(producer), topic, replay }, progress))
    }

    /// Publishes messages and the progress behind them, in one transaction.
    pub(super) async fn publish(&self, messages: Vec<Message>, after: ReplayProgress) -> Result {
        let progress = Message::of_progress(self.replay, &self.topic, &after)?;
        let producer = Arc::clone(&self.producer);
        let sent = in_a_thread("replay", move || {
            producer.begin()?;
            for message in messages.iter().chain([&progress]) {
                producer.send(message)?;
            }
            producer.drain()?;
            Ok(producer.commit()?)
        });
        Ok(sent.await?)
    }
}

/// The last committed progress of a replay. Blocks.
fn last_progress(config: &Config, topic: &str, replay: i64) -> Result<ReplayProgress, Failure> {
    let admin = TopicAdmin::open(config)?;
    let key = replay.to_string();
    let mut last = ReplayProgress::begin();
    read_keyed(config, &admin, topic, RecordOffset::new(0), |record| {
        if record.key == key
            && let Some(progress) = record.value.as_deref().and_then(ReplayProgress::from_bytes)
        {
            last = progress;
        }
    })?;
    Ok(last)
}
