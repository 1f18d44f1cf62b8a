//! The topics of categories: made by declared policy, and looked at before they are first used.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_store::{SchemaName, Store};
use sqlx::PgPool;

use crate::config::Config;
use crate::failure::Failure;
use crate::heard::locked;
use crate::kafka;
use crate::message::Destination;
use crate::topic_policy::{TopicFacts, TopicPlan};

/// Topics that are in use are looked at so often: somebody may have added partitions.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// Makes sure of topics.
#[derive(Clone)]
pub(crate) struct Topics {
    config: Arc<Config>,
    pool: PgPool,
    schema: SchemaName,
    /// The categories whose topics are in use.
    used: Arc<Mutex<BTreeSet<String>>>,
    /// What was said of them, once each.
    said: Arc<Mutex<BTreeSet<String>>>,
}

impl Topics {
    pub(crate) fn new(config: &Arc<Config>, store: &Store) -> Self {
        Self {
            config: Arc::clone(config),
            pool: store.pool().clone(),
            schema: store.schema().clone(),
            used: Arc::default(),
            said: Arc::default(),
        }
    }

    /// Looks at the topics that are in use, now and then, and calls `changed` when one is not as it was.
    pub(crate) async fn watch(self, changed: impl Fn()) {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let used = locked(&self.used).clone();
            for category in used {
                let failure = self.ensure(&category).await.err();
                // Whoever publishes finds it out, too, and says so.
                failure.and_then(|failure| failure.cause_to_hold()).iter().for_each(|_| changed());
            }
        }
    }

    /// Where a category's events go: its topic exists from here on with the partitions that it always had.
    pub(crate) async fn ensure(&self, category: &str) -> Result<Destination, Failure> {
        let name = self.config.topic(category);
        let plan = TopicPlan::events(&self.config.topics, &name);
        let config = Arc::clone(&self.config);
        let made = tokio::task::spawn_blocking(move || kafka::ensure_topic(&config, &plan)).await;
        let facts = made.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        let recorded = self.recorded_partitions(&name, facts.partitions).await?;
        if recorded != facts.partitions {
            return Err(Failure::Repartitioned { topic: name, recorded, found: facts.partitions });
        }
        self.say(&name, &facts);
        locked(&self.used).insert(category.to_owned());
        Ok(Destination { topic: name.into(), partitions: recorded })
    }

    async fn recorded_partitions(&self, topic: &str, partitions: i32) -> Result<i32, Failure> {
        sqlx::query_scalar(self.schema.statement(include_str!("../sql/topic_partitions.sql")))
            .bind(topic)
            .bind(partitions)
            .fetch_one(&self.pool)
            .await
            .map_err(Failure::database("record a topic's partitions"))
    }

    fn say(&self, topic: &str, facts: &TopicFacts) {
        if facts.created {
            tracing::info!(topic, partitions = facts.partitions, "created topic");
        }
        for difference in &facts.differences {
            if locked(&self.said).insert(format!("{topic}: {difference}")) {
                tracing::warn!(
                    topic,
                    setting = difference.setting,
                    found = difference.found,
                    planned = difference.planned,
                    "a setting of the topic is not as planned: {}",
                    difference.consequence
                );
            }
        }
    }
}
