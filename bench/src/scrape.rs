//! A Prometheus that scrapes a relay often.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Fifteen times as often as Prometheus does by default.
const INTERVAL: Duration = Duration::from_secs(1);

/// Scrapes until it is stopped.
#[derive(Debug)]
pub(crate) struct Scraper(JoinHandle<anyhow::Result<()>>);

impl Scraper {
    /// Begins.
    pub(crate) fn start(address: SocketAddr) -> Self {
        Self(tokio::spawn(async move {
            let mut ticks = tokio::time::interval(INTERVAL);
            loop {
                ticks.tick().await;
                scrape(address).await?;
            }
        }))
    }

    /// Ends; an error if a scrape failed.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.0.abort();
        match self.0.await {
            Ok(failed) => failed,
            Err(_aborted) => Ok(()),
        }
    }
}

async fn scrape(address: SocketAddr) -> anyhow::Result<()> {
    let mut connection = TcpStream::connect(address).await.context("connect to the relay")?;
    connection
        .write_all(b"GET /metrics HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\r\n")
        .await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    anyhow::ensure!(answer.contains("annals_relay_"), "no metrics: {answer}");
    Ok(())
}
