//! Tests of projections without Kafka and registry: given events, then the read model.
//!
//! [`given`] makes the records of events, as a relay writes them. [`GivenEvents::apply`] runs a
//! projection's handler on them, with the version filter, Avro and batches of a real run. The read
//! model is what the handler writes to: a value in memory, or a PostgreSQL transaction that the
//! test rolls back.
//!
//! ```
//! use annals_consumer::testing::given;
//! use annals_consumer::{DeliveredEvent, Projection};
//! # use annals_schemas::events;
//! # use serde::{Deserialize, Serialize};
//! #
//! # #[derive(Debug, Serialize, Deserialize)]
//! # struct OrderPaid { amount: i64 }
//! # events! {
//! #     /// Orders.
//! #     #[derive(Debug)]
//! #     enum OrderEvent in "order" { OrderPaid = "../tests/avro/OrderPaid.avsc" }
//! # }
//! # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
//! # runtime.block_on(async {
//! let projection = Projection::new("turnover", &["shop-order"]).unwrap();
//! let mut turnover = 0;
//! let add = async |turnover: &mut i64, events: &[DeliveredEvent<OrderEvent>]| {
//!     for event in events {
//!         let OrderEvent::OrderPaid(paid) = &event.data;
//!         *turnover += paid.amount;
//!     }
//!     Ok::<_, std::io::Error>(())
//! };
//! let events = given().event("order-1", OrderPaid { amount: 5 }).repeated();
//! let totals = events.apply(&projection, &mut turnover, add).await.unwrap();
//! assert_eq!((turnover, totals.duplicates), (5, 1));
//! # });
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::sync::Arc;

use annals_schemas::{EventSet, Schema, SchemaId};
use jiff::Timestamp;
use uuid::Uuid;

use crate::batch::{DeliveredEvent, EventBatch};
use crate::envelope::Delivered;
use crate::envelope_error::{EnvelopeError, EnvelopeProblem};
use crate::error::RunError;
use crate::fetched_record::FetchedRecord;
use crate::position::{Offset, Position, RecordLocation, Version};
use crate::projection::Projection;
use crate::raw_record::RecordBytes;
use crate::registry::SchemaRegistry;
use crate::run_progress::RunTotals;
use crate::version_filter::VersionFilter;

/// Records to apply, in one partition. Made by [`given`].
#[derive(Debug)]
pub struct GivenEvents<E> {
    records: Vec<FetchedRecord>,
    schemas: Vec<Schema>,
    versions: HashMap<String, Version>,
    batch_events: usize,
    events: PhantomData<fn() -> E>,
}

/// No records: add some.
#[must_use]
pub fn given<E: EventSet>() -> GivenEvents<E> {
    GivenEvents {
        records: Vec::new(),
        schemas: Vec::new(),
        versions: HashMap::new(),
        batch_events: 1,
        events: PhantomData,
    }
}

impl<E: EventSet> GivenEvents<E> {
    /// Adds an event, with the next version of its stream.
    ///
    /// # Panics
    /// If the event does not fit its schema.
    #[must_use]
    pub fn event(self, stream: &str, event: impl Into<E>) -> Self {
        self.earlier_event::<E>(stream, event)
    }

    /// Adds an event of an earlier set, which `E` upcasts, with the next version of its stream.
    ///
    /// # Panics
    /// If the event does not fit its schema.
    #[must_use]
    pub fn earlier_event<P: EventSet>(mut self, stream: &str, event: impl Into<P>) -> Self {
        let encoded = event.into().encode();
        let encoded = encoded.unwrap_or_else(|error| panic!("encode a given event: {error}"));
        let previous = self.versions.get(stream).copied();
        let version = previous.map_or(Version::ZERO, Version::next);
        self.versions.insert(stream.to_owned(), version);
        let RecordLocation { topic, partition, offset } = self.next_location();
        let delivered = Delivered {
            stream: stream.to_owned(),
            version,
            previous,
            position: Position::new(offset.get()).unwrap_or(Position::ZERO),
            event_id: Uuid::now_v7(),
            event_type: encoded.event_type.to_owned(),
            full_type: encoded.schema.full_name().to_owned(),
            data_schema: "http://registry.test/schemas/ids/0".to_owned(),
            recorded_at: Timestamp::now(),
            correlation_id: None,
            causation_id: None,
            source: "annals://test".to_owned(),
            traceparent: None,
            tracestate: None,
            headers: Vec::new(),
            schema_id: self.id_of(encoded.schema),
            payload: encoded.payload,
            topic,
            partition,
            offset,
        };
        self.records.push(Ok(delivered));
        self
    }

