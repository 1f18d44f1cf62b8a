//! The topic of claims: read from its beginning once, then kept up with, and written to in batches. Blocks.
//!
//! A claim is made by writing it after everything was read, and reading on to the end: of claims that exclude each other the
//! one with the lowest offset is in force, and every reader sees that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::claims::{Book, Claim, NotMine};
use crate::config::Config;
use crate::failure::Failure;
use crate::kafka::{ByTopic, Desk, read_keyed, write_keyed};
use crate::kafka_failure::KafkaFailure;
use crate::topic_policy::{TopicPlan, ensure_topic_at};

/// So long the partition of a new topic may have no leader.
const LEADER_DELAY_MAX: Duration = Duration::from_secs(5);

type Records = Vec<(String, Option<Vec<u8>>)>;

/// What is claimed on this Kafka.
pub(crate) struct Claims {
    config: Arc<Config>,
    book: Book,
    /// The next offset to read; none before the topic was looked at.
    next: Option<i64>,
}

impl Claims {
    /// Reads nothing yet.
    pub(crate) fn new(config: &Arc<Config>) -> Self {
        Self { config: Arc::clone(config), book: Book::default(), next: None }
    }

    /// Whether the configured publication may run at all. Takes over what is claimed by the database whose place this one
    /// has taken. `known` are the publications that the database knows.
    ///
    /// # Errors
    /// [`Failure::NotMine`] if it may not; [`Failure::Claims`] and [`Failure::Kafka`] where that is not known.
    pub(crate) fn begin(&mut self, desk: &Desk, known: &[String]) -> Result<(), Failure> {
        self.keep_up(desk)?;
        if let Some(claim) = self.book.of_another_deployment(&self.config) {
            return Err(Failure::NotMine(NotMine::Deployment {
                mine: self.config.publication(),
                by: Box::new(claim.clone()),
                known: known.join(", "),
            }));
        }
        let (store, publication) = (self.config.store.id, self.config.publication());
        let own = self.book.of_publication(store, &publication);
        let own: Vec<String> = own.into_iter().map(|claim| claim.topic.clone()).collect();
        let moved = self.renew(desk, &own)?;
        if moved > 0 {
            tracing::info!(
                event = "claims_renewed",
                topics = moved,
                publication,
                "claims are written anew"
            );
        }
        Ok(())
    }

    /// Claims topics, those that are not claimed yet; the ones that belong to somebody else, with the reason.
    ///
    /// # Errors
    /// [`Failure::NotMine`] when this publication may not run any more; [`Failure::Claims`] and [`Failure::Kafka`] when
    /// nothing is known.
    pub(crate) fn claim(
        &mut self,
        desk: &Desk,
        topics: &[String],
    ) -> Result<ByTopic<Failure>, Failure> {
        self.keep_up(desk)?;
        self.renew(desk, topics)?;
        let (mut refused, mut lost) = (ByTopic::new(), Records::new());
        for topic in topics {
            let claim = Claim::new(&self.config, topic);
            let failure = if *topic == self.config.topics.claims {
                let reason = "claims stand in it: set another topics.prefix".to_owned();
                KafkaFailure::TopicUnfit { topic: topic.clone(), reason }.into()
            } else if let Some(taken) = self.book.before(&claim) {
                lost.push((claim.key(), None));
                Failure::Taken(Box::new(taken))
            } else if let Some(taken) = self.book.against(&claim).filter(|_| !self.has(&claim)) {
                Failure::Taken(Box::new(taken))
            } else {
                continue;
            };
            refused.insert(topic.clone(), failure);
        }
        self.write(desk, &lost)?;
        Ok(refused)
    }

    /// The topics that are the configured publication's: those that it claims, and of `written`, which it has written to, those
    /// that nobody else claims by now.
    ///
    /// # Errors
    /// [`Failure::Claims`] and [`Failure::Kafka`].
    pub(crate) fn own(
        &mut self,
        desk: &Desk,
        written: BTreeSet<String>,
    ) -> Result<BTreeSet<String>, Failure> {
        self.read_on(desk).map_err(|failure| self.failed(failure))?;
        let is_free =
            |topic: &String| self.book.against(&Claim::new(&self.config, topic)).is_none();
        let mut own: BTreeSet<String> = written.into_iter().filter(is_free).collect();
        let claims = self.book.of_publication(self.config.store.id, &self.config.publication());
        own.extend(claims.into_iter().map(|claim| claim.topic.clone()));
        Ok(own)
    }

    /// The topics that a publication claims, given up.
    ///
    /// # Errors
    /// [`Failure::Claims`] and [`Failure::Kafka`].
    pub(crate) fn release(
        &mut self,
        desk: &Desk,
        store: Uuid,
        publication: &str,
        is_dry: bool,
    ) -> Result<Vec<Claim>, Failure> {
        self.read_on(desk).map_err(|failure| self.failed(failure))?;
        let claims = self.book.of_publication(store, publication);
        let claims: Vec<Claim> = claims.into_iter().cloned().collect();
        if !is_dry {
            let records: Records = claims.iter().map(|claim| (claim.key(), None)).collect();
            self.write(desk, &records)?;
        }
        Ok(claims)
    }

