//! The subcommand `status`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use annals_store::Store;
use jiff::Timestamp;
use serde::Serialize;

use crate::config::Config;
use crate::model::lag::{Lag, Lags};
use crate::state::lag::lags;
use crate::state::overview::{
    self, DeploymentState, OpenTransaction, OutboxHolder, Quarantined, RelayState, ShardState,
};

/// The most categories that are printed as text: those with the oldest events.
const CATEGORIES_PRINTED_MAX: usize = 20;
/// The age from which on an open transaction is worth a line.
const OPEN_SECONDS_MIN: f64 = 1.0;

/// The state of a deployment.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    deployment: String,
    /// Why it does not publish everything; empty if it does.
    not_ready: Vec<String>,
    is_ready: bool,
    #[serde(flatten)]
    state: DeploymentState,
    lag: Lag,
    shards: Vec<ShardStatus>,
    categories: BTreeMap<String, Lag>,
    relays: Vec<RelayState>,
    quarantine: Vec<Quarantined>,
    /// The transactions that have been open longest of those that can still write events.
    open_transactions: Vec<OpenTransaction>,
    /// The deployments whose checkpoints keep partitions of the outbox, this one included.
    outbox_holders: Vec<OutboxHolder>,
}

#[derive(Debug, Serialize)]
struct ShardStatus {
    #[serde(flatten)]
    state: ShardState,
    lag: Lag,
}

impl Status {
    /// Reads it.
    pub(super) async fn read(
        config: &Config,
        store: &Store,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let deployment = config.publication();
        let state = overview::deployment(store, &deployment).await?;
        let shards = overview::shards(store, &deployment).await?;
        let relays = overview::relays(store, &deployment).await?;
        let quarantine = overview::quarantined(store, &deployment).await?;
        let open_transactions = overview::open_transactions(store).await?;
        let outbox_holders = overview::outbox_holders(store).await?;
        let Lags { all: lag, shards: mut of_shards, categories } = lags(store, &deployment).await?;
        let not_ready = not_ready(&shards, &relays);
        let with_lag = |state: ShardState| {
            let lag = of_shards.remove(&state.shard).unwrap_or_default();
            ShardStatus { state, lag }
        };
        let shards = shards.into_iter().map(with_lag).collect();
        Ok(Self {
            is_ready: not_ready.is_empty(),
            deployment,
            not_ready,
            state,
            lag,
            shards,
            categories,
            relays,
            quarantine,
            open_transactions,
            outbox_holders,
        })
    }

