//! The progress of long commands, on standard error: on a terminal a bar that is drawn at once and
//! then again, and without one a line every few seconds.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const TERMINAL_INTERVAL: Duration = Duration::from_millis(200);
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);
/// The characters of a full bar.
const BAR_WIDTH: usize = 24;
/// Begins the line of a terminal anew, without its earlier text.
const CLEARED: &str = "\r\x1b[K";

/// The progress of one step of a command.
#[derive(Debug)]
pub(crate) struct Progress {
    state: ProgressState,
    began: Instant,
    /// When it was last shown; none on a terminal before the first time.
    shown: Option<Instant>,
    is_terminal: bool,
}

/// How far a step is.
#[derive(Debug)]
struct ProgressState {
    what: &'static str,
    total: u64,
    done: u64,
    elapsed: Duration,
}

impl Progress {
    /// A step that counts up to `total`; `what` names the step and its unit.
    pub(crate) fn new(what: &'static str, total: u64) -> Self {
        let now = Instant::now();
        let is_terminal = std::io::stderr().is_terminal();
        let state = ProgressState { what, total, done: 0, elapsed: Duration::ZERO };
        Self { state, began: now, shown: (!is_terminal).then_some(now), is_terminal }
    }

    /// So many are done.
    pub(crate) fn at(&mut self, done: u64) {
        self.state.done = done;
        let interval = if self.is_terminal { TERMINAL_INTERVAL } else { PLAIN_INTERVAL };
        if self.shown.is_none_or(|shown| shown.elapsed() >= interval) {
            self.shown = Some(Instant::now());
            self.state.elapsed = self.began.elapsed();
            let mut stderr = std::io::stderr();
            let shown = self.state.shown(self.is_terminal);
            // A closed standard error does not end the command.
            drop(stderr.write_all(shown.as_bytes()).and_then(|()| stderr.flush()));
        }
    }

    /// So many more are done.
    pub(crate) fn advance(&mut self, more: u64) {
        self.at(self.state.done + more);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_terminal {
            drop(std::io::stderr().write_all(CLEARED.as_bytes()));
        }
    }
}

impl ProgressState {
    /// What is written: a bar that replaces the last one, or a whole line.
    fn shown(&self, is_terminal: bool) -> String {
        if !is_terminal {
            return format!("{self}\n");
        }
        let part = self.done.saturating_mul(BAR_WIDTH as u64) / self.total.max(1);
        let full = usize::try_from(part).unwrap_or(BAR_WIDTH).min(BAR_WIDTH);
        format!("{CLEARED}[{}{}] {self}", "#".repeat(full), "-".repeat(BAR_WIDTH - full))
    }
}

impl fmt::Display for ProgressState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, total, done, elapsed } = self;
        let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = done.saturating_mul(1_000) / milliseconds;
        write!(f, "{what}: {done} of {total}, {rate} a second")?;
        match total.saturating_sub(*done).checked_div(rate) {
            Some(left) => write!(f, ", {left} s left"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_a_bar_that_replaces_the_last_one_and_a_file_whole_lines() {
        let elapsed = Duration::from_secs(10);
        let mut state = ProgressState { what: "events replayed", total: 3_000, done: 750, elapsed };
        let text = "events replayed: 750 of 3000, 75 a second, 30 s left";
        let bar = "[######------------------]";
        assert_eq!(state.shown(true), format!("\r\x1b[K{bar} {text}"));
        assert_eq!(state.shown(false), format!("{text}\n"));
        // More than was counted before, and nothing at all.
        state.done = 4_000;
        assert!(state.shown(true).contains("[########################] "), "{state}");
        state = ProgressState { what: "records", total: 0, done: 0, elapsed: Duration::ZERO };
        assert_eq!(state.shown(false), "records: 0 of 0, 0 a second\n");
    }
}
