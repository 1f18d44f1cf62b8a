//! An HTTP service on the event store. `ops/dev/dev with -- cargo run -p annals-axum` runs it on
//! the development stack; then:
//!
//! ```sh
//! curl -X POST localhost:8080/accounts/ann -H 'content-type: application/json' \
//!   -H "idempotency-key: $(uuidgen)" -d '{"owner": "Ann"}'
//! curl localhost:8080/accounts/ann
//! ```
//!
//! `account.rs` has the domain, `balances.rs` the read model, `service.rs` the routes.

mod account;
mod balances;
mod service;
#[cfg(test)]
mod tests;

use std::future::Future;

use annals_store::{Store, StoreOptions};
use anyhow::{Context, Result};
use tokio::net::TcpListener;

use crate::balances::Balances;

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::var("ANNALS_DATABASE_URL").context("ANNALS_DATABASE_URL is not set")?;
    let address = std::env::var("ANNALS_HTTP").unwrap_or_else(|_unset| "127.0.0.1:8080".to_owned());
    let listener = TcpListener::bind(&address).await.context("listen")?;
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    serve(&url, listener, stop).await
}

/// Serves until `stop` completes, and runs the projection beside it.
async fn serve(
    url: &str,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let options = StoreOptions::default().trace_context(service::current_trace);
    let store: Store = options.connect(url).await?;
    store.migrate().await?;
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let runner = store.project(Balances);
    let runner = tokio::spawn(runner.run(async { drop(ended.await) }));
    let routes = service::routes(store.clone());
    let served = axum::serve(listener, routes).with_graceful_shutdown(stop).await;
    drop(end);
    runner.await??;
    store.close().await;
    Ok(served?)
}
