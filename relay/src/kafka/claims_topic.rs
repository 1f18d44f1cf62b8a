//! The topic of claims: read from its beginning once, then continuously, and written to in batches.
//! Blocks.
//!
//! To claim a topic, a relay reads all claims, writes its own, and reads on to the end: of claims
//! that exclude each other, the one with the lowest offset is in force, and every reader sees the
//! same order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use crate::config::Config;
use crate::kafka::producer::write_keyed;
use crate::kafka::scan::read_keyed;
use crate::kafka::topic_admin::{ByTopic, TopicAdmin};
use crate::kafka::topic_plan::{Difference, TopicPlan};
use crate::kafka::topic_setup::{ends_once_led, ensure_topic_at};
use crate::model::announced_session::{AnnouncedBy, AnnouncedSession};
use crate::model::claim::{Claim, PublicationRefused};
use crate::model::claim_book::ClaimBook;
use crate::model::execution::Execution;
use crate::model::offsets::RecordOffset;
use crate::report::failure::Failure;
use crate::report::kafka_failure::KafkaFailure;

type Records = Vec<(String, Option<Vec<u8>>)>;

/// The claims on this Kafka cluster.
pub(crate) struct ClaimsTopic {
    config: Arc<Config>,
    book: ClaimBook,
    /// The next offset to read; none before the first read.
    next: Option<RecordOffset>,
}

impl ClaimsTopic {
    /// Reads nothing yet.
    pub(crate) fn new(config: &Arc<Config>) -> Self {
        Self { config: Arc::clone(config), book: ClaimBook::default(), next: None }
    }

    /// Checks whether the configured publication may run, and takes over the claims of the database
    /// that this one replaces. `known` are the publications in the database.
    ///
    /// # Errors
    /// [`Failure::PublicationRefused`] if it may not; [`Failure::Claims`] and
    /// [`Failure::Kafka`] if the claims cannot be read.
    pub(crate) fn begin(&mut self, admin: &TopicAdmin, known: &[String]) -> Result<(), Failure> {
        self.keep_up(admin)?;
        if let Some(claim) = self.book.of_another_deployment(&self.config) {
            return Err(Failure::PublicationRefused(PublicationRefused::Deployment {
                mine: self.config.publication(),
                by: Box::new(claim.clone()),
                known: known.join(", "),
            }));
        }
        let (store, publication) = (self.config.store.id, self.config.publication());
        let own = self.book.of_publication(store, &publication);
        let own: Vec<String> = own.into_iter().map(|claim| claim.topic.clone()).collect();
        let moved = self.renew(admin, &own)?;
        if moved > 0 {
            tracing::info!(
                event = "claims_renewed",
                topics = moved,
                publication,
                "renewed the claims of this publication"
            );
        }
        Ok(())
    }

    /// Claims the topics that are not claimed yet; returns those that another publication claims,
    /// with the reason.
    ///
    /// # Errors
    /// [`Failure::PublicationRefused`] when this publication may not run any more;
    /// [`Failure::Claims`] and [`Failure::Kafka`] if the claims cannot be read.
    pub(crate) fn claim(
        &mut self,
        admin: &TopicAdmin,
        topics: &[String],
    ) -> Result<ByTopic<Failure>, Failure> {
        self.keep_up(admin)?;
        self.renew(admin, topics)?;
        let (mut refused, mut lost) = (ByTopic::new(), Records::new());
        for topic in topics {
            let claim = Claim::new(&self.config, topic);
            let failure = if *topic == self.config.topics.claims {
                let reason = "it is the topic of claims: set another topics.prefix".to_owned();
                KafkaFailure::TopicUnfit { topic: topic.clone(), reason }.into()
            } else if let Some(taken) = self.book.before(&claim) {
                lost.push((claim.key(), None));
                Failure::TopicClaimed(Box::new(taken))
            } else if let Some(taken) = self.book.against(&claim).filter(|_| !self.has(&claim)) {
                Failure::TopicClaimed(Box::new(taken))
            } else {
                continue;
            };
            refused.insert(topic.clone(), failure);
        }
        self.write(admin, &lost)?;
        Ok(refused)
    }

