//! The machine of a figure, and its load.

use std::fs::read_to_string;

use annals_testkit::Environment;
use anyhow::Context;
use jiff::Timestamp;
use serde::Serialize;
use sqlx::{Connection, PgConnection};

use crate::report::print;

/// Above this, something else ran shortly before, and probably still does.
const LOAD_QUIET_MAX: f64 = 0.7;

/// The facts about the machine that a reader needs to compare figures.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    at: Timestamp,
    cpu: String,
    cores: usize,
    memory_gib: u64,
    kernel: String,
    postgresql: String,
    kafka: String,
    profile: &'static str,
    load_before: f64,
}

impl Machine {
    /// Reads them from the system, PostgreSQL, and `ANNALS_BENCH_KAFKA` for the version of Kafka,
    /// which brokers do not report.
    pub(crate) async fn look() -> anyhow::Result<Self> {
        let mut connection = PgConnection::connect(&Environment::get().database_url)
            .await
            .context("connect to PostgreSQL")?;
        let version = sqlx::query_scalar(include_str!("../sql/server_version.sql"));
        let postgresql =
            version.fetch_one(&mut connection).await.context("ask for PostgreSQL's version")?;
        let load = field(&read_to_string("/proc/loadavg")?, 0).and_then(|text| text.parse().ok());
        Ok(Self {
            at: Timestamp::now(),
            cpu: line("/proc/cpuinfo", "model name")
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: cores(),
            memory_gib: memory_kib().unwrap_or(0).div_ceil(1024 * 1024),
            kernel: read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            postgresql,
            kafka: std::env::var("ANNALS_BENCH_KAFKA")
                .unwrap_or_else(|_| "of unknown version".to_owned()),
            profile: if cfg!(debug_assertions) { "debug" } else { "release" },
            load_before: load.unwrap_or(f64::NAN),
        })
    }

    /// Prints it, and warns if the figures would mislead.
    pub(crate) fn print(&self) {
        let Self { cpu, cores, memory_gib, kernel, postgresql, kafka, .. } = self;
        print(&format!("{cpu}, {cores} cores, {memory_gib} GiB, Linux {kernel}"));
        print(&format!(
            "PostgreSQL {postgresql}, Kafka {kafka}, {} build, {}",
            self.profile, self.at
        ));
        if self.load_before > LOAD_QUIET_MAX {
            let load = self.load_before;
            print(&format!(
                "the machine was not quiet before (load {load}): compare nothing but the ratios"
            ));
        }
        print(&"");
    }
}

/// The number of cores that this program may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn memory_kib() -> Option<u64> {
    field(&line("/proc/meminfo", "MemTotal")?, 0)?.parse().ok()
}

/// The text behind the colon of the first line that begins with `key`.
pub(crate) fn line(path: &str, key: &str) -> Option<String> {
    let text = read_to_string(path).ok()?;
    let found = text.lines().find(|line| line.starts_with(key))?;
    Some(found.split_once(':')?.1.trim().to_owned())
}

fn field(text: &str, number: usize) -> Option<&str> {
    text.split_whitespace().nth(number)
}

/// The processors' time since the machine started, in ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuTime {
    busy: u64,
    all: u64,
}

impl CpuTime {
    /// Reads it.
    pub(crate) fn now() -> anyhow::Result<Self> {
        let text = read_to_string("/proc/stat")?;
        let first = text.lines().next().unwrap_or_default();
        // user nice system idle iowait irq softirq steal; guest time is part of user.
        let ticks = first.split_whitespace().skip(1).take(8).map(str::parse);
        let ticks: Vec<u64> = ticks.collect::<Result<_, _>>().context("read /proc/stat")?;
        let all = ticks.iter().sum();
        let idle: u64 = ticks.iter().skip(3).take(2).sum();
        Ok(Self { busy: all - idle, all })
    }

    /// The share of all cores' time that was used since then, by any process.
    pub(crate) fn busy_since(self, then: Self) -> f64 {
        let all = u32::try_from(self.all - then.all).unwrap_or(u32::MAX).max(1);
        let busy = u32::try_from(self.busy - then.busy).unwrap_or(u32::MAX);
        f64::from(busy) / f64::from(all)
    }
}
