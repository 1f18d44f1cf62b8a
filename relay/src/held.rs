//! Reading what is held, once it is to go on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use annals_store::outbox::{Bound, LivePage, OutboxEvent, PositionPage, Stretch, Window};

use crate::checkpoint::Place;
use crate::failure::Failure;
use crate::holds::{Hold, Kind, ShardPlace};
use crate::reader::{Parts, Reader, Reading, collect};

/// The topic of a held category is looked at so often.
const TOPIC_INTERVAL: Duration = Duration::from_secs(5);
/// A page waits for them for so long: what others publish must not wait.
const TOPICS_WAIT_MAX: Duration = Duration::from_secs(2);

/// The window of a hold.
#[derive(Clone, Copy)]
struct HeldWindow<'a> {
    shard: &'a ShardPlace,
    name: &'a (Kind, String),
    hold: &'a Hold,
    until: &'a Bound,
}

impl Reader {
    /// Reads of what is held what somebody wants to go on, and takes each of these holds as far as there is room:
    /// half of the batch for all of them.
    pub(crate) async fn held(
        &mut self,
        shards: &mut [ShardPlace],
        reading: &mut Reading,
    ) -> Result<(), Failure> {
        if shards.iter().all(|shard| shard.holds.is_empty()) {
            return Ok(());
        }
        self.look_at_topics(shards).await;
        reading.collector.share(2);
        for shard in shards {
            let mut names: Vec<(i64, (Kind, String))> = shard
                .holds
                .iter()
                .filter(|(_, hold)| self.goes_on(hold.id))
                .map(|(name, hold)| (hold.id, name.clone()))
                .collect();
            names.sort();
            for (_, name) in names {
                self.hold(shard, &name, reading).await?;
            }
        }
        Ok(())
    }

    fn goes_on(&self, hold: i64) -> bool {
        self.asked.wanted.contains(&hold) || self.ready.contains(&hold)
    }

    /// Takes one hold as far as there is room.
    async fn hold(
        &mut self,
        shard: &mut ShardPlace,
        name: &(Kind, String),
        reading: &mut Reading,
    ) -> Result<(), Failure> {
        // Its category is not published, either.
        let category = name.1.split_once('-').map_or(name.1.as_str(), |(category, _)| category);
        if name.0 == Kind::Stream && shard.holds.has(Kind::Category, category) {
            return Ok(());
        }
        while let Some(hold) = shard.holds.get(name).cloned() {
            if reading.waits {
                reading.more = true;
                return Ok(());
            }
            let after = hold.place.after;
            let place = if shard.is_caught_up(&hold.place) {
                hold.place
            } else if reading.collector.is_full() {
                reading.more = true;
                return Ok(());
            } else if let Some(until) = shard.window_of(&hold).cloned() {
                let held = HeldWindow { shard, name, hold: &hold, until: &until };
                self.held_page(&held, reading).await?
            } else {
                return Ok(());
            };
            if reading.waits && place.after <= after {
                reading.more = true;
                return Ok(());
            }
            let is_ended = shard.is_caught_up(&place);
            shard.holds.go_on(name, place, is_ended);
            // Also where nothing is left to publish, Kafka has to know.
            reading.collector.touch(shard.shard());
        }
        Ok(())
    }

    /// Reads the window of a hold, or as much of it as there is room for; where the hold stands then.
    async fn held_page(
        &mut self,
        held: &HeldWindow<'_>,
        reading: &mut Reading,
    ) -> Result<Place, Failure> {
        let HeldWindow { shard, name: (kind, name), hold, until } = *held;
        let window = Window { since: &hold.place.since, until };
        let events_max = reading.collector.room();
        let late = self.late(window).await?;
        // Everything of the window lies behind this.
        let after = match window.stretch(late, hold.place.after) {
            Stretch::Late { after } | Stretch::Positions(PositionPage { after, .. }) => after,
            Stretch::Done => return Ok(Place::done(until)),
        };
        let Parts { store, encoder, connection, passed } = self.parts().await?;
        let page = LivePage { after, events_max };
        let read = match kind {
            Kind::Stream => {
                let rows = store.outbox_stream(connection, window, name, page);
                collect(rows, encoder, passed, reading, |_| false).await?
            }
            Kind::Category => {
                let of = (name.as_str(), shard.shard());
                let rows = store.outbox_category(connection, window, of, page);
                // A stream that is held by itself goes on by itself.
                let is_left_out =
                    |event: &OutboxEvent<'_>| shard.holds.has(Kind::Stream, event.stream);
                collect(rows, encoder, passed, reading, is_left_out).await?
            }
        };
        if read.events < events_max.get() && !read.is_cut {
            return Ok(Place::done(until));
        }
        Ok(hold.place.within(until, read.last.unwrap_or(after)))
    }

    /// Held categories go on by themselves once their topics can be written to.
    async fn look_at_topics(&mut self, shards: &[ShardPlace]) {
        let mut categories: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for shard in shards {
            let held = shard.holds.iter().filter(|((kind, _), _)| *kind == Kind::Category);
            held.for_each(|((_, name), hold)| {
                categories.entry(name.clone()).or_default().push(hold.id);
            });
        }
        let due = categories.iter().filter(|(category, holds)| {
            let tried = self.tried.get(*category);
            let is_due = tried.is_none_or(|tried| tried.elapsed() >= TOPIC_INTERVAL);
            is_due && !holds.iter().all(|hold| self.goes_on(*hold))
        });
        let due: BTreeSet<String> = due.map(|(category, _)| category.clone()).collect();
        if due.is_empty() {
            return;
        }
        let now = Instant::now();
        self.tried.extend(due.iter().map(|category| (category.clone(), now)));
        let tried = match self.encoder.topics_of(due, now + TOPICS_WAIT_MAX).await {
            Ok(tried) => tried,
            Err(failure) => {
                let error = &failure as &dyn std::error::Error;
                tracing::debug!(error, "the topics of held categories are not looked at");
                return;
            }
        };
        for (category, known) in tried {
            match known {
                Ok(()) => {
                    let holds = categories.remove(&category);
                    self.ready.extend(holds.into_iter().flatten());
                }
                Err(failure) => {
                    let error = &failure as &dyn std::error::Error;
                    tracing::debug!(
                        event = "category_still_quarantined",
                        category,
                        error,
                        "the category is held still"
                    );
                }
            }
        }
    }
}
