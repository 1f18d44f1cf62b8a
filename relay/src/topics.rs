//! The topics of categories: made by declared policy, and looked at before they are first used.

use std::sync::Arc;

use annals_store::{SchemaName, Store};
use sqlx::PgPool;

use crate::config::Config;
use crate::failure::Failure;
use crate::kafka;
use crate::topic_policy::{TopicFacts, TopicPlan};

/// Makes sure of topics.
pub(crate) struct Topics {
    config: Arc<Config>,
    pool: PgPool,
    schema: SchemaName,
}

impl Topics {
    pub(crate) fn new(config: &Arc<Config>, store: &Store) -> Self {
        Self {
            config: Arc::clone(config),
            pool: store.pool().clone(),
            schema: store.schema().clone(),
        }
    }

    /// The topic of a category, which exists from here on with the partitions that it always had.
    pub(crate) async fn ensure(&self, category: &str) -> Result<Arc<str>, Failure> {
        let name = self.config.topic(category);
        let plan = TopicPlan::events(&self.config.topics, &name);
        let config = Arc::clone(&self.config);
        let made = tokio::task::spawn_blocking(move || kafka::ensure_topic(&config, &plan)).await;
        let facts = made.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        let recorded = self.recorded_partitions(&name, facts.partitions).await?;
        if recorded != facts.partitions {
            return Err(Failure::Repartitioned { topic: name, recorded, found: facts.partitions });
        }
        say(&name, &facts);
        Ok(name.into())
    }

    async fn recorded_partitions(&self, topic: &str, partitions: i32) -> Result<i32, Failure> {
        sqlx::query_scalar(self.schema.statement(include_str!("../sql/topic_partitions.sql")))
            .bind(topic)
            .bind(partitions)
            .fetch_one(&self.pool)
            .await
            .map_err(Failure::database("record a topic's partitions"))
    }
}

fn say(topic: &str, facts: &TopicFacts) {
    if facts.created {
        tracing::info!(topic, partitions = facts.partitions, "created topic");
    }
    for difference in &facts.differences {
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
