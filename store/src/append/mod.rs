//! Appending: events and their outbox rows, in one transaction, in one round trip.

mod batch;
mod call;
mod coalescer;
pub(crate) mod coalescing;
pub(crate) mod condition;
pub(crate) mod queue;
mod queued;
mod refusal_rows;
mod register_schemas;
mod request;
mod retry;
mod selection;
mod validate;

use self::call::Traced;
pub use self::coalescing::Coalescing;
pub use self::condition::AppendCondition;
pub(crate) use self::register_schemas::refused_elsewhere;
pub use self::request::{Append, Appended};

use std::time::Instant;

use sqlx::PgConnection;

use crate::error::{AppendError, Refusal};
use crate::store::Store;
use crate::telemetry::{self, AppendOutcome};

impl Store {
    /// Appends in a transaction of its own: one round trip, durable when it returns.
    ///
    /// All events are recorded, with their outbox rows, or none. An append can be repeated safely
    /// with the same [`Append`] in each expected-version mode: the events are recorded once, and
    /// each call returns their original versions and positions. After the future is dropped, the
    /// outcome is unknown, and never partial.
    ///
    /// Durable means on the disks of the server and its synchronous standbys. If the wait for a
    /// standby is cancelled, by `statement_timeout` or an administrator, PostgreSQL confirms a
    /// commit that the standby may not have, and logs a warning.
    ///
    /// An append to one stream that arrives while others of this store are in progress can go to
    /// the server in one call with others ([`Coalescing`]); its result is that of an append of its
    /// own. After the future is dropped, such an append is completed if its call has started.
    ///
    /// # Errors
    /// [`AppendError`]: refused, failed, or with an unknown outcome.
    ///
    /// ```
    /// # use annals_store::{Append, ExpectedVersion, StreamName, Version};
    /// # use annals_testkit::{deposited, opened};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let bed = annals_testkit::Testbed::new("doc_append").await;
    /// # let (store, open, deposit) = (bed.store(), opened("Ann"), deposited(1));
    /// let account = StreamName::new("account-42")?;
    /// let append = Append::to(&account, ExpectedVersion::NoStream, [open]);
    /// let appended = store.append(&append).await?;
    /// assert_eq!(appended.events[0].0, Version::FIRST);
    /// // A retry records nothing and returns the same versions.
    /// assert_eq!(store.append(&append).await?.events, appended.events);
    ///
    /// // An append that was decided on an older state gets a conflict with the current version.
    /// let late = Append::to(&account, ExpectedVersion::NoStream, [deposit]);
    /// let refused = store.append(&late).await.unwrap_err();
    /// let conflict = refused.conflict_of(&account).ok_or("refused for another reason")?;
    /// assert_eq!(conflict.actual, Some(Version::FIRST));
    /// # Ok(())
    /// # }
    /// ```
    #[tracing::instrument(
        level = "debug",
        skip_all,
        fields(
            streams = append.streams.len(),
            events = append.events.len(),
            outcome,
            queued_us,
            call_appends,
        )
    )]
    pub async fn append(&self, append: &Append) -> Result<Appended, AppendError> {
        let started_at = Instant::now();
        let result = self.append_or_queue(append).await;
        record_outcome(started_at, &result);
        if result.is_ok() {
            self.notify_followers();
        }
        result
    }

    /// Appends inside the caller's transaction: readers and the relay see nothing until the caller
    /// commits, and a rollback undoes all of it.
    ///
    /// A refusal leaves the transaction usable. The stream rows stay locked until the transaction
    /// ends: two transactions that append to the same streams, one after the other and in another
    /// order, can deadlock, which PostgreSQL ends with an error for one of them.
    ///
    /// Above `READ COMMITTED`, the first append with a schema that is new to the database loses a
    /// race once: the schema is registered on another connection, after the transaction's snapshot.
    ///
    /// # Errors
    /// [`AppendError::Refused`], [`AppendError::LostRace`] and [`AppendError::Failed`]; after the
    /// last two the transaction is aborted. Convert an error of the commit with
    /// `AppendError::from`; after an unknown outcome, the caller repeats the transaction with the
    /// same events.
    ///
    /// ```
    /// # use annals_store::{Append, AppendError, ExpectedVersion, NewEvent, Store, StreamName};
    /// // The event and a row of the application, together or not at all.
    /// async fn order(
    ///     store: &Store,
    ///     stream: &StreamName,
    ///     event: NewEvent,
    /// ) -> Result<(), AppendError> {
    ///     let append = Append::to(stream, ExpectedVersion::NoStream, [event]);
    ///     let mut transaction = store.pool().begin().await?;
    ///     store.append_in(&mut transaction, &append).await?;
    ///     sqlx::query("insert into orders (stream) values ($1)")
    ///         .bind(stream.as_str())
    ///         .execute(&mut *transaction)
    ///         .await?;
    ///     transaction.commit().await?;
    ///     store.notify_followers();
    ///     Ok(())
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let bed = annals_testkit::Testbed::new("doc_append_in").await;
    /// # sqlx::raw_sql("create table orders (stream text)").execute(bed.store().pool()).await?;
    /// # let stream = StreamName::new("account-42")?;
    /// # order(bed.store(), &stream, annals_testkit::opened("Ann")).await?;
    /// # assert!(bed.store().stream_version(&stream).await?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    #[tracing::instrument(
        level = "debug",
        skip_all,
        fields(streams = append.streams.len(), events = append.events.len(), outcome)
    )]
    pub async fn append_in(
        &self,
        transaction: &mut PgConnection,
        append: &Append,
    ) -> Result<Appended, AppendError> {
        let started_at = Instant::now();
        let result = self.append_in_transaction(transaction, append).await;
        record_outcome(started_at, &result);
        result
    }

    async fn append_in_transaction(
        &self,
        transaction: &mut PgConnection,
        append: &Append,
    ) -> Result<Appended, AppendError> {
        append.validate(self.options().event_bytes_max)?;
        self.register_schemas_beside(append).await?;
        let statements = self.statements();
        let statement = match append.has_tags() {
            true => &statements.append_tagged_in,
            false => &statements.append_in,
        };
        let trace = self.current_trace();
        let reply = self
            .execute_append(
                transaction,
                statement.clone(),
                Traced { append, trace: trace.as_ref() },
            )
            .await
            .map_err(|error| {
                self.expire_read_only_sessions(AppendError::inside_a_transaction(error))
            })?;
        let reply = reply.map_err(AppendError::Failed)?;
        let appended = match self.result_of(transaction, append, reply).await {
            // The schema is registered by now: this transaction has an older snapshot.
            Err(AppendError::Refused(refusals)) if refusals.iter().any(is_unknown_schema) => {
                return Err(AppendError::LostRace(None));
            }
            result => result?,
        };
        let left = self.outbox_positions_left(appended.last_position());
        self.extend_outbox_beside(transaction, left).await;
        Ok(appended)
    }
}

fn is_unknown_schema(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::UnknownSchema { .. })
}

fn record_outcome(started_at: Instant, result: &Result<Appended, AppendError>) {
    let outcome = match result {
        Ok(appended) if appended.repeated => AppendOutcome::Repeated,
        Ok(appended) => AppendOutcome::Appended { events: appended.events.len() },
        Err(AppendError::Refused(_)) => AppendOutcome::Refused,
        Err(AppendError::LostRace(_)) => AppendOutcome::LostRace,
        Err(AppendError::Unknown(_)) => AppendOutcome::Unknown,
        Err(AppendError::Failed(_)) => AppendOutcome::Failed,
        Err(AppendError::Inconsistent { .. }) => AppendOutcome::Inconsistent,
        Err(AppendError::QueueFull { .. }) => AppendOutcome::QueueFull,
        Err(AppendError::Closed) => AppendOutcome::Closed,
        Err(AppendError::Interrupted) => AppendOutcome::Interrupted,
    };
    telemetry::appended(started_at, outcome);
}
