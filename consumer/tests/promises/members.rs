//! Processes that share a projection: this test program, started again.

use std::env;
use std::num::NonZeroUsize;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use annals_consumer::{ConsumerSettings, DeliveredEvent, Projection, SchemaRegistry};
use annals_testkit::TopicBed;
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::applied;
use crate::book;
use crate::events::OrderEvent;

const DATABASE: &str = "ANNALS_TEST_MEMBER_DATABASE";
const TOPIC: &str = "ANNALS_TEST_MEMBER_TOPIC";
const NAME: &str = "ANNALS_TEST_MEMBER_NAME";
const FAULT: &str = "ANNALS_TEST_MEMBER_FAULT";

/// The application name of the members' sessions.
const SESSIONS: &str = "member";

/// A member of the group, in a process of its own. Killed when dropped.
pub(crate) struct Member(Child);

/// The fault of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Its handler writes outside the transaction of the offsets, and then pauses for ever.
    WritesOutside,
}

impl Member {
    pub(crate) fn start(bed: &TopicBed, topic: &str, name: &str, fault: Fault) -> Self {
        let mut program = Command::new(env::current_exe().unwrap());
        program
            .args(["--exact", "members::member", "--ignored", "--nocapture"])
            .env(DATABASE, &bed.database_url)
            .env(TOPIC, topic)
            .env(NAME, name)
            .env("PGAPPNAME", SESSIONS)
            .env("ANNALS_KAFKA", &bed.brokers)
            .env("ANNALS_REGISTRY_URL", &bed.registry_url)
            .stdout(Stdio::null());
        if fault == Fault::WritesOutside {
            program.env(FAULT, "outside");
        }
        Self(program.spawn().unwrap())
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap();
        assert!(sent.success(), "kill -{signal} {pid}");
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Waits until the sessions of killed members have ended: the last commit of a killed process can
/// arrive after the process has ended.
pub(crate) async fn until_sessions_end(pool: &PgPool) {
    let count = "select count(*) from pg_stat_activity \
                 where datname = current_database() and application_name = $1";
    let ended = async || {
        let sessions: i64 = sqlx::query_scalar(count).bind(SESSIONS).fetch_one(pool).await.unwrap();
        sessions == 0
    };
    annals_testkit::until("the sessions of killed members end", ended).await;
}

/// The projection of all members.
pub(crate) fn projection(topic: &str) -> Projection {
    let few = NonZeroUsize::new(20).unwrap();
    let projection = Projection::new("totals", &[topic]).unwrap().shared();
    projection.batch_events_max(few).batch_deadline(Duration::from_secs(5))
}

/// With the shortest times that a broker allows.
pub(crate) fn settings(brokers: &str) -> ConsumerSettings {
    let settings = ConsumerSettings::new(brokers)
        .topic_check_interval(Duration::from_secs(1))
        .option("session.timeout.ms", "6000")
        .unwrap();
    settings.option("heartbeat.interval.ms", "1000").unwrap()
}

/// Not a test: a process of [`Member`].
#[tokio::test]
#[ignore = "a process that other tests start"]
async fn member() {
    let Ok(database) = env::var(DATABASE) else { return };
    let variable = |name| env::var(name).unwrap();
    let name = variable(NAME);
    let pool = PgPool::connect(&database).await.unwrap();
    let outside = env::var_os(FAULT).map(|_| pool.clone());
    let registry = SchemaRegistry::new(&variable("ANNALS_REGISTRY_URL")).unwrap();
    let settings = settings(&variable("ANNALS_KAFKA"));
    let runner = projection(&variable(TOPIC)).runner(&pool, settings, registry);
    let add = async |connection: &mut PgConnection, events: &[DeliveredEvent<OrderEvent>]| {
        match &outside {
            Some(pool) => {
                applied::add(&mut pool.acquire().await?.detach(), events, &name).await?;
                std::future::pending::<()>().await;
            }
            None => applied::add(connection, events, &name).await?,
        }
        book::add(connection, events).await
    };
    runner.run(&CancellationToken::new(), add).await.unwrap();
}
