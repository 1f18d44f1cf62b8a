//! All that the demo prints goes through here: the report to the standard output, the progress bar
//! to the standard error. Without a terminal there is no bar, but a line now and then.

use std::io::{self, IsTerminal, Write};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Where the demo prints.
#[derive(Debug)]
pub(crate) struct Screen {
    bars: MultiProgress,
    pub(crate) has_bar: bool,
    has_colour: bool,
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

    /// Prints an important message.
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

    /// Shows a bar below all that is printed; hidden where there is no terminal.
    pub(crate) fn bar(&self, length: u64, template: &str) -> ProgressBar {
        if !self.has_bar {
            return ProgressBar::hidden();
        }
        let bar = self.bars.add(ProgressBar::new(length));
        match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style.progress_chars("=> ")),
            Err(_template_error) => bar,
        }
    }

    /// Takes a bar away.
    pub(crate) fn remove(&self, bar: &ProgressBar) {
        bar.finish_and_clear();
        self.bars.remove(bar);
    }
}
