//! A service that embeds the store and exports its metrics for Prometheus: appends, reads, and
//! prints what `/metrics` would answer.
//!
//! `ops/dev/dev with postgres -- cargo run --package annals-store --example metrics`

use std::io::Write;

use annals_store::{Read, Store, telemetry};
use anyhow::Context;
use futures_util::TryStreamExt;
use metrics_exporter_prometheus::PrometheusBuilder;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // First, since the store records from its first call on.
    let exporter =
        PrometheusBuilder::new().set_buckets(&telemetry::DURATION_BUCKETS)?.install_recorder()?;
    telemetry::describe();

    let url = std::env::var("ANNALS_DATABASE_URL")
        .context("ANNALS_DATABASE_URL says which database to use; `ops/dev/dev with` sets it")?;
    let store = Store::connect(&url).await?;
    store.migrate().await?;
    let first = std::pin::pin!(store.read(Read::all())).try_next().await?;
    let first = first.map_or_else(|| "none".to_owned(), |event| event.stream.to_string());
    let mut out = std::io::stdout();
    writeln!(out, "# the first event is of stream {first}")?;

    // In a service, the handler of `/metrics` returns this text.
    out.write_all(exporter.render().as_bytes())?;
    store.close().await;
    Ok(())
}
