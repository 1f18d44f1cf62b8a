//! The names of the topics of checkpoints: they tell store, deployment and generation.

use std::sync::Arc;

use crate::config::Config;

/// The configured deployment, or all deployments of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deployments {
    Configured,
    All,
}

impl Config {
    /// The topic of this deployment's checkpoints. No topic of events has that name, since a
    /// category has no `-`, and no other store's. Each generation has its own topic, and ignores
    /// those of earlier ones.
    #[must_use]
    pub fn checkpoint_topic(&self) -> Arc<str> {
        let (prefix, deployment) = (&self.topics.prefix, &self.relay.deployment);
        let first = format!("{prefix}{deployment}{}", self.checkpoint_topics());
        match self.generation {
            1 => first.into(),
            later => format!("{first}-{later}").into(),
        }
    }

    /// The part that is common to the names of all topics of checkpoints of the store.
    fn checkpoint_topics(&self) -> String {
        format!("-checkpoints-{}", &self.store.id.simple().to_string()[..12])
    }

    /// The generation whose checkpoints a topic has; none if it is no topic of checkpoints of the
    /// store, or of one of another deployment unless all are asked for.
    pub(crate) fn generation_of(&self, topic: &str, of: Deployments) -> Option<u32> {
        let (deployment, generation) = topic.split_once(&self.checkpoint_topics())?;
        let own = || format!("{}{}", self.topics.prefix, self.relay.deployment);
        if of == Deployments::Configured && deployment != own() {
            return None;
        }
        match generation.strip_prefix('-') {
            Some(later) => later.parse().ok(),
            None => generation.is_empty().then_some(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::config::StoreFacts;

    #[test]
    fn a_topic_of_checkpoints_names_its_generation() {
        let id = Uuid::from_u128(0x0123_4567_89ab_cdef << 64);
        let config = Config::example().of_store(StoreFacts { id, ..StoreFacts::default() });
        let own = config.checkpoint_topic();
        for (topic, configured, any) in [
            (own.to_string(), Some(1), Some(1)),
            (format!("{own}-12"), Some(12), Some(12)),
            (format!("air.{own}-4"), None, Some(4)),
            (format!("{own}-x"), None, None),
            (own.replace("-0", "-9"), None, None),
            ("flight".to_owned(), None, None),
        ] {
            let generation = |of| config.generation_of(&topic, of);
            assert_eq!(generation(Deployments::Configured), configured, "{topic}");
            assert_eq!(generation(Deployments::All), any, "{topic}");
        }
    }
}
