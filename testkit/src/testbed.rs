//! A test's own database, topics and deployment name.

use std::sync::atomic::{AtomicBool, Ordering};

use annals_store::{Store, StoreOptions};
use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;

use crate::account::CATEGORY;
use crate::environment::{Environment, is_kept, is_pooled};
use crate::follow::{Follower, consume};
use crate::history::{Attempt, History, Recorded};
use crate::kafka;
use crate::migrated;
use crate::must::Must;
use crate::postgres::administer;
use crate::relay_settings::RelaySettings;
use crate::until::until;

/// The longest label that leaves room for the rest of a database's name.
const LABEL_BYTES_MAX: usize = 36;
const CONNECTIONS_MAX: u32 = 20;

/// A database of its own, migrated, and names that no other test uses for topics and deployment.
///
/// All of it is removed at the end of a successful test. A panicking test keeps it and prints the
/// names; with `ANNALS_TEST_KEEP` set every test does.
#[derive(Debug)]
pub struct Testbed {
    name: String,
    environment: Environment,
    store: Store,
    has_topics: AtomicBool,
    end: BedEnd,
}

/// The end of a test bed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BedEnd {
    /// Database, topics and logs are removed, except after a panic.
    Removed,
    /// They are kept, and none of it is printed: a program that is no test reports them itself.
    Kept,
}

impl Testbed {
    /// Creates the test bed; `label` names the test.
    ///
    /// # Panics
    /// If the environment is not set or does not answer.
    pub async fn new(label: &str) -> Self {
        Self::on(label, Environment::get().clone()).await
    }

    /// The same on other servers than the environment's.
    ///
    /// # Panics
    /// If they do not answer.
    pub async fn on(label: &str, environment: Environment) -> Self {
        let label: String = label.chars().take(LABEL_BYTES_MAX).collect();
        let unique = Uuid::new_v4().simple().to_string();
        let name = format!("test_{label}_{}", &unique[..8]);
        Self::create(name, environment, BedEnd::Removed).await
    }

    /// A test bed of this name, which outlives the program: for the demo.
    ///
    /// # Panics
    /// If there is a database of that name, or the environment does not answer.
    pub async fn kept(name: &str, environment: Environment) -> Self {
        Self::create(name.to_owned(), environment, BedEnd::Kept).await
    }

    async fn create(name: String, environment: Environment, end: BedEnd) -> Self {
        let store = migrated::make(&environment, &name, end).await;
        Self { name, environment, store, has_topics: AtomicBool::new(false), end }
    }

    /// The same test after its database has moved to these servers under its name.
    ///
    /// # Panics
    /// If they do not answer.
    pub async fn moved_to(&self, environment: &Environment) -> Self {
        let (name, environment) = (self.name.clone(), environment.clone());
        let store = connect(&environment.url_of_database(&name)).await;
        Self { name, environment, store, has_topics: AtomicBool::new(false), end: self.end }
    }

    pub(crate) fn end(&self) -> BedEnd {
        self.end
    }

    /// The store in this test's database.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The servers.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The URL of this test's database.
    #[must_use]
    pub fn database_url(&self) -> String {
        self.environment.url_of_database(&self.name)
    }

    /// The prefix of this test's names, and the name of its deployment.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The prefix of this test's topics.
    #[must_use]
    pub fn topic_prefix(&self) -> String {
        self.has_topics.store(true, Ordering::Relaxed);
        format!("{}-", self.name)
    }

    /// This test's topic of a category.
    #[must_use]
    pub fn topic(&self, category: &str) -> String {
        format!("{}{category}", self.topic_prefix())
    }

    /// The claims topic of this test's relays.
    #[must_use]
    pub fn claims_topic(&self) -> String {
        self.has_topics.store(true, Ordering::Relaxed);
        format!("{}.claims", self.name)
    }

    /// The checkpoint topic of this test's relays.
    ///
    /// # Panics
    /// If the database does not answer.
    pub async fn checkpoint_topic(&self) -> String {
        let id = sqlx::query_scalar(include_str!("../sql/store_id.sql"));
        let id: Uuid = id.fetch_one(self.store.pool()).await.must("read the store's id");
        format!("{}test-checkpoints-{}", self.topic_prefix(), &id.simple().to_string()[..12])
    }

    /// The settings of a relay for this test.
    #[must_use]
    pub fn relay(&self) -> RelaySettings {
        RelaySettings::new(self)
    }

    /// A second handle on the same database, as another process would have: with empty caches.
    ///
    /// # Panics
    /// If the database does not answer.
    pub async fn another_store(&self) -> Store {
        let options = StoreOptions::default().connections_max(CONNECTIONS_MAX);
        options.connect(&self.database_url()).await.must("connect to the test's database")
    }

    /// Every recorded event, in position order.
    ///
    /// # Panics
    /// If the database does not answer.
    pub async fn recorded(&self) -> Vec<Recorded> {
        // Over a connection of its own: one from the pool may not have been used since the server
        // last crashed.
        let connection = PgConnection::connect(&self.database_url()).await;
        let mut connection = connection.must("connect to read the recorded events");
        let rows =
            sqlx::query(include_str!("../sql/recorded.sql")).fetch_all(&mut connection).await;
        let rows = rows.must("read the recorded events");
        rows.iter()
            .map(|row| Recorded {
                id: row.get("event_id"),
                stream: row.get("stream"),
                version: row.get("version"),
                position: row.get("position"),
                payload: row.get("payload"),
            })
            .collect()
    }

