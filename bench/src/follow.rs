//! The delay until an idle follower has an event.

use std::collections::HashMap;
use std::pin::pin;
use std::time::{Duration, Instant};

use annals_store::{Append, Category, ExpectedVersion, Follow, Store, StoreOptions};
use annals_testkit::Testbed;
use anyhow::Context;
use futures_util::StreamExt;
use serde::Serialize;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::event::{self, CATEGORY, new_event};
use crate::latency::figures::{Figures, PERCENTILES, Span};
use crate::report::{Report, Table, print, progress};

/// Unmeasured appends at the start: after them the follower and both ends of the notification are
/// connected.
const WARM_UP_APPENDS: usize = 20;
const DEADLINE: Duration = Duration::from_secs(10);

/// The delay until an idle follower has an event.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Duration of each measurement.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Interval between two appends.
    #[arg(long, default_value_t = 100)]
    interval_ms: u64,
}

/// The followed part of the log, and whether appends send notifications.
#[derive(Debug, Clone, Copy, Serialize)]
struct Case {
    category: bool,
    hints: bool,
}

#[derive(Debug, Serialize)]
struct Measured {
    #[serde(flatten)]
    case: Case,
    #[serde(flatten)]
    figures: Figures,
}

/// Measures each case, one after the other, and prints the table.
pub(crate) async fn run(arguments: &Arguments, mut report: Report) -> anyhow::Result<()> {
    let mut header = vec!["followed", "hints", "from"];
    header.extend(PERCENTILES.iter().map(|(name, _)| *name));
    let mut table = Table::new(&header);
    for hints in [true, false] {
        for category in [false, true] {
            let case = Case { category, hints };
            for figures in measure(case, arguments).await? {
                progress(&format!("{case:?}: {figures}"));
                table.row(row(case, &figures));
                report.line("follow", &Measured { case, figures })?;
            }
        }
    }
    print(&table);
    report.finish();
    Ok(())
}

fn row(case: Case, figures: &Figures) -> Vec<String> {
    let followed = if case.category { "one category" } else { "everything" };
    let hints = if case.hints { "on" } else { "off" };
    let mut row = vec![followed.to_owned(), hints.to_owned(), figures.span.to_string()];
    row.extend(figures.percentiles_ms.iter().map(|ms| format!("{ms:.1}")));
    row
}

/// The times of an append's call and answer.
#[derive(Debug, Clone, Copy)]
struct Times {
    called: Instant,
    returned: Instant,
}

async fn measure(case: Case, arguments: &Arguments) -> anyhow::Result<Vec<Figures>> {
    let testbed = Testbed::new("bench_follow").await;
    let options = StoreOptions::default();
    let options = if case.hints { options } else { options.without_notifications() };
    let store = options.connect(&testbed.database_url()).await?;
    let (sender, mut received) = mpsc::unbounded_channel();
    let follower = tokio::spawn(follow(store.clone(), case, sender));
    let appends = usize::try_from(arguments.seconds * 1_000 / arguments.interval_ms.max(1))?;
    let mut ticks = tokio::time::interval(Duration::from_millis(arguments.interval_ms.max(1)));
    let mut appended = HashMap::new();
    for number in 0..WARM_UP_APPENDS + appends {
        ticks.tick().await;
        let (id, times) = append(&store, number).await?;
        if number >= WARM_UP_APPENDS {
            appended.insert(id, times);
        }
    }
    let mut spans = Vec::with_capacity(appends);
    while spans.len() < appends {
        let next = tokio::time::timeout(DEADLINE, received.recv()).await;
        let (id, at): (Uuid, Instant) =
            next.context("wait for the follower")?.context("the follower ended")?;
        spans.extend(appended.remove(&id).map(|times| (times, at)));
    }
    follower.abort();
    let of = |span, from: fn(&Times) -> Instant| {
        let durations = spans.iter().map(|(times, at)| at.saturating_duration_since(from(times)));
        Figures::of(span, durations)
    };
    Ok(vec![of(Span::Called, |times| times.called)?, of(Span::Returned, |times| times.returned)?])
}

async fn append(store: &Store, number: usize) -> anyhow::Result<(Uuid, Times)> {
    let event = new_event(i64::try_from(number)?)?;
    let id = event.id().get();
    let append = Append::to(&event::stream(number % 100)?, ExpectedVersion::Any, [event]);
    let called = Instant::now();
    store.append(&append).await?;
    Ok((id, Times { called, returned: Instant::now() }))
}

async fn follow(
    store: Store,
    case: Case,
    received: mpsc::UnboundedSender<(Uuid, Instant)>,
) -> anyhow::Result<()> {
    let follow =
        if case.category { Follow::category(&Category::new(CATEGORY)?) } else { Follow::all() };
    let mut events = pin!(store.follow(follow));
    while let Some(followed) = events.next().await {
        let sent = received.send((followed?.event.id.get(), Instant::now()));
        sent.context("hand an event over")?;
    }
    Ok(())
}