    /// The topics of the configured publication: those that it claims, and those of `written`,
    /// which it has written to, that no other publication claims.
    ///
    /// # Errors
    /// [`Failure::Claims`] and [`Failure::Kafka`].
    pub(crate) fn own(
        &mut self,
        admin: &TopicAdmin,
        written: BTreeSet<String>,
    ) -> Result<BTreeSet<String>, Failure> {
        self.read_on(admin).map_err(|failure| self.failed(failure))?;
        let is_free =
            |topic: &String| self.book.against(&Claim::new(&self.config, topic)).is_none();
        let mut own: BTreeSet<String> = written.into_iter().filter(is_free).collect();
        let claims = self.book.of_publication(self.config.store.id, &self.config.publication());
        own.extend(claims.into_iter().map(|claim| claim.topic.clone()));
        Ok(own)
    }

    /// Announces a session of the configured publication.
    ///
    /// # Errors
    /// [`Failure::Claims`] and [`Failure::Kafka`].
    pub(crate) fn announce(
        &self,
        admin: &TopicAdmin,
        transactional_ids: &[String],
    ) -> Result<(), Failure> {
        let session = self.session(transactional_ids);
        let topic = &self.config.topics.claims;
        let value = session
            .value()
            .map_err(|error| Failure::Claims { topic: topic.clone(), reason: error.to_string() })?;
        self.ensure(admin)
            .and_then(|_first| write_keyed(&self.config, topic, &[(session.key(), Some(value))]))
            .map_err(|failure| self.failed(failure))
    }

    /// The announced sessions of the configured publication.
    ///
    /// # Errors
    /// [`Failure::Claims`] and [`Failure::Kafka`].
    pub(crate) fn sessions(
        &mut self,
        admin: &TopicAdmin,
    ) -> Result<Vec<AnnouncedSession>, Failure> {
        self.read_on(admin).map_err(|failure| self.failed(failure))?;
        Ok(self.book.sessions_of(self.config.store.id, &self.config.publication()))
    }

    /// Withdraws the announcements of sessions of the configured publication, which can publish no
    /// more, by their transactional ids.
    ///
    /// # Errors
    /// [`Failure::Claims`] and [`Failure::Kafka`].
    pub(crate) fn withdraw(&self, transactional_ids: &[String]) -> Result<(), Failure> {
        let keys: BTreeSet<String> = transactional_ids
            .iter()
            .map(|id| self.session(std::slice::from_ref(id)).key())
            .collect();
        let records: Records = keys.into_iter().map(|key| (key, None)).collect();
        let written = write_keyed(&self.config, &self.config.topics.claims, &records);
        written.map_err(|failure| self.failed(failure))
    }

    fn session(&self, transactional_ids: &[String]) -> AnnouncedSession {
        let Config { store, relay, .. } = &*self.config;
        let publication = &self.config.publication();
        let by = AnnouncedBy { store_id: store.id, publication, instance: &relay.instance };
        AnnouncedSession::new(by, transactional_ids)
    }

    /// Releases the topics that a publication claims, and returns its claims.
    ///
    /// # Errors
    /// [`Failure::Claims`] and [`Failure::Kafka`].
    pub(crate) fn release(
        &mut self,
        admin: &TopicAdmin,
        store: Uuid,
        publication: &str,
        execution: Execution,
    ) -> Result<Vec<Claim>, Failure> {
        self.read_on(admin).map_err(|failure| self.failed(failure))?;
        let claims = self.book.of_publication(store, publication);
        let claims: Vec<Claim> = claims.into_iter().cloned().collect();
        if execution == Execution::Apply {
            let sessions = self.book.sessions_of(store, publication);
            let keys = claims.iter().map(Claim::key);
            let keys = keys.chain(sessions.iter().map(AnnouncedSession::key));
            let records: Records = keys.map(|key| (key, None)).collect();
            self.write(admin, &records)?;
        }
        Ok(claims)
    }

