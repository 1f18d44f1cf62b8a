//! A backlog: many events that nobody has published yet.

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{Dice, Testbed};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::event::{self, new_event};
use crate::settle::settle;

/// Events of one append. Each append is a transaction, of which the relay has to take account: a backlog of
/// few large ones would be another, easier task than what an outage leaves behind.
const EVENTS_PER_APPEND: usize = 10;
const WRITERS: usize = 8;

/// Appends so many events, spread over the streams by chance.
pub(crate) async fn load(bed: &Testbed, events: usize, streams: usize) -> anyhow::Result<()> {
    let store = bed.store();
    let mut dice = Dice::with_seed(1);
    let firsts = (0..events).step_by(EVENTS_PER_APPEND);
    let appends = firsts.map(|first| append(first, events, dice.below(streams)));
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

fn append(first: usize, events: usize, stream: usize) -> anyhow::Result<Append> {
    let numbers = first..events.min(first + EVENTS_PER_APPEND);
    let events = numbers.map(|number| Ok(new_event(i64::try_from(number)?)?));
    let events = events.collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Append::to(&event::stream(stream)?, ExpectedVersion::Any, events))
}
