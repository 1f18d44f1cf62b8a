//! The output of results: tables for people, and a file with one JSON object per line.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use jiff::Timestamp;
use serde::Serialize;

use crate::goals::{FIGURE, Figure, Goal};
use crate::machine::Machine;

/// The file of one run.
#[derive(Debug)]
pub(crate) struct Report {
    directory: PathBuf,
    path: PathBuf,
    file: File,
}

/// One line of the file: its kind, and the measured values.
#[derive(Serialize)]
struct Line<'a, T> {
    kind: &'a str,
    #[serde(flatten)]
    content: &'a T,
}

impl Report {
    /// Begins the file of a run; its first line is the machine.
    pub(crate) fn create(
        directory: &Path,
        command: &str,
        machine: &Machine,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("create the directory {}", directory.display()))?;
        let now = Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
        let path = directory.join(format!("{command}-{now}.jsonl"));
        let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        let mut report = Self { directory: directory.to_owned(), path, file };
        report.line("machine", machine)?;
        Ok(report)
    }

    /// Adds a line to the file.
    pub(crate) fn line<T: Serialize>(&mut self, kind: &str, content: &T) -> anyhow::Result<()> {
        let line = serde_json::to_string(&Line { kind, content })?;
        writeln!(self.file, "{line}").with_context(|| format!("write {}", self.path.display()))
    }

    /// Adds a figure that has a goal, for the table of all of them.
    pub(crate) fn figure(&mut self, name: &str, figure: f64, goal: Goal) -> anyhow::Result<()> {
        self.line(FIGURE, &Figure { name: name.to_owned(), figure, goal })
    }

    /// The directory of the files.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Prints the path of the file.
    pub(crate) fn finish(&self) {
        print(&format!("\nas JSON lines: {}", self.path.display()));
    }
}

/// A result, or a part of one.
#[expect(clippy::print_stdout, reason = "this program prints its results")]
pub(crate) fn print(text: &impl fmt::Display) {
    println!("{text}");
}

/// Progress of the run: not a result, so not printed among them.
pub(crate) fn progress(text: &impl fmt::Display) {
    eprintln!("{text}");
}

/// A table in Markdown with aligned columns, ready to paste.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new(columns: &[&str]) -> Self {
        Self { rows: vec![columns.iter().map(|&column| column.to_owned()).collect()] }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell: &String| cell.chars().count())
                .max()
        };
        (0..columns).map(|column| width(column).unwrap_or(0)).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        for (number, row) in self.rows.iter().enumerate() {
            for (cell, width) in row.iter().zip(&widths) {
                write!(f, "| {cell:>width$} ")?;
            }
            writeln!(f, "|")?;
            if number == 0 {
                let rule: String =
                    widths.iter().map(|width| format!("|{}:", "-".repeat(width + 1))).collect();
                writeln!(f, "{rule}|")?;
            }
        }
        Ok(())
    }
}

/// A number for people: 12 345 or 1.23.
pub(crate) fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let first = digits.len() % 3;
    let (head, tail) = digits.split_at(first);
    let groups = tail.as_bytes().chunks(3).map(|group| String::from_utf8_lossy(group).into_owned());
    let groups: Vec<String> =
        std::iter::once(head.to_owned()).filter(|head| !head.is_empty()).chain(groups).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_the_table_is_markdown() {
        let mut table = Table::new(&["clients", "x"]);
        table.row(vec!["1".to_owned(), "1.00".to_owned()]);
        assert_eq!(
            table.to_string(),
            "| clients |    x |\n|--------:|-----:|\n|       1 | 1.00 |\n"
        );
    }

    #[test]
    fn large_numbers_are_grouped() {
        let shown = [0.912, 99.5, 100.4, 1_234.5, 123_456.0, 1_234_567.0].map(number);
        assert_eq!(shown, ["0.91", "99.50", "100", "1,234", "123,456", "1,234,567"]);
    }
}