    /// Writes the claims to these topics that are missing or outdated, unless another publication
    /// claims them.
    fn renew(&mut self, admin: &TopicAdmin, topics: &[String]) -> Result<usize, Failure> {
        let claims_topic = &self.config.topics.claims;
        let topics = topics.iter().filter(|topic| *topic != claims_topic);
        let claims = topics.map(|topic| Claim::new(&self.config, topic));
        let free = claims.filter(|claim| self.book.against(claim).is_none());
        let records: Records = free
            .filter_map(|claim| self.book.renewed(claim))
            .filter_map(|claim| Some((claim.key(), Some(claim.value().ok()?))))
            .collect();
        self.write(admin, &records)?;
        Ok(records.len())
    }

    fn has(&self, claim: &Claim) -> bool {
        self.book.renewed(claim.clone()).is_none()
    }

    /// Reads new claims, and checks whether this publication may still run.
    fn keep_up(&mut self, admin: &TopicAdmin) -> Result<(), Failure> {
        self.read_on(admin).map_err(|failure| self.failed(failure))?;
        self.book.is_mine(&self.config).map_err(Failure::PublicationRefused)
    }

    fn write(&mut self, admin: &TopicAdmin, records: &Records) -> Result<(), Failure> {
        if records.is_empty() {
            return Ok(());
        }
        let written = write_keyed(&self.config, &self.config.topics.claims, records);
        written.map_err(|failure| self.failed(failure))?;
        self.keep_up(admin)
    }

    fn read_on(&mut self, admin: &TopicAdmin) -> Result<(), KafkaFailure> {
        let config = Arc::clone(&self.config);
        let topic = &config.topics.claims;
        let next = match self.next {
            Some(next) => next,
            None => self.ensure(admin)?,
        };
        // A read that fails leaves the book empty: the next one begins again.
        self.next = None;
        let mut book = std::mem::take(&mut self.book);
        let mut unreadable = None;
        let end = read_keyed(&config, admin, topic, next, |record| {
            let taken = book.take(record.offset, &record.key, record.value.as_deref());
            unreadable = unreadable.take().or(taken.err());
        })?;
        if let Some(unreadable) = unreadable {
            let reason = unreadable.to_string();
            return Err(KafkaFailure::TopicUnfit { topic: topic.clone(), reason });
        }
        if end < next {
            // The topic was created anew.
            return self.read_on(admin);
        }
        (self.book, self.next) = (book, Some(end));
        Ok(())
    }

    /// Creates the topic unless it exists, checks its properties, and returns its first offset.
    fn ensure(&self, admin: &TopicAdmin) -> Result<RecordOffset, KafkaFailure> {
        let plan = TopicPlan::claims(&self.config.topics);
        let facts = ensure_topic_at(admin, &self.config, &plan)?;
        let is_compacted = |setting: &Difference| setting.setting == "cleanup.policy";
        let reason = match facts.differences.iter().find(|difference| is_compacted(difference)) {
            Some(difference) => difference.to_string(),
            // Partitions that were added stay empty: all use the first one.
            None => return first(admin, &plan.name),
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
                    "{failure}; create it: {}; allow it: kafka-acls.sh --bootstrap-server {servers} --add \
                     --allow-principal User:... --operation Read --operation Write --operation Describe --topic {topic}",
                    plan.command(servers)
                )
            }
            KafkaFailure::Outage { .. }
            | KafkaFailure::TopicUnavailable { .. }
            | KafkaFailure::Refused { .. }
            | KafkaFailure::Fenced { .. }
            | KafkaFailure::Busy { .. }
            | KafkaFailure::Slow { .. }
            | KafkaFailure::UnknownOutcome { .. }
            | KafkaFailure::Settings { .. } => return failure.into(),
        };
        Failure::Claims { topic, reason }
    }
}

/// The first offset of the first partition of a topic.
fn first(admin: &TopicAdmin, topic: &str) -> Result<RecordOffset, KafkaFailure> {
    let ends = ends_once_led(admin, topic, &[0])?;
    Ok(ends.first().map(|(_, range)| range.first).unwrap_or_default())
}

/// The claims in words: one line for each publication, with the number of its topics.
pub(crate) fn summary(claims: &[Claim]) -> String {
    let mut publications: BTreeMap<String, usize> = BTreeMap::new();
    for claim in claims {
        *publications.entry(claim.to_string()).or_default() += 1;
    }
    publications.iter().map(|(who, topics)| format!("{topics} topics of {who}\n")).collect()
}
