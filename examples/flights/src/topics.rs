//! The proof by a second reading: every record of both topics from its beginning to its end, beside
//! the store's events.

use std::collections::HashMap;
use std::pin::pin;

use annals_consumer::{Consumer, Delivered, FilterDecision, FirstVersion, VersionFilter};
use annals_store::{Category, Read, Store};
use anyhow::{Context, Result, bail};
use futures_util::TryStreamExt;

use crate::figures::grouped;
use crate::run::Run;
use crate::seen::settings;

/// The last version of each stream of a category, and how many events there are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) events: u64,
    pub(crate) last: HashMap<String, i64>,
}

/// Reads what the store has of a category.
pub(crate) async fn of_store(store: &Store, category: &str) -> Result<Contents> {
    let category = Category::new(category)?;
    let mut contents = Contents::default();
    let mut events = pin!(store.read(Read::category(&category)));
    while let Some(event) = events.try_next().await? {
        contents.add(event.stream.as_str(), event.version.get());
    }
    Ok(contents)
}

/// Reads all committed records of a category's topic. Fails at the first duplicate, and at the
/// first event that comes before the one it follows.
pub(crate) async fn of_topic(run: &Run, category: &str) -> Result<Contents> {
    let topic = run.topic(category);
    let reading = || format!("read topic {topic} to its end");
    let consumer = Consumer::connect(settings(run, "check"));
    let mut consumer = consumer.read_to_end(&[&topic]).await.with_context(reading)?;
    let mut filter = VersionFilter::new(FirstVersion::Zero);
    let mut contents = Contents::default();
    while let Some(delivered) = consumer.next().await.with_context(reading)? {
        check(&mut filter, &delivered)?;
        contents.add(&delivered.stream, delivered.version.get());
    }
    consumer.close().await;
    Ok(contents)
}

fn check(filter: &mut VersionFilter, delivered: &Delivered) -> Result<()> {
    match filter.check(&delivered.stream, delivered.version, delivered.event_id) {
        Ok(FilterDecision::Apply) => Ok(()),
        Ok(FilterDecision::Duplicate) => {
            bail!(
                "a duplicate: version {} of {} once more, in record {}",
                delivered.version,
                delivered.stream,
                delivered.location()
            )
        }
        Err(fault) => Err(fault).with_context(|| {
            format!("out of order, lost, or forked: record {}", delivered.location())
        }),
    }
}

/// Fails unless the topic has exactly the events of the store.
pub(crate) fn compare(category: &str, store: &Contents, topic: &Contents) -> Result<()> {
    if store == topic {
        return Ok(());
    }
    let streams = store.last.keys().chain(topic.last.keys());
    let mut different = streams.filter(|stream| store.last.get(*stream) != topic.last.get(*stream));
    let example = different.next().map(|stream| {
        let last = |of: &Contents| of.last.get(stream).map_or(0, |last| last + 1);
        format!(
            "; for one, {stream} has {} events in the store and {} in the topic",
            last(store),
            last(topic)
        )
    });
    bail!(
        "category {category}: the store has {} events and the topic {}{}",
        grouped(store.events),
        grouped(topic.events),
        example.unwrap_or_default()
    )
}

impl Contents {
    pub(crate) fn add(&mut self, stream: &str, version: i64) {
        self.events += 1;
        let last = match self.last.get_mut(stream) {
            Some(last) => last,
            None => self.last.entry(stream.to_owned()).or_insert(version),
        };
        *last = version.max(*last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(of: &[(&str, i64)]) -> Contents {
        let mut contents = Contents::default();
        of.iter().for_each(|(stream, version)| contents.add(stream, *version));
        contents
    }

    #[test]
    fn lost_end_of_a_stream_is_found_and_named() {
        let store = contents(&[("flight-1", 0), ("flight-1", 1), ("flight-2", 0)]);
        assert!(compare("flight", &store, &store).is_ok());
        let topic = contents(&[("flight-1", 0), ("flight-2", 0)]);
        let refused = compare("flight", &store, &topic).unwrap_err().to_string();
        assert_eq!(
            refused,
            "category flight: the store has 3 events and the topic 2; \
             for one, flight-1 has 2 events in the store and 1 in the topic"
        );
    }

    #[test]
    fn event_of_a_stream_that_the_store_has_not_is_found() {
        let refused = compare("flight", &contents(&[]), &contents(&[("flight-9", 0)])).unwrap_err();
        assert!(
            refused.to_string().contains("flight-9 has 0 events in the store and 1"),
            "{refused}"
        );
    }
}