    /// Writes the claims to these topics that are not made, or not as they are to be, where nobody is in the way.
    fn renew(&mut self, desk: &Desk, topics: &[String]) -> Result<usize, Failure> {
        let claims_topic = &self.config.topics.claims;
        let topics = topics.iter().filter(|topic| *topic != claims_topic);
        let claims = topics.map(|topic| Claim::new(&self.config, topic));
        let free = claims.filter(|claim| self.book.against(claim).is_none());
        let records: Records = free
            .filter_map(|claim| self.book.renewed(claim))
            .filter_map(|claim| Some((claim.key(), Some(claim.value().ok()?))))
            .collect();
        self.write(desk, &records)?;
        Ok(records.len())
    }

    fn has(&self, claim: &Claim) -> bool {
        self.book.renewed(claim.clone()).is_none()
    }

    /// Reads what has come since, and looks whether this publication may still run.
    fn keep_up(&mut self, desk: &Desk) -> Result<(), Failure> {
        self.read_on(desk).map_err(|failure| self.failed(failure))?;
        self.book.is_mine(&self.config).map_err(Failure::NotMine)
    }

    fn write(&mut self, desk: &Desk, records: &Records) -> Result<(), Failure> {
        if records.is_empty() {
            return Ok(());
        }
        let written = write_keyed(&self.config, &self.config.topics.claims, records);
        written.map_err(|failure| self.failed(failure))?;
        self.keep_up(desk)
    }

    fn read_on(&mut self, desk: &Desk) -> Result<(), KafkaFailure> {
        let config = Arc::clone(&self.config);
        let topic = &config.topics.claims;
        let next = match self.next {
            Some(next) => next,
            None => self.ensure(desk)?,
        };
        // Until it is all read, nothing is known.
        self.next = None;
        let mut book = std::mem::take(&mut self.book);
        let mut unreadable = None;
        let end = read_keyed(&config, desk, topic, next, |record| {
            let taken = book.take(record.offset, &record.key, record.value.as_deref());
            unreadable = unreadable.take().or(taken.err());
        })?;
        if let Some(unreadable) = unreadable {
            let reason = unreadable.to_string();
            return Err(KafkaFailure::TopicUnfit { topic: topic.clone(), reason });
        }
        if end < next {
            // It is another topic than before.
            return self.read_on(desk);
        }
        (self.book, self.next) = (book, Some(end));
        Ok(())
    }

    /// Makes sure that the topic is there, as it must be.
    fn ensure(&self, desk: &Desk) -> Result<i64, KafkaFailure> {
        let plan = TopicPlan::claims(&self.config.topics);
        let facts = ensure_topic_at(desk, &self.config, &plan)?;
        let is_compacted =
            |setting: &crate::topic_policy::Difference| setting.setting == "cleanup.policy";
        let reason = match facts.differences.iter().find(|difference| is_compacted(difference)) {
            Some(difference) => difference.to_string(),
            None if facts.partitions != 1 => {
                format!("it has {} partitions, and must have one", facts.partitions)
            }
            None => return first(desk, &plan.name),
        };
        Err(KafkaFailure::TopicUnfit { topic: plan.name, reason })
    }

    fn failed(&self, failure: KafkaFailure) -> Failure {
        let topic = self.config.topics.claims.clone();
        let reason = match &failure {
            KafkaFailure::TopicMissing { reason, .. } | KafkaFailure::TopicUnfit { reason, .. } => {
                reason.clone()
            }
            KafkaFailure::Forbidden { .. } => {
                let servers = &self.config.kafka.bootstrap_servers;
                let plan = TopicPlan::claims(&self.config.topics);
                format!(
                    "{failure}; this makes it: {}; this allows it: kafka-acls.sh --bootstrap-server {servers} --add \
                     --allow-principal User:... --operation Read --operation Write --operation Describe --topic {topic}",
                    plan.command(servers)
                )
            }
            KafkaFailure::Outage { .. }
            | KafkaFailure::Refused { .. }
            | KafkaFailure::Fenced { .. }
            | KafkaFailure::UnknownOutcome { .. }
            | KafkaFailure::Settings { .. } => return failure.into(),
        };
        Failure::Claims { topic, reason }
    }
}

/// Where a topic begins, once its partition has a leader: one that was just made has none yet.
fn first(desk: &Desk, topic: &str) -> Result<i64, KafkaFailure> {
    let deadline = Instant::now() + LEADER_DELAY_MAX;
    loop {
        match desk.ends(topic, &[0]) {
            Ok(ends) => return Ok(ends.first().map_or(0, |(_, (first, _))| *first)),
            Err(failure) if !failure.is_outage() || Instant::now() >= deadline => {
                return Err(failure);
            }
            Err(_no_leader_yet) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// What is claimed, for people: a line a publication, with the number of its topics.
pub(crate) fn summary(claims: &[Claim]) -> String {
    let mut publications: BTreeMap<String, usize> = BTreeMap::new();
    for claim in claims {
        *publications.entry(claim.to_string()).or_default() += 1;
    }
    publications.iter().map(|(who, topics)| format!("{topics} topics of {who}\n")).collect()
}
