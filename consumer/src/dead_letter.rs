//! Dead letters: the policy of a projection for records that it cannot apply.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use sqlx::PgConnection;

use crate::envelope::Delivered;
use crate::envelope_error::EnvelopeError;
use crate::error::{ConsumeError, RunError};
use crate::fetched_record::FetchedRecord;
use crate::position::RecordLocation;
use crate::raw_record::RecordBytes;
use crate::registry::DecodeRecordError;

/// The policy of a projection for a record that it cannot apply.
///
/// [`Projection::unreadable_records`](crate::Projection::unreadable_records) and
/// [`Projection::rejected_events`](crate::Projection::rejected_events) set it. Except under
/// [`Stop`](Self::Stop) the projection passes the record: an event's version counts as applied, so
/// that the next event of its stream is no gap.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum FailurePolicy {
    /// Ends the run with an error that names the record.
    #[default]
    Stop,
    /// Writes the record into the table `annals_projection_dead_letters`, and continues behind it.
    ///
    /// A projection that asks the wrong schema registry cannot read any event: watch the number of
    /// dead letters.
    DeadLetter,
    /// Calls a handler, whose writes commit with the offset behind the record.
    Handle(DeadLetterHandler),
}

/// A record that a projection cannot apply.
#[derive(Debug)]
#[non_exhaustive]
pub enum DeadLetter {
    /// It is not an event of Annals: a tombstone, a test message, another producer's record.
    NotAnEvent(EnvelopeError),
    /// The event cannot be decoded.
    Undecodable(Box<Delivered>, DecodeRecordError),
    /// The projection's handler returned an error for the event.
    Rejected(Box<Delivered>, Box<dyn Error + Send + Sync>),
}

type HandlerFuture<'a> =
    Pin<Box<dyn Future<Output = Result<(), Box<dyn Error + Send + Sync>>> + Send + 'a>>;
type Handler =
    dyn for<'a> Fn(&'a mut PgConnection, &'a DeadLetter) -> HandlerFuture<'a> + Send + Sync;

/// Handles the records that a projection cannot apply.
///
/// ```
/// # use annals_consumer::{DeadLetterHandler, FailurePolicy};
/// let policy = FailurePolicy::Handle(DeadLetterHandler::new(|connection, letter| {
///     Box::pin(async move {
///         let note = "insert into unreadable (place, error) values ($1, $2)";
///         let (place, error) = (letter.location().to_string(), letter.error().to_string());
///         sqlx::query(note).bind(place).bind(error).execute(connection).await?;
///         Ok(())
///     })
/// }));
/// ```
#[derive(Clone)]
pub struct DeadLetterHandler(Arc<Handler>);

impl DeadLetterHandler {
    /// `handle` writes through the connection only, and neither commits nor rolls back. It is
    /// called again if the transaction did not commit. An error ends the run.
    #[must_use]
    pub fn new<F>(handle: F) -> Self
    where
        F: for<'a> Fn(&'a mut PgConnection, &'a DeadLetter) -> HandlerFuture<'a>
            + Send
            + Sync
            + 'static,
    {
        Self(Arc::new(handle))
    }

    pub(crate) async fn handle(
        &self,
        connection: &mut PgConnection,
        letter: &DeadLetter,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        (self.0)(connection, letter).await
    }
}

impl fmt::Debug for DeadLetterHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetterHandler").finish_non_exhaustive()
    }
}

impl FailurePolicy {
    pub(crate) fn stops(&self) -> bool {
        matches!(self, Self::Stop)
    }
}

impl DeadLetter {
    /// The topic, partition and offset of the record.
    #[must_use]
    pub fn location(&self) -> RecordLocation {
        match self {
            Self::NotAnEvent(error) => error.location.clone(),
            Self::Undecodable(event, _) | Self::Rejected(event, _) => event.location(),
        }
    }

    /// The event, if the record is one.
    #[must_use]
    pub fn event(&self) -> Option<&Delivered> {
        match self {
            Self::NotAnEvent(_) => None,
            Self::Undecodable(event, _) | Self::Rejected(event, _) => Some(event),
        }
    }

    /// The key, value and headers of the record; of an event only the headers that the application
    /// added.
    #[must_use]
    pub fn bytes(&self) -> RecordBytes {
        match self {
            Self::NotAnEvent(error) => (*error.record).clone(),
            Self::Undecodable(event, _) | Self::Rejected(event, _) => RecordBytes::of(event),
        }
    }

    /// Why the record cannot be applied.
    #[must_use]
    pub fn error(&self) -> &(dyn Error + 'static) {
        match self {
            Self::NotAnEvent(error) => error,
            Self::Undecodable(_, error) => error,
            Self::Rejected(_, error) => &**error,
        }
    }

    /// The error that ends the run instead.
    pub(crate) fn into_run_error(self) -> RunError {
        match self {
            Self::NotAnEvent(error) => ConsumeError::Envelope(error).into(),
            Self::Undecodable(_, error) => error.into(),
            Self::Rejected(event, error) => RunError::handler(&event, error),
        }
    }

    /// The record, to process it again.
    pub(crate) fn into_record(self) -> FetchedRecord {
        match self {
            Self::NotAnEvent(error) => Err(error),
            Self::Undecodable(event, _) | Self::Rejected(event, _) => Ok(*event),
        }
    }
}
