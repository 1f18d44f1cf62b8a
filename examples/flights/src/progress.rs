//! How far the appending is, on the screen: a bar, or a line now and then.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use tokio::sync::watch;

use crate::figures::{grouped, per_second};
use crate::screen::Screen;
use crate::writers::Appended;

const REFRESH: Duration = Duration::from_millis(200);
const BAR_RATE_INTERVAL: Duration = Duration::from_secs(1);
const LINE_INTERVAL: Duration = Duration::from_secs(2);
const BAR: &str = "    {bar:40.cyan} {human_pos} of {human_len} flights {msg}";

/// Shows it until all flights are appended.
pub(crate) async fn show(
    screen: &Screen,
    mut appended: watch::Receiver<Appended>,
    flights: u64,
) -> Result<()> {
    let bar = screen.bar(flights, BAR);
    let last = *appended.borrow();
    let mut progress = Progress { screen, bar, flights, last, last_at: Instant::now() };
    loop {
        let all = appended.wait_for(|appended| appended.flights >= flights);
        let all = tokio::time::timeout(REFRESH, all).await.map(|all| all.map(drop));
        if let Ok(all) = all {
            all.context("the writers have ended")?;
            screen.remove(&progress.bar);
            return Ok(());
        }
        progress.show(*appended.borrow())?;
    }
}

struct Progress<'a> {
    screen: &'a Screen,
    bar: ProgressBar,
    flights: u64,
    last: Appended,
    last_at: Instant,
}

impl Progress<'_> {
    /// Shows how far it is by now, with the rate of the last second or two.
    fn show(&mut self, now: Appended) -> io::Result<()> {
        self.bar.set_position(now.flights);
        let interval = if self.screen.has_bar { BAR_RATE_INTERVAL } else { LINE_INTERVAL };
        let passed = self.last_at.elapsed();
        if passed < interval {
            return Ok(());
        }
        let rate = per_second(now.events - self.last.events, passed);
        (self.last, self.last_at) = (now, Instant::now());
        let message = format!("{} events, {} events/s", grouped(now.events), grouped(rate));
        if self.screen.has_bar {
            self.bar.set_message(message);
            return Ok(());
        }
        let (done, all) = (grouped(now.flights), grouped(self.flights));
        self.screen.say(&format!("{done} of {all} flights, {message}"))
    }
}
