//! An event store on PostgreSQL, embedded in a service: append, read, rebuild aggregates, follow
//! the log.
//!
//! Appending writes the events and their outbox rows in one PostgreSQL transaction, under a version
//! check, in one round trip. The relay of Annals publishes the outbox to Kafka, so that other
//! services can build projections. This crate does not depend on Kafka.
//!
//! ```
//! use annals_store::{Append, ExpectedVersion, NewEvent, Store, StreamName, events};
//! # #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
//! # pub struct FlightCancelled { scheduled_departure: i64 }
//! events! {
//!     /// The events of a flight.
//!     #[derive(Debug, Clone, PartialEq)]
//!     pub enum FlightEvent in "flight" {
//!         /// The flight is cancelled.
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
//! let cancelled = FlightCancelled { scheduled_departure: 1_357_034_400_000 };
//! let event = NewEvent::new(&FlightEvent::from(cancelled))?;
//! store.append(&Append::to(&flight, ExpectedVersion::Any, [event])).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees
//!
//! - *Atomic*: the events of an append and their outbox rows commit together or not at all, also
//!   over several streams ([`Append::and_to`]), also inside the caller's own transaction
//!   ([`Store::append_in`]).
//! - *Committed events can be published*: the append checks names, sizes and schemas.
//! - *A retry is safe* in each [`ExpectedVersion`]: the same event ids get the original result.
//! - *No loss and no reordering*: a follower ([`Store::follow`]) gets each event once, and each
//!   stream in version order; an open transaction delays only its own events.
//!
//! # Where to begin
//!
//! | to | see |
//! | --- | --- |
//! | declare events | [`events!`] |
//! | write them | [`Append`], [`Store::append`], [`Store::append_in`]; errors: [`AppendError`] |
//! | decide on the current state | [`Aggregate`], [`EventStore::decide`], [`EventStore::load`] |
//! | read | [`Read`], [`Store::read`], [`Store::read_events`], [`Store::streams`], [`Store::categories`] |
//! | set metadata once for a request | [`Context`] |
//! | test without a database | [`testing`], [`MemoryStore`] |
//! | build read models | [`Projection`], [`Store::project`], [`Store::wait_for`], [`Store::switch_projection`] |
//! | follow | [`Follow`], [`Store::follow`], [`Store::follow_stream`], [`Checkpoint`] |
//! | encrypt personal data, and erase a person | [`PersonalKeys`], [`Personal`] |
//! | close, truncate and archive streams | [`Store::close_stream`], [`Store::truncate_stream`], [`Store::archive_stream`] |
//! | monitor | [`telemetry`] |
//!
//! # Features
//!
//! `tls-rustls` or `tls-native-tls` encrypt connections to PostgreSQL (`sslmode` in the URL).
//! Without them, and without such a feature of sqlx elsewhere in the program, a URL with
//! `sslmode=require` is an error.
//!
//! `vault` adds `VaultKeyProvider`, which keeps the wrapping key of personal data in HashiCorp
//! Vault or OpenBao; `aws-kms` adds `AwsKmsKeyProvider`, which keeps it in the AWS Key Management
//! Service. Their connections over `https` need `tls-native-tls`, also where PostgreSQL is reached by
//! `tls-rustls`.
//!
//! `examples/bank` in the repository is the tutorial, and docs/guide explains it.
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
//! # let (store, stored) = (bed.store(), None);
//! # let (account, opened) = (annals_testkit::account(1), annals_testkit::opened("Ann"));
//! # let append = Append::to(&account, ExpectedVersion::Any, [opened]);
//! # store.append(&append).await?;
//! let mut follow = Follow::category(&Category::new("account")?);
//! if let Some(checkpoint) = stored {
//!     follow = follow.after(checkpoint);
//! }
//! let mut log = pin!(store.follow(follow));
//! while let Some(followed) = log.try_next().await? {
//!     // In one transaction: process the event, and store followed.checkpoint.
//!     println!("{} {}", followed.event.stream, followed.event.version);
//! #   break;
//! }
//! # Ok(())
//! # }
//! ```

