//! Projections: read models in the database of the store, built from the log.
//!
//! A [`Projection`] names the events that it follows, the tables that it fills, and the function
//! that applies a batch of events to them. A [runner](ProjectionRunner) reads the log and applies
//! batches, each in one transaction with the checkpoint after it: each event changes the read model
//! exactly once, also after crashes. Runners of one projection exclude each other by a lease; a
//! runner that lost it cannot commit.
//!
//! The consumer crate builds projections from topics, in a database that need not be the store's.
//! Its handler has the same form, a batch of events and the connection of the transaction, and
//! [`apply`](Projection::apply) can be called by it, or the other way round, if the read model
//! needs only the decoded events. There is no adapter between the two, because the facts beside an
//! event differ: a record of a topic has an offset and no position, and lacks the custom metadata;
//! and progress is one offset for each partition there, one checkpoint here. The consumer also
//! needs no access to the store.

mod apply;
mod error;
mod inline;
mod lease;
mod reader;
mod runner;
mod status;
mod versions;
mod wait;

pub use self::error::ProjectionError;
pub use self::runner::ProjectionRunner;
pub use self::status::{ProjectionFailure, ProjectionStatus};

use std::error::Error;
use std::future::Future;

use sqlx::PgConnection;

use crate::event::RecordedEvent;
use crate::follow::Follow;

/// A read model in PostgreSQL that is built from the log.
///
/// Each version of a projection has tables of its own, in the database schema `<name>_v<version>`.
/// Readers use the views in the schema `<name>`, which show the tables of one version.
/// **Change the version whenever the events, the tables or [`apply`](Self::apply) change**: the new
/// version is built from history beside the present one, and
/// [`switch_projection`](crate::Store::switch_projection) shows it to readers.
///
/// ```
/// # use std::error::Error;
/// # use annals_store::{Append, Category, ExpectedVersion, Follow, Projection, RecordedEvent};
/// # use annals_testkit::{AccountEvent, account, deposited, opened};
/// # use sqlx::PgConnection;
/// struct Balances;
///
/// impl Projection for Balances {
///     fn name(&self) -> &'static str {
///         "balances"
///     }
///
///     fn version(&self) -> u32 {
///         1
///     }
///
///     fn events(&self) -> Follow {
///         Follow::events_of::<AccountEvent>()
///     }
///
///     fn tables(&self) -> &'static str {
///         "create table balances (account text primary key, cents bigint not null)"
///     }
///
///     async fn apply(
///         &self,
///         events: &[RecordedEvent],
///         connection: &mut PgConnection,
///     ) -> Result<(), Box<dyn Error + Send + Sync>> {
///         for event in events {
///             if let AccountEvent::MoneyDeposited(deposited) = event.decode()? {
///                 sqlx::query(
///                     "insert into balances as b values ($1, $2)
///                      on conflict (account) do update set cents = b.cents + excluded.cents",
///                 )
///                 .bind(event.stream.as_str())
///                 .bind(deposited.cents)
///                 .execute(&mut *connection)
///                 .await?;
///             }
///         }
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn Error>> {
/// # let bed = annals_testkit::Testbed::new("doc_projection").await;
/// # let (store, shutdown) = (bed.store().clone(), std::future::pending());
/// let runner = tokio::spawn(store.project(Balances).run(shutdown));
///
/// let deposit = Append::to(&account(42), ExpectedVersion::Any, [opened("Ann"), deposited(7)]);
/// let appended = store.append(&deposit).await?;
/// store.wait_for("balances", appended.positions(), std::time::Duration::from_secs(10)).await?;
/// let query = "select cents from balances.balances where account = 'account-42'";
/// let cents: i64 = sqlx::query_scalar(query).fetch_one(store.pool()).await?;
/// assert_eq!(cents, 7);
/// # runner.abort();
/// # Ok(())
/// # }
/// ```
pub trait Projection: Send + Sync + 'static {
    /// Its name, and that of the database schema of its views: small letters, digits and `_`.
    fn name(&self) -> &'static str;

    /// The version of its events, tables and code, from 1.
    fn version(&self) -> u32;

    /// The events that it gets, from the first recorded one. The events of a version never change.
    fn events(&self) -> Follow;

    /// The statements that create its tables, run once in the schema of the version. Name tables
    /// without a schema, here and in [`apply`](Self::apply).
    fn tables(&self) -> &'static str;

    /// Applies events, each stream in order, in a transaction that the caller commits together with
    /// the checkpoint.
    ///
    /// Write through this connection only, and neither commit nor roll back. The transaction of
    /// some events can be rolled back and they come again, alone or with others; so another side
    /// effect can be repeated. After an error the events are applied one by one, and the projection
    /// stops at the one that fails. Deadlocks and broken connections are no failure of an event, if
    /// the error is a [`sqlx::Error`] or has one among its causes.
    ///
    /// # Errors
    /// Any error.
    fn apply(
        &self,
        events: &[RecordedEvent],
        connection: &mut PgConnection,
    ) -> impl Future<Output = Result<(), Box<dyn Error + Send + Sync>>> + Send;
}
