//! An event store on PostgreSQL, to be embedded in a service: append, read, rebuild aggregates, follow the log.
//!
//! Appending writes the events and their outbox rows in one PostgreSQL transaction, under a version
//! check, in one round trip. The relay of Annals publishes the outbox to Kafka, so that other services
//! can build projections. This crate knows nothing of Kafka.
//!
//! ```
//! use annals_store::{Append, ExpectedVersion, NewEvent, Store, StreamName, events};
//! # #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
//! # pub struct FlightCancelled { scheduled_departure: i64 }
//! events! {
//!     /// What happens to a flight.
//!     #[derive(Debug, Clone, PartialEq)]
//!     pub enum FlightEvent in "flight" {
//!         /// It will not leave.
//!         FlightCancelled = "../../schemas/avro/flight/FlightCancelled.v1.avsc",
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let bed = annals_testkit::Testbed::new("doc_crate").await;
//! # let url = bed.database_url();
//! // postgres://user:password@host/database
//! let store = Store::connect(&url).await?;
//! store.migrate().await?;
//! let flight = StreamName::new("flight-2013-01-01-UA-1545")?;
//! let event = NewEvent::new(&FlightEvent::from(FlightCancelled { scheduled_departure: 1_357_034_400_000 }))?;
//! store.append(&Append::to(&flight, ExpectedVersion::Any, [event])).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees
//!
//! - *Atomic*: the events of an append and their outbox rows commit together or not at all, also over
//!   several streams ([`Append::and_to`]), also inside the caller's own transaction ([`Store::append_in`]).
//! - *What cannot be published cannot be committed*: names, sizes and schemas are checked in the append.
//! - *Retry is safe* in every [`ExpectedVersion`]: the same event ids give the original answer.
//! - *Nothing is lost and nothing is reordered*: a follower ([`Store::follow`]) gets each event once, each stream in version
//!   order; a transaction left open anywhere delays only its own events.
//!
//! # Where to begin
//!
//! | to | see |
//! | --- | --- |
//! | declare events | [`events!`] |
//! | write them | [`Append`], [`Store::append`], [`Store::append_in`]; what can go wrong: [`AppendError`] |
//! | decide on current state | [`Aggregate`], [`Store::load`], [`Loaded::catch_up`] after a conflict |
//! | read | [`Read`], [`Store::read`], [`Store::read_events`], [`Store::streams`], [`Store::categories`] |
//! | follow | [`Follow`], [`Store::follow`], [`Store::follow_stream`], [`Checkpoint`] |
//! | watch it work | [`telemetry`] |
//!
//! `examples/bank` in the repository is the tutorial.
//!
//! # Following the log
//!
//! ```
//! use std::pin::pin;
//! use annals_store::{Category, Follow};
//! use futures_util::TryStreamExt;
//!
//! # use annals_store::{Append, ExpectedVersion};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let bed = annals_testkit::Testbed::new("doc_following").await;
//! # let (store, kept) = (bed.store(), None);
//! # let append = Append::to(&annals_testkit::account(1), ExpectedVersion::Any, [annals_testkit::opened("Ann")]);
//! # store.append(&append).await?;
//! let mut follow = Follow::category(&Category::new("account")?);
//! if let Some(checkpoint) = kept {
//!     follow = follow.after(checkpoint);
//! }
//! let mut log = pin!(store.follow(follow));
//! while let Some(followed) = log.try_next().await? {
//!     // In one transaction: what the event means here, and followed.checkpoint.
//!     println!("{} {}", followed.event.stream, followed.event.version);
//! #   break;
//! }
//! # Ok(())
//! # }
//! ```

mod aggregate;
mod append;
mod catalog;
mod checkpoint;
mod error;
mod event;
mod follow;
mod handover;
mod hints;
mod identity;
mod limits;
mod migrate;
pub mod outbox;
mod pgtime;
mod read;
mod refusal;
mod rows;
mod schemas;
mod sessions;
mod settle;
mod sql;
mod store;
mod stream;
mod stream_page;
pub mod telemetry;
mod trace;

pub use aggregate::{Aggregate, Loaded};
pub use annals_schemas::{
    DecodeError, EncodeError, EventSet, Fingerprint, FitReport, Misfit, Schema, SchemaError,
    check_fit, events, timestamp_micros, timestamp_millis, verify,
};
pub use append::{Append, Appended};
pub use checkpoint::{Checkpoint, CheckpointFormatError};
pub use error::{AppendError, Conflict, Error, Refusal};
pub use event::{EventId, Metadata, NewEvent, RecordedEvent};
pub use follow::{Follow, Followed};
pub use identity::{Adoption, Identity};
pub use limits::{
    EVENTS_PER_APPEND_MAX, HEADER_NAME_BYTES_MAX, METADATA_BYTES_MAX, STREAMS_PER_APPEND_MAX,
};
pub use migrate::MigrationError;
pub use read::{Key, Read};
pub use sql::{SchemaName, SchemaNameError};
/// The sqlx whose pools, connections and errors this crate takes and gives, for those who name them.
pub use sqlx;
pub use store::{EVENT_BYTES_MAX, Store, StoreOptions};
pub use stream::{
    CATEGORY_BYTES_MAX, Category, ExpectedVersion, NameError, Position, STREAM_NAME_BYTES_MAX,
    StreamName, Version,
};
pub use trace::TraceContext;