mod aggregate;
mod append;
mod backoff;
mod bigint;
mod connect;
mod connections;
mod context;
mod error;
mod event;
mod event_store;
mod follow;
mod history;
mod identity;
mod limits;
mod memory;
mod metadata;
mod migrate;
mod options;
pub mod outbox;
mod personal;
mod projections;
mod read;
mod schemas;
mod sqlstate;
mod statements;
mod store;
mod stream;
mod stream_life;
mod tag;
pub mod telemetry;
pub mod testing;
mod timestamptz;
mod trace;

/// The programs of docs/guide, run as documentation tests.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../../docs/guide/1-events-and-aggregates.md")]
    struct EventsAndAggregates;
    #[doc = include_str!("../../docs/guide/2-decisions.md")]
    struct Decisions;
    #[doc = include_str!("../../docs/guide/3-time-and-snapshots.md")]
    struct TimeAndSnapshots;
    #[doc = include_str!("../../docs/guide/4-tests.md")]
    struct Tests;
    #[doc = include_str!("../../docs/guide/5-projections.md")]
    struct Projections;
    #[doc = include_str!("../../docs/guide/6-evolution.md")]
    struct Evolution;
    #[doc = include_str!("../../docs/guide/7-personal-data.md")]
    struct PersonalData;
    #[doc = include_str!("../../docs/guide/8-ends-of-streams.md")]
    struct EndsOfStreams;
    #[doc = include_str!("../../docs/guide/10-production.md")]
    struct Production;
}

pub use aggregate::{
    Aggregate, Aggregates, AsOf, CommandId, Decide, DecideError, Decided, Loaded, Snapshots,
    TaggedStates,
};
pub use annals_schemas::personal::{
    BlindIndex, KeyId, KeyRing, OpenError, Personal, RingKey, Subject, SubjectError, SubjectKey,
};
pub use annals_schemas::{
    AvroDuration, AvroDurationError, Broken, Compatibility, Decimal, DecimalError, DecodeError,
    EncodeError, EncodedEvent, EventDeclaration, EventSet, Fingerprint, FitReport, Incompatibility,
    Incompatible, Misfit, Schema, SchemaError, UnknownEvents, check_fit, date, events,
    local_timestamp_micros, local_timestamp_millis, local_timestamp_nanos, time_micros,
    time_millis, timestamp_micros, timestamp_millis, timestamp_nanos, verify, verify_released,
};
pub use append::{Append, AppendCondition, Appended, Coalescing};
pub use connections::url::{DatabaseUrlError, connect_options, refuses_session_options};
pub use context::Context;
pub use error::{AppendError, Conflict, Error, MigrationError, Refusal, TagConflict};
pub use event::{EventId, NewEvent, RecordedEvent};
pub use event_store::EventStore;
pub use follow::{Checkpoint, CheckpointFormatError, Follow, Followed};
pub use identity::{Adoption, Identity};
/// The jiff whose timestamps, dates and times appear in this crate's API.
pub use jiff;
pub use limits::{
    APPEND_BYTES_MAX, EVENT_BYTES_MAX, EVENTS_PER_APPEND_MAX, HEADER_NAME_BYTES_MAX,
    METADATA_BYTES_MAX, POSTGRES_MAJOR_MIN, STREAMS_PER_APPEND_MAX, TAGS_PER_APPEND_MAX,
};
pub use memory::MemoryStore;
pub use metadata::Metadata;
pub use migrate::Purpose;
pub use options::StoreOptions;
#[cfg(feature = "vault")]
pub use personal::VaultKeyProvider;
#[cfg(feature = "aws-kms")]
pub use personal::{AwsCredentials, AwsKmsKeyProvider};
pub use personal::{
    Erased, FileKeyProvider, KeyProvider, KeyProviderError, PersonalDataEvent, PersonalError,
    PersonalKeys, SubjectErased,
};
pub use projections::{
    Projection, ProjectionError, ProjectionFailure, ProjectionRunner, ProjectionStatus,
};
pub use read::causal_tree::CausalEvent;
pub use read::{Key, Read};
/// The sqlx whose pools, connections and errors appear in this crate's API.
pub use sqlx;
pub use statements::{SchemaName, SchemaNameError};
pub use store::Store;
pub use stream::{
    CATEGORY_BYTES_MAX, Category, ExpectedVersion, NameError, Position, STREAM_NAME_BYTES_MAX,
    StreamName, Version,
};
pub use stream_life::StreamLife;
pub use tag::{TAG_BYTES_MAX, Tag};
pub use trace::TraceContext;
