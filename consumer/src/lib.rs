//! Reads the topics that an Annals relay writes, and turns them into read models.
//!
//! Three levels of use:
//!
//! - [`Projection`] applies typed events to PostgreSQL **exactly once**: one transaction commits
//!   the handler's writes, the next offsets, and the last version of each stream.
//! - [`Consumer`] returns one [`Delivered`] record after the other. [`VersionFilter`] detects
//!   duplicates, gaps, and another event under a version that was applied.
//! - Any other client can read the same topics: the records are Avro with the Confluent prefix,
//!   keyed by stream, with CloudEvents headers.
//!
//! # Set `isolation.level=read_committed` in every consumer that is not this one
//!
//! **Java consumers, and clients built on them (Kafka Connect, Spring, Flink, the console
//! consumer), read uncommitted records by default.** A relay that dies leaves records of an aborted
//! transaction in the topic and publishes the same events again: under `read_uncommitted` a
//! consumer receives both, out of order. This crate always reads committed records only.
//!
//! # Example
//!
//! ```no_run
//! # use annals_consumer::{
//! #     ConsumerSettings, DeliveredEvent, EventSet, Projection, SchemaRegistry,
//! # };
//! # async fn counts<FlightEvent: EventSet>(
//! #     pool: sqlx::PgPool,
//! #     shutdown: tokio_util::sync::CancellationToken,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! let projection = Projection::new("events-per-flight", &["demo-flight"])?;
//! projection.prepare(&pool).await?;
//! let kafka = ConsumerSettings::new("127.0.0.1:9092");
//! let registry = SchemaRegistry::new("http://127.0.0.1:8081/apis/ccompat/v7")?;
//! let count = "insert into counts values ($1, 1) \
//!              on conflict (stream) do update set n = counts.n + 1";
//! let runner = projection.runner(&pool, kafka, registry);
//! runner.run(&shutdown, async |connection, events: &[DeliveredEvent<FlightEvent>]| {
//!     for event in events {
//!         sqlx::query(count).bind(&event.delivered.stream).execute(&mut *connection).await?;
//!     }
//!     Ok::<_, sqlx::Error>(())
//! }).await?;
//! # Ok(())
//! # }
//! ```

mod applied_batch;
mod batch;
mod batch_applier;
mod batch_size;
mod batcher;
mod connection;
mod consumer;
mod database_target;
mod dead_letter;
mod drive;
mod envelope;
mod envelope_error;
mod error;
mod fetched_record;
mod filter_error;
mod kafka;
mod known_headers;
mod outage;
mod owned_partitions;
mod pace;
mod partial_batch;
mod position;
mod postgres_target;
mod progress;
mod projection;
mod projection_database;
mod projection_error;
mod projection_store;
mod raw_record;
mod read_model;
mod read_model_store;
mod read_model_switch;
mod registry;
mod registry_refusal;
mod registry_settings;
mod resume;
mod run_progress;
mod runner;
mod settings;
mod target;
mod telemetry;
pub mod testing;
mod topic_watch;
mod transaction;
mod version_cache;
mod version_filter;

pub use annals_schemas::personal;
pub use annals_schemas::{
    DecodeError, EventSchemas, EventSet, Schema, SchemaError, SchemaId, UnknownEvents,
    WireFormatError,
};
pub use batch::DeliveredEvent;
pub use consumer::{Consumer, ConsumerBuilder};
pub use dead_letter::{DeadLetter, DeadLetterHandler, FailurePolicy};
pub use envelope::Delivered;
pub use envelope_error::{EnvelopeError, EnvelopeProblem};
pub use error::{ConsumeError, RunError, TransactionLimit};
pub use filter_error::{FilterError, Forked, Gap};
/// The jiff whose timestamps appear in this crate's API.
pub use jiff;
pub use kafka::KafkaClientError;
pub use position::{Offset, OwnerEpoch, Position, RecordLocation, Version};
pub use progress::{LastApplied, OffsetUpdate, PartitionProgress};
pub use projection::Projection;
pub use projection_database::{BatchToApply, DatabaseError, ProjectionDatabase};
pub use projection_error::ProjectionError;
pub use raw_record::RecordBytes;
pub use read_model::IfBehind;
pub use read_model_store::ReadModelVersion;
pub use registry::{DecodeRecordError, SchemaLookupError, SchemaRegistry};
pub use registry_settings::{RegistrySettings, RegistrySetupError};
pub use run_progress::{RunProgress, RunTotals};
pub use runner::{DatabaseRunner, Runner};
pub use settings::{ConsumerSettings, ReservedOptionError};
/// The sqlx whose pools, connections and errors appear in this crate's API.
pub use sqlx;
/// The token that ends a run.
pub use tokio_util::sync::CancellationToken;
pub use version_filter::{FilterDecision, FirstVersion, VersionFilter};
