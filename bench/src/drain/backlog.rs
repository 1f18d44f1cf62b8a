//! A backlog: many unpublished events.

use std::ops::Range;

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{Dice, Testbed};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::Arguments;
use crate::event::{self, new_event};
use crate::settle::settle;

const WRITERS: usize = 8;

/// Appends the events of a backlog, spread over the streams by chance.
pub(crate) async fn load(bed: &Testbed, arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { events, streams, append_events, .. } = *arguments;
    let store = bed.store();
    let mut dice = Dice::with_seed(1);
    let firsts = (0..events).step_by(append_events);
    let appends = firsts.map(|first| {
        let numbers = first..events.min(first + append_events);
        append(numbers, dice.below(streams))
    });
    stream::iter(appends)
        .map(|append| async move {
            store.append(&append?).await?;
            anyhow::Ok(())
        })
        .buffer_unordered(WRITERS)
        .try_collect::<()>()
        .await?;
    settle(&bed.database_url()).await
}

fn append(numbers: Range<usize>, stream: usize) -> anyhow::Result<Append> {
    let events = numbers.map(|number| Ok(new_event(i64::try_from(number)?)?));
    let events = events.collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Append::to(&event::stream(stream)?, ExpectedVersion::Any, events))
}
