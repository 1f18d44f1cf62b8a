//! Listing of categories and their streams.

use std::collections::VecDeque;

use futures_util::stream::{Stream, try_unfold};

use crate::error::Error;
use crate::store::Store;
use crate::stream::{Category, NameError, StreamName, Version};

const PAGE_STREAMS: i64 = 1_000;

impl Store {
    /// The streams of a category, ordered by name, each with the version of its last event.
    ///
    /// Memory is bounded by a page of 1,000 streams.
    ///
    /// # Errors
    /// Items are [`Error`] when a page cannot be read; the stream ends there.
    pub fn streams(
        &self,
        category: &Category,
    ) -> impl Stream<Item = Result<(StreamName, Version), Error>> + Send + use<> {
        let begin = StreamListing {
            store: self.clone(),
            category: category.clone(),
            page: VecDeque::new(),
            last: String::new(),
            is_at_end: false,
        };
        try_unfold(begin, async |mut listing: StreamListing| {
            Ok(listing.next().await?.map(|stream| (stream, listing)))
        })
    }

    /// The categories that have a stream, ordered by name.
    ///
    /// # Errors
    /// [`Error`] if they cannot be read.
    pub async fn categories(&self) -> Result<Vec<Category>, Error> {
        let names = sqlx::query_scalar(self.statements().categories.clone()).fetch_all(self.pool());
        let names: Vec<String> =
            self.within_deadline(names).await.map_err(Error::database("list the categories"))?;
        names
            .into_iter()
            .map(|name| Category::new(name).map_err(|error| unreadable(&error)))
            .collect()
    }
}

struct StreamListing {
    store: Store,
    category: Category,
    page: VecDeque<(String, Version)>,
    last: String,
    is_at_end: bool,
}

impl StreamListing {
    async fn next(&mut self) -> Result<Option<(StreamName, Version)>, Error> {
        if self.page.is_empty() && !self.is_at_end {
            let rows = sqlx::query_as(self.store.statements().streams.clone())
                .bind(self.category.as_str())
                .bind(&self.last)
                .bind(PAGE_STREAMS)
                .fetch_all(self.store.pool());
            let rows: Vec<(String, Version)> =
                self.store.within_deadline(rows).await.map_err(Error::database("list streams"))?;
            self.is_at_end = i64::try_from(rows.len()) != Ok(PAGE_STREAMS);
            self.page = rows.into();
        }
        let Some((name, version)) = self.page.pop_front() else { return Ok(None) };
        self.last.clone_from(&name);
        Ok(Some((StreamName::new(name).map_err(|error| unreadable(&error))?, version)))
    }
}

pub(crate) fn unreadable(error: &NameError) -> Error {
    Error::Unreadable {
        what: format!("{} {:?}", error.what, error.text),
        reason: error.reason.to_owned(),
    }
}
