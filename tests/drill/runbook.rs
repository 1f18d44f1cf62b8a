//! The runbook, as the operator of a drill reads it: the sections that are open, and whether a step
//! is one of theirs.

use annals_testkit::Must;

const RUNBOOK: &str = include_str!("../../ops/runbook.md");
const OPERATIONS: &str = include_str!("../../docs/operations.md");

/// The open sections; what precedes the first one is always open.
pub(crate) struct Runbook {
    open: String,
}

impl Runbook {
    pub(crate) fn new() -> Self {
        let (introduction, _) = RUNBOOK.split_once("\n## ").must("find the first section");
        Self { open: introduction.to_owned() }
    }

    /// Opens the section of an alert, and returns its text.
    pub(crate) fn open_alert(&mut self, alert: &str) -> String {
        self.open(RUNBOOK, alert)
    }

    /// Opens a section to which an open one links, and returns its text.
    ///
    /// # Panics
    /// If none links to it.
    pub(crate) fn follow(&mut self, heading: &str) -> String {
        let anchor = anchor(heading);
        let page = match () {
            () if self.open.contains(&format!("](#{anchor})")) => RUNBOOK,
            () if self.open.contains(&format!("](../docs/operations.md#{anchor})")) => OPERATIONS,
            () => panic!("no open section links to {heading:?}:\n{}", self.open),
        };
        self.open(page, heading)
    }

    /// Whether an open section has these words, however its lines are broken.
    pub(crate) fn says(&self, step: &str) -> bool {
        joined(&self.open).contains(&joined(step))
    }

    /// Whether an open section has this command of the relay. Words in capitals stand for names.
    pub(crate) fn has_command(&self, arguments: &str) -> bool {
        commands(&self.open).any(|command| fits(&command, arguments))
    }

    fn open(&mut self, page: &str, heading: &str) -> String {
        let text = section(page, heading);
        self.open.push_str(&text);
        text
    }
}

/// The text below a heading, up to the next one.
fn section(page: &str, heading: &str) -> String {
    let is_heading = |line: &&str| line.starts_with('#');
    let of_heading =
        |line: &&str| is_heading(line) && line.trim_start_matches(['#', ' ']) == heading;
    let mut lines = page.lines().skip_while(|line| !of_heading(line)).skip(1);
    let mut is_code = false;
    let mut text = String::from("\n");
    for line in lines.by_ref() {
        is_code ^= line.starts_with("```");
        if !is_code && is_heading(&line) {
            break;
        }
        text.push_str(line);
        text.push('\n');
    }
    assert!(text.trim() != "", "no section {heading:?}");
    text
}

/// The anchor of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// The commands of the relay in a text: in lines of code, and between back-ticks. Without its name.
fn commands(text: &str) -> impl Iterator<Item = String> {
    let lines = text.lines().filter(|line| line.starts_with("annals-relay "));
    let lines = lines.map(|line| line.split(" #").next().unwrap_or(line).to_owned());
    let joined = joined(text);
    let spans: Vec<String> = joined.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    lines.chain(spans).map(|command| {
        let command = command.replace(" --config relay.toml", "").replace('"', "");
        command.trim_start_matches("annals-relay ").to_owned()
    })
}

fn fits(command: &str, arguments: &str) -> bool {
    let (command, arguments) = (command.split_whitespace(), arguments.split_whitespace());
    let is_name = |word: &str| word.chars().all(|c| c.is_ascii_uppercase());
    command.clone().count() == arguments.clone().count()
        && command.zip(arguments).all(|(word, argument)| word == argument || is_name(word))
}

fn joined(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
