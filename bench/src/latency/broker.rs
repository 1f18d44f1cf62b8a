//! The broker's own times of the requests of one measurement, over JMX.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use tokio::process::Command;

use crate::report::Table;
use crate::spread::Spread;

const PROGRAM: &str = include_str!("../../java/BrokerTimes.java");
const FILE: &str = "BrokerTimes.java";

/// How often something has happened, and how long it took in all.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Time {
    count: f64,
    sum_ms: f64,
}

impl Time {
    fn mean_ms(self) -> f64 {
        if self.count > 0.0 { self.sum_ms / self.count } else { 0.0 }
    }
}

/// The broker's times: since its start, or between two moments.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct BrokerTimes(BTreeMap<String, Time>);

impl BrokerTimes {
    /// Reads the times of the one broker of this machine since its start. `directory` keeps the
    /// program, for manual runs. Takes a second.
    ///
    /// # Errors
    /// Without a JDK, or if no broker or several run on this machine.
    pub(crate) async fn read(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join(FILE);
        std::fs::write(&path, PROGRAM).with_context(|| format!("write {}", path.display()))?;
        let mut command = Command::new("java");
        command.args(["-XX:TieredStopAtLevel=1", "--add-modules", "jdk.attach"]).arg(&path);
        let output = command.kill_on_drop(true).output().await;
        let output = output.context("start java: reading the broker's times needs a JDK")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{} failed: {errors}", path.display());
        parse(&String::from_utf8_lossy(&output.stdout))
    }

    /// The times from an earlier moment until this one.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let between = self.0.iter().map(|(name, time)| {
            let before = earlier.0.get(name).copied().unwrap_or(Time { count: 0.0, sum_ms: 0.0 });
            let Time { count, sum_ms } = *time;
            let time = Time { count: count - before.count, sum_ms: sum_ms - before.sum_ms };
            (name.clone(), time)
        });
        Self(between.collect())
    }
}

fn parse(text: &str) -> anyhow::Result<BrokerTimes> {
    let times = text.lines().map(|line| {
        let mut columns = line.split('\t');
        let mut next = || columns.next().with_context(|| format!("a column is missing: {line}"));
        let (name, count, mean) = (next()?, next()?.parse::<f64>()?, next()?.parse::<f64>()?);
        Ok((name.to_owned(), Time { count, sum_ms: count * mean }))
    });
    Ok(BrokerTimes(times.collect::<anyhow::Result<_>>()?))
}

/// A row each of what the broker measures: how often in a second, and the mean time.
pub(crate) fn table(seconds: f64, rounds: &[&BrokerTimes]) -> Table {
    let mut table = Table::new(&["broker", "per second", "mean, ms", "min..max"]);
    let names = rounds.first().map(|first| first.0.keys()).into_iter().flatten();
    for name in names {
        let of = || rounds.iter().filter_map(|round| round.0.get(name));
        let rate = Spread::of(of().map(|time| time.count / seconds));
        let mean = Spread::of(of().map(|time| time.mean_ms()));
        let (Some(rate), Some(mean)) = (rate, mean) else { continue };
        if rate.max > 0.0 {
            table.row(vec![
                name.clone(),
                format!("{:.0}", rate.median),
                format!("{:.2}", mean.median),
                format!("{:.2}..{:.2}", mean.min, mean.max),
            ]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_between_two_moments_is_that_of_the_values_between_them() {
        let earlier = parse("Produce TotalTimeMs\t10\t2.0\n").unwrap();
        let later = parse("Produce TotalTimeMs\t30\t4.0\nEndTxn TotalTimeMs\t2\t1.5\n").unwrap();
        let between = later.since(&earlier);
        assert_eq!(between.0["Produce TotalTimeMs"], Time { count: 20.0, sum_ms: 100.0 });
        assert!((between.0["Produce TotalTimeMs"].mean_ms() - 5.0).abs() < 1e-9);
        assert!((between.0["EndTxn TotalTimeMs"].mean_ms() - 1.5).abs() < 1e-9);
    }
}
