//! All that the demo prints goes through here: the report to the standard output, the progress bar to the standard
//! error. Without a terminal there is no bar, but a line now and then.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::figures::{grouped, per_second};
use crate::writers::Appended;

const LINE_INTERVAL: Duration = Duration::from_secs(2);
const BAR: &str = "    {bar:40.cyan} {human_pos} of {human_len} flights {msg}";

/// Where the demo prints.
#[derive(Debug)]
pub(crate) struct Screen {
    bars: MultiProgress,
    has_bar: bool,
    has_colour: bool,
}

/// The progress of the appending, on the screen.
#[derive(Debug)]
pub(crate) struct Progress<'a> {
    screen: &'a Screen,
    bar: ProgressBar,
    flights: u64,
    last: Appended,
    last_at: Instant,
    line_due: Instant,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let has_colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { bars: MultiProgress::new(), has_bar: io::stderr().is_terminal(), has_colour }
    }

    /// Begins a part of the demo.
    pub(crate) fn heading(&self, text: &str) -> io::Result<()> {
        self.print(&format!("\n{}", self.bold(&format!("==> {text}"))))
    }

    /// Says one thing within a part.
    pub(crate) fn say(&self, text: &str) -> io::Result<()> {
        self.print(&format!("    {text}"))
    }

    /// Says something that nobody must miss.
    pub(crate) fn shout(&self, text: &str) -> io::Result<()> {
        self.print(&format!("  {}", self.bold(&format!("! {text}"))))
    }

    /// Prints lines as they are.
    pub(crate) fn print(&self, text: &str) -> io::Result<()> {
        self.bars.suspend(|| {
            let mut out = io::stdout().lock();
            writeln!(out, "{text}")?;
            out.flush()
        })
    }

    fn bold(&self, text: &str) -> String {
        if self.has_colour { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Begins to show how many flights of all are appended.
    pub(crate) fn progress(&self, flights: u64) -> Progress<'_> {
        let bar = if self.has_bar {
            self.bars.add(ProgressBar::new(flights))
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template(BAR) {
            bar.set_style(style.progress_chars("=> "));
        }
        let now = Instant::now();
        Progress {
            screen: self,
            bar,
            flights,
            last: Appended::default(),
            last_at: now,
            line_due: now + LINE_INTERVAL,
        }
    }
}

impl Progress<'_> {
    /// Shows how far it is by now, with the rate since the last time.
    pub(crate) fn show(&mut self, now: Appended) -> io::Result<()> {
        let rate = per_second(now.events - self.last.events, self.last_at.elapsed());
        let message = format!("{} events, {} events/s", grouped(now.events), grouped(rate));
        self.bar.set_message(message.clone());
        self.bar.set_position(now.flights);
        if self.screen.has_bar {
            (self.last, self.last_at) = (now, Instant::now());
        } else if Instant::now() >= self.line_due {
            let flights = (grouped(now.flights), grouped(self.flights));
            self.screen.say(&format!("{} of {} flights, {message}", flights.0, flights.1))?;
            (self.last, self.last_at) = (now, Instant::now());
            self.line_due = self.last_at + LINE_INTERVAL;
        }
        Ok(())
    }

    /// Takes the bar away.
    pub(crate) fn end(self) {
        self.bar.finish_and_clear();
        self.screen.bars.remove(&self.bar);
    }
}