    /// Returns when a session of this test's database waits for a lock.
    ///
    /// # Panics
    /// If none does in time.
    pub async fn until_waiting_for_a_lock(&self) {
        until("a session waits for a lock", async || self.waiting_for_a_lock().await > 0).await;
    }

    async fn ask<T>(&self, statement: &'static str) -> T
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        let answer = sqlx::query_scalar(statement).fetch_one(self.store.pool()).await;
        answer.must("ask the test's database")
    }

    async fn waiting_for_a_lock(&self) -> i64 {
        let query = sqlx::query_scalar(include_str!("../sql/waiting_for_lock.sql"));
        query.fetch_one(self.store.pool()).await.must("look at locks")
    }

    /// Returns when a program, by its name in `pg_stat_activity`, has queried the end of this
    /// test's log twice from now on: it has read everything recorded so far.
    ///
    /// # Panics
    /// If it does not in time.
    pub async fn until_looked(&self, application: &str) {
        for _ in 0..2 {
            let now: String = self.ask(include_str!("../sql/now.sql")).await;
            until("a query of the log's end", async || self.has_looked(application, &now).await)
                .await;
        }
    }

    async fn has_looked(&self, application: &str, since: &str) -> bool {
        let looked = sqlx::query_scalar(include_str!("../sql/has_looked.sql"));
        let looked = looked.bind(application).bind(since).fetch_one(self.store.pool()).await;
        looked.must("see who looks at the log")
    }

    /// Returns when PostgreSQL has the checkpoints of every event recorded so far: the relay then
    /// writes nothing more.
    ///
    /// # Panics
    /// If it has not in time.
    pub async fn until_copied(&self) {
        let is_copied = async || self.ask(include_str!("../sql/is_copied.sql")).await;
        until("the checkpoints are copied", is_copied).await;
    }

    /// Returns when PostgreSQL has recorded that the partitions of a topic have so many records.
    ///
    /// # Panics
    /// If it has not in time.
    pub async fn until_ends_recorded(&self, topic: &str, records: i64) {
        let is_recorded = async || {
            let asked = sqlx::query_scalar(include_str!("../sql/ends_recorded.sql"));
            let asked = asked.bind(topic).bind(records).fetch_one(self.store.pool()).await;
            asked.must("read the recorded ends of a topic")
        };
        until("the ends of the topic are recorded", is_recorded).await;
    }

    /// One line that differs if any written value of an append differs.
    ///
    /// # Panics
    /// If the database does not answer.
    pub async fn fingerprint(&self) -> String {
        let query = sqlx::query_scalar(include_str!("../sql/fingerprint.sql"));
        query.fetch_one(self.store.pool()).await.must("fingerprint the tables")
    }

    /// A consumer of this test's accounts, in the background.
    #[must_use]
    pub fn follow(&self) -> Follower {
        Follower::start(&self.environment.kafka, &[&self.topic(CATEGORY)])
    }

    /// The full history of a finished run: the writers' attempts, the recorded events, and the
    /// events that a fresh consumer reads from this test's accounts.
    ///
    /// # Panics
    /// If the database or the broker does not answer.
    pub async fn history(&self, attempts: Vec<Attempt>) -> History {
        self.history_of(&[CATEGORY], attempts).await
    }

    /// The same for other categories than the accounts.
    ///
    /// # Panics
    /// If the database or the broker does not answer.
    pub async fn history_of(&self, categories: &[&str], attempts: Vec<Attempt>) -> History {
        let topics: Vec<String> = categories.iter().map(|category| self.topic(category)).collect();
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        let consumed = consume(&self.environment.kafka, &topics).await;
        History { attempts, recorded: self.recorded().await, consumed }
    }
}

pub(crate) async fn connect(url: &str) -> Store {
    let options = StoreOptions::default().connections_max(CONNECTIONS_MAX);
    // LISTEN does not work there.
    let options = if is_pooled() { options.without_notifications() } else { options };
    options.connect(url).await.must("connect to the test's database")
}

async fn remove(name: String, environment: Environment, has_topics: bool) -> anyhow::Result<()> {
    let statement = include_str!("../sql/drop_database.sql");
    let dropped = administer(&environment, statement, &[("the_database", &name)]).await;
    // Also if the server has already ended.
    if has_topics {
        kafka::delete_topics(environment.kafka, name).await?;
    }
    dropped
}

impl Drop for Testbed {
    fn drop(&mut self) {
        if self.end == BedEnd::Kept {
            return;
        }
        if is_kept() {
            eprintln!("kept: database {}, topics *{}*", self.database_url(), self.name);
            return;
        }
        let has_topics = self.has_topics.load(Ordering::Relaxed);
        let removal = remove(self.name.clone(), self.environment.clone(), has_topics);
        if let Err(error) = crate::blocking::run(removal) {
            eprintln!("could not remove what test {} used: {error:#}", self.name);
        }
    }
}
