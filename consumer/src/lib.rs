//! Reads the topics that an Annals relay writes, and turns them into read models.
//!
//! Three ways in, from the most to the least done for you:
//!
//! - [`Projection`] applies typed events to PostgreSQL **exactly once**: one transaction holds what your
//!   handler wrote, the next offsets, and the last version of each stream.
//! - [`Consumer`] hands out one [`Delivered`] record after the other; [`VersionFilter`] drops what
//!   came twice, and refuses what is missing or has another event
//!   under a version that was applied.
//! - Any other client can read the same topics: the records are Avro with the Confluent prefix, keyed by
//!   stream, with CloudEvents headers.
//!
//! # Set `isolation.level=read_committed` in every consumer that is not this one
//!
//! **Java consumers, and what is built on them (Kafka Connect, Spring, Flink, the console consumer), read
//! uncommitted records unless told otherwise.** A relay that dies leaves records of an aborted
//! transaction in the topic and publishes the same events again: under `read_uncommitted` a consumer
//! sees both, and sees them out of order. This crate always reads committed records only.
//!
//! # Example
//!
//! ```no_run
//! # use annals_consumer::{Event, EventSet, Projection, Schemas, Settings};
//! # async fn counts<FlightEvent: EventSet>(
//! #     pool: sqlx::PgPool, shutdown: tokio_util::sync::CancellationToken,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! let projection = Projection::new("events-per-flight", &["demo-flight"])?;
//! projection.prepare(&pool).await?;
//! let kafka = Settings::new("127.0.0.1:9092");
//! let schemas = Schemas::new("http://127.0.0.1:8081/apis/ccompat/v7")?;
//! let count = "insert into counts values ($1, 1) on conflict (stream) do update set n = counts.n + 1";
//! projection.runner(&pool, kafka, schemas).run(&shutdown, async |connection, events: &[Event<FlightEvent>]| {
//!     for event in events {
//!         sqlx::query(count).bind(&event.delivered.stream).execute(&mut *connection).await?;
//!     }
//!     Ok::<_, sqlx::Error>(())
//! }).await?;
//! # Ok(())
//! # }
//! ```

mod apply;
mod batch;
mod cache;
mod consumer;
mod envelope;
mod filter;
mod intake;
mod kafka;
mod ledger;
mod outage;
mod position;
mod projection;
mod registry;
mod runner;
mod session;
mod settings;
mod topics;
mod transaction;

pub use annals_schemas::{EventSet, Schema, SchemaId};
pub use batch::{Event, UnknownEvents};
pub use consumer::{Connect, ConsumeError, Consumer};
pub use envelope::{Delivered, EnvelopeError, EnvelopeProblem};
pub use filter::{Fault, FirstVersion, Forked, Gap, Verdict, VersionFilter};
pub use kafka::KafkaFailure;
pub use position::{Place, Position, Version};
pub use projection::{Projection, ProjectionError};
pub use registry::{DecodeFailure, RegistrySetupError, SchemaLookupError, Schemas};
pub use runner::{Progress, RunError, Runner, Totals};
pub use settings::{RefusedOption, Settings};
