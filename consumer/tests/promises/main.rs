//! What this crate promises, on a real Kafka, schema registry and PostgreSQL.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails where it stands")]

mod applied;
mod book;
mod events;
mod exactly_once;
mod fences;
mod forks;
mod group;
mod limits;
mod logs;
mod members;
mod other_databases;
mod outages;
mod poison;
mod progress;
mod reading;
mod rebuilds;
mod refusals;
mod removals;
mod topics;
mod upcast;

use annals_testkit::TopicBed;

/// A bed for the events of these tests, whose log is collected.
pub(crate) async fn bed() -> TopicBed {
    logs::collect();
    TopicBed::new::<events::OrderEvent>().await
}
