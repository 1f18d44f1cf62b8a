//! The progress of long commands, on standard error: a line that is rewritten on a terminal, and a
//! line every few seconds without one.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const TERMINAL_INTERVAL: Duration = Duration::from_millis(200);
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// The progress of one step of a command.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    total: u64,
    done: u64,
    began: Instant,
    shown: Instant,
    is_terminal: bool,
}

impl Progress {
    /// A step that counts up to `total`; `what` names the step and its unit.
    pub(crate) fn new(what: &'static str, total: u64) -> Self {
        let now = Instant::now();
        let is_terminal = std::io::stderr().is_terminal();
        Self { what, total, done: 0, began: now, shown: now, is_terminal }
    }

    /// So many are done.
    pub(crate) fn at(&mut self, done: u64) {
        self.done = done;
        let interval = if self.is_terminal { TERMINAL_INTERVAL } else { PLAIN_INTERVAL };
        if self.shown.elapsed() >= interval {
            self.shown = Instant::now();
            self.show();
        }
    }

    /// So many more are done.
    pub(crate) fn advance(&mut self, more: u64) {
        self.at(self.done + more);
    }

    fn show(&self) {
        let seconds = self.began.elapsed().as_secs_f64().max(0.001);
        let Self { what, done, total, .. } = self;
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = *done as f64 / seconds;
        let line = format!("{what}: {done} of {total}, {rate:.0} a second");
        let mut stderr = std::io::stderr();
        // A closed standard error does not end the command.
        drop(if self.is_terminal {
            write!(stderr, "\r\x1b[K{line}").and_then(|()| stderr.flush())
        } else {
            writeln!(stderr, "{line}")
        });
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_terminal {
            drop(write!(std::io::stderr(), "\r\x1b[K"));
        }
    }
}
