//! Fresh tables for one measurement, always in the same state.

use annals_store::{
    Append, ExpectedVersion, NewEvent, STREAMS_PER_APPEND_MAX, Store, StoreOptions,
};
use annals_testkit::Testbed;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::Load;
use crate::event::{self, new_event};
use crate::settle::settle;

const SEEDERS: usize = 4;

/// A database in which every stream exists, with one event.
#[derive(Debug)]
pub(crate) struct Bed {
    testbed: Testbed,
    store: Store,
    url: String,
}

impl Bed {
    /// Creates it. Existing streams are the steady state: otherwise the first seconds would measure
    /// the creation of streams.
    pub(crate) async fn make(load: Load) -> anyhow::Result<Self> {
        let testbed = Testbed::new("bench_append").await;
        let url = testbed.database_url();
        let store = StoreOptions::default().connections_max(load.clients).connect(&url).await?;
        seed(testbed.store(), load.streams).await?;
        settle(&url).await?;
        Ok(Self { testbed, store, url })
    }

    /// The store, with a connection for each client.
    pub(crate) const fn store(&self) -> &Store {
        &self.store
    }

    /// Its database.
    pub(crate) fn database_url(&self) -> &str {
        &self.url
    }

    /// The number of recorded events.
    pub(crate) async fn events(&self) -> anyhow::Result<i64> {
        let count = sqlx::query_scalar(include_str!("../../sql/count_events.sql"));
        Ok(count.fetch_one(self.testbed.store().pool()).await?)
    }
}

async fn seed(store: &Store, streams: usize) -> anyhow::Result<()> {
    let numbers: Vec<usize> = (0..streams).collect();
    let appends =
        numbers.chunks(STREAMS_PER_APPEND_MAX).map(seeding).collect::<Result<Vec<_>, _>>()?;
    let each = |append: Append| async move { store.append(&append).await.map(drop) };
    stream::iter(appends).map(each).buffer_unordered(SEEDERS).try_collect::<()>().await?;
    Ok(())
}

fn seeding(numbers: &[usize]) -> anyhow::Result<Append> {
    numbers.iter().try_fold(Append::default(), |append, &number| {
        let event: NewEvent = new_event(i64::try_from(number)?)?;
        Ok(append.and_to(&event::stream(number)?, ExpectedVersion::NoStream, [event]))
    })
}