    pub(super) const fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// It as a JSON object in one line.
    pub(super) fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self).map(|json| format!("{json}\n"))
    }

    /// It as text.
    pub(super) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        self.write_deployment(&mut text)?;
        self.write_shards(&mut text)?;
        self.write_categories(&mut text)?;
        self.write_relays(&mut text)?;
        self.write_open_transactions(&mut text)?;
        Ok(text)
    }

    fn write_deployment(&self, text: &mut String) -> std::fmt::Result {
        let DeploymentState { delivery, generation, .. } = &self.state;
        let delivery = delivery.as_deref().unwrap_or("no relay has run");
        let generation = generation.unwrap_or(1);
        let ready = if self.is_ready { "ready" } else { "not ready" };
        writeln!(
            text,
            "deployment {} ({delivery}, generation {generation}): {ready}",
            self.deployment
        )?;
        self.not_ready.iter().try_for_each(|why| writeln!(text, "  {why}"))
    }

    fn write_shards(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "{:>5} {:>14} {:>10} {:>10} {:>6}  {:<20}  published by",
            "shard", "position", "waiting", "seconds", "epoch", "checkpoint of"
        )?;
        for ShardStatus { state, lag } in &self.shards {
            let position = state.position.map_or_else(|| "-".to_owned(), |at| at.to_string());
            writeln!(
                text,
                "{:>5} {position:>14} {:>10} {:>10.0} {:>6}  {:<20}  {}",
                state.shard,
                count(lag),
                lag.seconds,
                state.epoch,
                time(state.checkpoint_at),
                state.owner.as_deref().unwrap_or("no relay")
            )?;
        }
        let DeploymentState {
            unfenced_transactional_ids: unfenced,
            outbox_partitions: partitions,
            droppable_partitions: droppable,
            ..
        } = &self.state;
        writeln!(
            text,
            "{} events wait to be published, the oldest for {:.0} s",
            count(&self.lag),
            self.lag.seconds
        )?;
        writeln!(text, "{partitions} partitions of the outbox, {droppable} of them published")?;
        for holder in self.outbox_holders.iter().filter(|of| of.kept_partitions > 0) {
            let hint =
                if holder.relays == 0 { "; if it has ended: `annals-relay forget`" } else { "" };
            writeln!(text, "  {holder}{hint}")?;
        }
        if *unfenced > 0 {
            writeln!(text, "{unfenced} transactional ids of earlier owners are not fenced yet")?;
        }
        let quarantined: i64 = self.quarantine.iter().map(|of| of.entries).sum();
        if quarantined > 0 {
            writeln!(
                text,
                "{quarantined} streams or categories are quarantined: see `annals-relay quarantine list`"
            )?;
        }
        Ok(())
    }

    fn write_categories(&self, text: &mut String) -> std::fmt::Result {
        if self.categories.is_empty() {
            return Ok(());
        }
        let mut categories: Vec<_> = self.categories.iter().collect();
        categories.sort_by(|(_, a), (_, b)| b.seconds.total_cmp(&a.seconds));
        writeln!(text, "\n{:>10} {:>10}  category", "waiting", "seconds")?;
        for (category, lag) in categories.iter().take(CATEGORIES_PRINTED_MAX) {
            writeln!(text, "{:>10} {:>10.0}  {category}", count(lag), lag.seconds)?;
        }
        match categories.len().saturating_sub(CATEGORIES_PRINTED_MAX) {
            0 => Ok(()),
            more => writeln!(text, "and {more} more: see --json"),
        }
    }

    fn write_relays(&self, text: &mut String) -> std::fmt::Result {
        if self.relays.is_empty() {
            return Ok(());
        }
        writeln!(text, "\n{:<20} {:<10} {:<20}  waits for", "relay", "status", "since")?;
        for relay in &self.relays {
            let field = |name: &str| {
                let value = relay.report.as_ref().and_then(|report| report.get(name)?.as_str());
                value.unwrap_or("-").to_owned()
            };
            let error = match field("error") {
                none if none == "-" => String::new(),
                error => format!(": {error}"),
            };
            writeln!(
                text,
                "{:<20} {:<10} {:<20}  {}{error}",
                relay.instance,
                field("status"),
                field("since").split('.').next().unwrap_or_default(),
                field("waiting_for")
            )?;
        }
        Ok(())
    }

    fn write_open_transactions(&self, text: &mut String) -> std::fmt::Result {
        let is_long = |of: &&OpenTransaction| of.seconds.is_none_or(|age| age >= OPEN_SECONDS_MIN);
        let long: Vec<_> = self.open_transactions.iter().filter(is_long).collect();
        if long.is_empty() {
            return Ok(());
        }
        writeln!(text, "\nopen transactions, whose events and partitions of the outbox wait:")?;
        for of in long {
            let pid = of.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            let age = of.seconds.map_or_else(|| "unknown time".to_owned(), |s| format!("{s:.0} s"));
            let unknown = "unknown: grant pg_read_all_stats to this login";
            let query = of.query.as_deref().unwrap_or(if of.pid.is_some() { unknown } else { "-" });
            writeln!(
                text,
                "  pid {pid}, {}, {}, {}, for {age}: {}",
                of.login.as_deref().unwrap_or("-"),
                of.application.as_deref().filter(|name| !name.is_empty()).unwrap_or("-"),
                of.state.as_deref().unwrap_or("-"),
                query.split_whitespace().collect::<Vec<_>>().join(" ")
            )?;
        }
        Ok(())
    }
}

/// Why the deployment does not publish everything.
fn not_ready(shards: &[ShardState], relays: &[RelayState]) -> Vec<String> {
    let free: Vec<String> = shards
        .iter()
        .filter(|shard| shard.owner.is_none())
        .map(|shard| shard.shard.to_string())
        .collect();
    let free = (!free.is_empty()).then(|| format!("no relay owns shards {}", free.join(",")));
    let waiting = relays.iter().filter_map(|relay| {
        let report = relay.report.as_ref()?;
        let text = |name: &str| report.get(name)?.as_str();
        let status = text("status").filter(|status| *status != "ready")?;
        let what = text("waiting_for").map_or_else(String::new, |what| format!(" for {what}"));
        Some(format!(
            "relay {} is {status}{what} since {}",
            relay.instance,
            text("since").unwrap_or("-")
        ))
    });
    free.into_iter().chain(waiting).collect()
}

fn count(lag: &Lag) -> String {
    let sign = if lag.is_estimate { "~" } else { "" };
    format!("{sign}{}", lag.events)
}

fn time(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "never".to_owned(), |time| format!("{time:.0}"))
}
