//! Figures that have a goal, and the one table of them.

use std::fmt;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::report::{Table, number, print};

/// The kind of a line that contains a [`Figure`].
pub(crate) const FIGURE: &str = "figure";

/// The goal of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Goal {
    pub(crate) fn is_met(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(goal) => figure >= goal,
            Self::AtMost(goal) => figure <= goal,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(goal) => write!(f, "≥ {}", number(*goal)),
            Self::AtMost(goal) => write!(f, "≤ {}", number(*goal)),
        }
    }
}

/// A figure with its goal.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) figure: f64,
    pub(crate) goal: Goal,
}

/// Prints every figure in the directory's files.
pub(crate) fn run(directory: &Path) -> anyhow::Result<()> {
    let mut table = Table::new(&["", "figure", "goal", "met"]);
    let files = std::fs::read_dir(directory)
        .with_context(|| format!("read the directory {}", directory.display()))?;
    let mut paths = files.map(|file| Ok(file?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    for path in paths {
        for figure in figures(&std::fs::read_to_string(&path)?)? {
            let Figure { name, figure, goal } = figure;
            let met = if goal.is_met(figure) { "yes" } else { "no" };
            table.row(vec![name, number(figure), goal.to_string(), met.to_owned()]);
        }
    }
    print(&table);
    Ok(())
}

fn figures(lines: &str) -> anyhow::Result<Vec<Figure>> {
    let values = lines.lines().map(serde_json::from_str::<Value>);
    let values = values.collect::<Result<Vec<_>, _>>()?;
    let figures = values.into_iter().filter(|value| value["kind"] == FIGURE);
    Ok(figures.map(serde_json::from_value).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_at_its_edge_and_missed_beyond() {
        assert!(Goal::AtLeast(0.8).is_met(0.8) && !Goal::AtLeast(0.8).is_met(0.79));
        assert!(Goal::AtMost(64.0).is_met(64.0) && !Goal::AtMost(64.0).is_met(64.1));
    }

    #[test]
    fn figures_are_found_among_other_lines() {
        let figure = Figure { name: "x".to_owned(), figure: 1.0, goal: Goal::AtMost(2.0) };
        let mut line = serde_json::to_value(&figure).unwrap();
        line["kind"] = FIGURE.into();
        let found = figures(&format!("{{\"kind\":\"drain\"}}\n{line}\n")).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].figure, found[0].goal), (1.0, Goal::AtMost(2.0)));
    }
}
