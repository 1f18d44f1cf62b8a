//! Appending: events and their outbox rows, in one transaction, in one round trip.

use std::time::Instant;

use annals_schemas::Schema;
use jiff::Timestamp;
use sqlx::PgConnection;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{Executor, Row, SqlStr};

use crate::error::{AppendError, Refusal};
use crate::event::NewEvent;
use crate::pgtime::PgTimestamp;
use crate::refusal;
use crate::store::Store;
use crate::stream::{ExpectedVersion, Position, StreamName, Version};
use crate::telemetry;
use crate::trace::traced;

/// What is to be appended: events to one or several streams, all or nothing.
///
/// To be repeated with the same event ids after an outcome that is not known. What counts as the same append then is what was
/// decided: streams, event types, schemas and payloads. Metadata and headers may differ, as they do when a request is sent
/// again: those of the first try stay.
///
/// ```
/// # use annals_store::{Append, ExpectedVersion, StreamName};
/// # fn example(events: Vec<annals_store::NewEvent>) -> Result<(), annals_store::NameError> {
/// let order = StreamName::new("order-42")?;
/// let customer = StreamName::new("customer-7")?;
/// let append = Append::to(&order, ExpectedVersion::NoStream, events)
///     .and_check(&customer, ExpectedVersion::StreamExists);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Append {
    pub(crate) streams: Vec<(StreamName, ExpectedVersion)>,
    pub(crate) events: Vec<(usize, NewEvent)>,
    conflict_events_max: i32,
}

impl Append {
    /// Events for one stream, if its version is as expected.
    #[must_use]
    pub fn to(
        stream: &StreamName,
        expected: ExpectedVersion,
        events: impl IntoIterator<Item = NewEvent>,
    ) -> Self {
        Self::default().and_to(stream, expected, events)
    }

    /// Adds events for another stream.
    #[must_use]
    pub fn and_to(
        mut self,
        stream: &StreamName,
        expected: ExpectedVersion,
        events: impl IntoIterator<Item = NewEvent>,
    ) -> Self {
        let place = self.streams.len();
        self.streams.push((stream.clone(), expected));
        self.events.extend(events.into_iter().map(|event| (place, event)));
        self
    }

    /// Adds a stream that must be as expected, too, but is not written to.
    #[must_use]
    pub fn and_check(self, stream: &StreamName, expected: ExpectedVersion) -> Self {
        self.and_to(stream, expected, [])
    }

    /// Lets a conflict carry up to `events_max` of the events since the expected version, so that a
    /// decision can be made again without reading. None unless asked for.
    #[must_use]
    pub fn with_conflict_events(mut self, events_max: u16) -> Self {
        self.conflict_events_max = i32::from(events_max);
        self
    }

    /// The events, in the order in which they were added.
    pub fn events(&self) -> impl ExactSizeIterator<Item = &NewEvent> {
        self.events.iter().map(|(_, event)| event)
    }

    /// The schema of each event, with the category of its stream.
    pub(crate) fn schemas(&self) -> impl Iterator<Item = (&str, Schema)> {
        self.events.iter().filter_map(|(place, event)| {
            self.streams.get(*place).map(|(stream, _)| (stream.category(), event.schema))
        })
    }
}

/// What an append recorded, or a retry found recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Version and position of each event, in the order of the append.
    pub events: Vec<(Version, Position)>,
    /// When, by the database's clock, in microseconds; an append of no events has no time.
    pub recorded_at: Option<Timestamp>,
    /// Whether the events had been recorded before, by an earlier try.
    pub repeated: bool,
}