    /// Changes the record of the last event: its headers, its time, its version, its payload.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Delivered)) -> Self {
        if let Some(Ok(delivered)) = self.records.last_mut() {
            change(delivered);
            self.versions.insert(delivered.stream.clone(), delivered.version);
        }
        self
    }

    /// Adds the last event again, as a producer does that repeats.
    #[must_use]
    pub fn repeated(mut self) -> Self {
        let offset = self.next_location().offset;
        if let Some(Ok(last)) = self.records.last() {
            let again = Delivered { offset, ..last.clone() };
            self.records.push(Ok(again));
        }
        self
    }

    /// Adds a record that is no event: a tombstone.
    #[must_use]
    pub fn tombstone(mut self, key: &str) -> Self {
        let location = self.next_location();
        let record = RecordBytes { key: Some(key.as_bytes().to_vec()), ..RecordBytes::default() };
        let (problem, record) = (EnvelopeProblem::NoValue, Box::new(record));
        self.records.push(Err(EnvelopeError { location, problem, record }));
        self
    }

    /// Calls the handler with this many events at a time, instead of one.
    #[must_use]
    pub fn batches_of(mut self, events: NonZeroUsize) -> Self {
        self.batch_events = events.get();
        self
    }

    /// Applies the records to a read model, with the policies of a projection. Dead letters are
    /// counted only.
    ///
    /// # Errors
    /// [`RunError`], as of a run. An error of the handler names the first event of its batch;
    /// events of the batches before stay applied.
    ///
    /// # Panics
    /// If the HTTP client of the schema registry, which sends nothing, cannot be made.
    pub async fn apply<M: ?Sized, Failure>(
        &self,
        projection: &Projection,
        model: &mut M,
        mut handler: impl AsyncFnMut(&mut M, &[DeliveredEvent<E>]) -> Result<(), Failure>,
    ) -> Result<RunTotals, RunError>
    where
        Failure: Into<Box<dyn Error + Send + Sync>>,
    {
        let schemas = SchemaRegistry::of_schemas(&self.schemas);
        let mut filter = VersionFilter::new(projection.first_version);
        let mut totals = RunTotals::default();
        for records in self.records.chunks(self.batch_events) {
            let batch: EventBatch<E> = EventBatch::filter_and_decode(
                records.to_vec(),
                &mut filter,
                &schemas,
                &projection.policies,
            )
            .await;
            if let Some(first) = batch.events.first() {
                let handled = handler(model, &batch.events).await;
                handled.map_err(|error| RunError::handler(&first.delivered, error.into()))?;
            }
            totals.batches += 1;
            totals.events += batch.events.len() as u64;
            totals.duplicates += batch.duplicates as u64;
            totals.skipped += batch.skipped() as u64;
            totals.dead_letters += batch.dead_letters().count() as u64;
            if let Some(error) = batch.error {
                return Err(error);
            }
        }
        Ok(totals)
    }

    fn next_location(&self) -> RecordLocation {
        let offset = i64::try_from(self.records.len()).ok().and_then(Offset::new);
        let topic = Arc::from(format!("test-{}", E::CATEGORY));
        RecordLocation { topic, partition: 0, offset: offset.unwrap_or(Offset::ZERO) }
    }

    fn id_of(&mut self, schema: Schema) -> SchemaId {
        let known = self.schemas.iter().position(|known| known.is_equivalent_to(&schema));
        let place = known.unwrap_or_else(|| {
            self.schemas.push(schema);
            self.schemas.len() - 1
        });
        SchemaId(u32::try_from(place).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use annals_schemas::events;
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::dead_letter::FailurePolicy;

    #[derive(Debug, Serialize, Deserialize)]
    struct OrderPaid {
        amount: i64,
    }

    events! {
        /// Orders.
        #[derive(Debug)]
        enum OrderEvent in "order" {
            OrderPaid = "../tests/avro/OrderPaid.avsc",
        }
    }

    async fn sum(sum: &mut i64, events: &[DeliveredEvent<OrderEvent>]) -> Result<(), String> {
        for event in events {
            let OrderEvent::OrderPaid(paid) = &event.data;
            if paid.amount < 0 {
                return Err("a negative amount".to_owned());
            }
            *sum += paid.amount;
        }
        Ok(())
    }

    fn paid(amount: i64) -> OrderPaid {
        OrderPaid { amount }
    }

    fn projection() -> Projection {
        Projection::new("sums", &["test-order"]).unwrap()
    }

    #[tokio::test]
    async fn given_events_are_applied_as_in_a_run() {
        let given = given().event("order-1", paid(1)).event("order-2", paid(2)).repeated();
        let given = given.tombstone("order-1").event("order-1", paid(3));
        let given = given.batches_of(NonZeroUsize::new(2).unwrap());
        let mut model = 0;
        let error = given.apply(&projection(), &mut model, sum).await.unwrap_err();
        assert!(matches!(error, RunError::Consume(_)), "{error:?}");
        assert_eq!(model, 3, "what came before");

        let projection = projection().unreadable_records(FailurePolicy::DeadLetter);
        let mut model = 0;
        let totals = given.apply(&projection, &mut model, sum).await.unwrap();
        let expected =
            RunTotals { events: 3, duplicates: 1, dead_letters: 1, batches: 3, skipped: 0 };
        assert_eq!((totals, model), (expected, 6));
    }

    #[tokio::test]
    async fn gaps_and_errors_of_the_handler_are_those_of_a_run() {
        let given = given::<OrderEvent>().event("order-1", paid(1)).event("order-1", paid(-1));
        let error = given.apply(&projection(), &mut 0, sum).await.unwrap_err();
        let RunError::Handler { version, .. } = &error else { panic!("{error:?}") };
        assert_eq!(version.get(), 1);

        let later = |delivered: &mut Delivered| {
            delivered.version = Version::new(7).unwrap();
            delivered.previous = delivered.version.previous();
        };
        let error = given.with(later).apply(&projection(), &mut 0, sum).await.unwrap_err();
        assert!(matches!(error, RunError::Gap { .. }), "{error:?}");
    }
}