impl Store {
    /// Appends in a transaction of its own: one round trip, durable when it returns.
    ///
    /// All events are recorded, with their outbox rows, or none. Safe to repeat with the same
    /// [`Append`] in every expected-version mode: the events are recorded once and each call answers
    /// with their original versions and positions. Dropping the future leaves the outcome unknown, never half.
    ///
    /// Durable means on the server's disk, and on that of its synchronous standbys. But where the wait for these is
    /// cancelled, by `statement_timeout` or a person, PostgreSQL confirms what they may not have, with a warning in its log.
    ///
    /// # Errors
    /// [`AppendError`], by what the caller can do: refused, unknown, failed.
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
    /// // A retry records nothing and gets the same answer.
    /// assert_eq!(store.append(&append).await?.events, appended.events);
    ///
    /// // Whoever decided on an older state learns what is there now.
    /// let late = Append::to(&account, ExpectedVersion::NoStream, [deposit]);
    /// let refused = store.append(&late).await.unwrap_err();
    /// let conflict = refused.conflict_of(&account).ok_or("something else is wrong")?;
    /// assert_eq!(conflict.actual, Some(Version::FIRST));
    /// # Ok(())
    /// # }
    /// ```
    #[tracing::instrument(
        level = "debug",
        skip_all,
        fields(streams = append.streams.len(), events = append.events.len(), outcome)
    )]
    pub async fn append(&self, append: &Append) -> Result<Appended, AppendError> {
        let begun = Instant::now();
        let answer = self.append_settled(append).await;
        telemetry::appended(begun, &answer);
        if answer.is_ok() {
            self.wake_followers();
        }
        answer
    }

    /// Appends inside the caller's transaction: nothing is visible to readers or to the relay until
    /// the caller commits, and rolling back leaves no trace.
    ///
    /// A refusal leaves the transaction usable. The stream rows stay locked until the transaction
    /// ends: two transactions that append to the same streams, one after the other and in another
    /// order, can deadlock, which PostgreSQL ends with an error for one of them.
    ///
    /// Above `READ COMMITTED` the first append of an event type under a schema that is new to the database loses a race,
    /// once: the schema is registered beside the transaction, later than what the transaction sees.
    ///
    /// # Errors
    /// [`AppendError::Refused`], [`AppendError::LostRace`] and [`AppendError::Failed`]; after the last two the
    /// transaction is aborted. What an error of the commit means, `AppendError::from` says; an unknown outcome is the
    /// caller's to settle, by repeating with the same events.
    ///
    /// ```
    /// # use annals_store::{Append, AppendError, ExpectedVersion, NewEvent, Store, StreamName};
    /// // The event and a row of the application's own, together or not at all.
    /// async fn order(store: &Store, stream: &StreamName, event: NewEvent) -> Result<(), AppendError> {
    ///     let append = Append::to(stream, ExpectedVersion::NoStream, [event]);
    ///     let mut transaction = store.pool().begin().await?;
    ///     store.append_in(&mut transaction, &append).await?;
    ///     sqlx::query("insert into orders (stream) values ($1)")
    ///         .bind(stream.as_str())
    ///         .execute(&mut *transaction)
    ///         .await?;
    ///     transaction.commit().await?;
    ///     store.wake_followers();
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
        let begun = Instant::now();
        let answer = self.append_inside(transaction, append).await;
        telemetry::appended(begun, &answer);
        answer
    }

    async fn append_inside(
        &self,
        transaction: &mut PgConnection,
        append: &Append,
    ) -> Result<Appended, AppendError> {
        append.check(self.event_bytes_max())?;
        self.register_schemas_beside(append).await?;
        let statement = &self.statements().append_in;
        let row = self
            .call(transaction, statement.clone(), append)
            .await
            .map_err(|error| self.noted(AppendError::inside_a_transaction(error)))?;
        let answer = Answer::read(&row).map_err(AppendError::Failed)?;
        let appended = match self.answered(transaction, append, answer).await {
            // It is registered by now: a transaction that does not see it began before that.
            Err(AppendError::Refused(refusals)) if refusals.iter().any(is_unknown_schema) => {
                return Err(AppendError::LostRace(None));
            }
            answered => answered?,
        };
        self.extend_outbox_beside(transaction, self.outbox_left(&appended)).await;
        Ok(appended)
    }

    pub(crate) async fn call(
        &self,
        connection: &mut PgConnection,
        statement: SqlStr,
        append: &Append,
    ) -> Result<PgRow, sqlx::Error> {
        let events = || append.events();
        let trace = self.trace_now();
        let metadata = events().map(|event| Json(traced(&event.metadata, trace.as_ref())));
        let place = |(place, _): &(usize, NewEvent)| i32::try_from(place + 1).unwrap_or(i32::MAX);
        let query = sqlx::query(statement)
            .bind(append.streams.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>())
            .bind(
                append.streams.iter().map(|(_, expected)| expected.to_store()).collect::<Vec<_>>(),
            )
            .bind(append.events.iter().map(place).collect::<Vec<_>>())
            .bind(events().map(|event| event.id.get()).collect::<Vec<_>>())
            .bind(events().map(|event| event.event_type).collect::<Vec<_>>())
            .bind(events().map(|event| event.schema.fingerprint().get()).collect::<Vec<_>>())
            .bind(events().map(|event| event.payload.as_slice()).collect::<Vec<_>>())
            .bind(events().map(|event| Json(&event.data)).collect::<Vec<_>>())
            .bind(metadata.collect::<Vec<_>>())
            .bind(events().map(|event| Json(&event.headers)).collect::<Vec<_>>())
            .bind(append.conflict_events_max);
        connection.fetch_one(query).await
    }

    pub(crate) async fn answered(
        &self,
        connection: &mut PgConnection,
        append: &Append,
        answer: Answer,
    ) -> Result<Appended, AppendError> {
        if let Some(Json(refusals)) = answer.refusals {
            return Err(AppendError::Refused(
                refusal::from_store(self, connection, refusals).await?,
            ));
        }
        let events = answer.versions.into_iter().zip(answer.positions);
        let events =
            events.map(|(v, p)| (Version::from_store(v), Position::from_store(p))).collect();
        let recorded_at = answer.recorded_at.filter(|_| !append.events.is_empty());
        Ok(Appended { events, recorded_at, repeated: answer.repeated })
    }
}

/// What the append function returned.
pub(crate) struct Answer {
    repeated: bool,
    versions: Vec<i64>,
    positions: Vec<i64>,
    recorded_at: Option<Timestamp>,
    refusals: Option<Json<Vec<refusal::Row>>>,
}

impl Answer {
    pub(crate) fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            repeated: row.try_get::<&str, _>("outcome")? == "repeated",
            versions: row.try_get::<Option<_>, _>("versions")?.unwrap_or_default(),
            positions: row.try_get::<Option<_>, _>("positions")?.unwrap_or_default(),
            recorded_at: row.try_get::<Option<PgTimestamp>, _>("recorded_at")?.map(|time| time.0),
            refusals: row.try_get("refusals")?,
        })
    }
}

fn is_unknown_schema(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::UnknownSchema { .. })
}
