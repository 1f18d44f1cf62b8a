//! Debezium's Kafka Connect process: distributed, because only this mode supports exactly once.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use annals_testkit::Environment;
use anyhow::Context;
use serde_json::Value;
use tokio::process::{Child, Command};
use uuid::Uuid;

use super::http::ask;
use crate::kafka::delete_topic;
use crate::process::{self, Used};

/// It creates these topics for its state.
const TOPICS: [&str; 3] = ["configs", "offsets", "status"];
/// Twice its measured need.
const HEAP: &str = "-Xmx1g";
const START_DEADLINE: Duration = Duration::from_secs(60);
const STOP_DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);

/// A running worker. Dropping it kills it.
pub(crate) struct Worker {
    child: Child,
    pid: u32,
    port: u16,
    group: String,
    log: PathBuf,
}

impl Worker {
    /// Starts it, and waits until it answers.
    pub(crate) async fn start(installed: &Path, directory: &Path) -> anyhow::Result<Self> {
        let libraries = installed.join("libs");
        anyhow::ensure!(
            libraries.exists(),
            "there is no {}: run bench/peers/install debezium first, or use bench/run",
            libraries.display()
        );
        let group = format!("bench-connect-{}", Uuid::new_v4().simple());
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let path = directory.join(format!("{group}.properties"));
        std::fs::write(&path, properties(&group, port))?;
        let log = directory.join(format!("{group}.log"));
        let output = File::create(&log)?;
        let child = Command::new("java")
            .arg(HEAP)
            .arg(format!(
                "-Dlog4j2.configurationFile={}",
                installed.join("log4j2.properties").display()
            ))
            .arg("-cp")
            .arg(libraries.join("*"))
            .arg("org.apache.kafka.connect.cli.ConnectDistributed")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .context("start Kafka Connect")?;
        let pid = child.id().context("find the process of Kafka Connect")?;
        let worker = Self { child, pid, port, group, log };
        worker.until_it_answers().await?;
        std::fs::remove_file(path)?;
        Ok(worker)
    }

    async fn until_it_answers(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        while let Err(error) = ask(self.port, "GET", "/connectors", "").await {
            if began.elapsed() > START_DEADLINE {
                return Err(error.context(self.where_log_is()));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Starts a connector; returns before it publishes.
    pub(crate) async fn connect(&self, name: &str, settings: &Value) -> anyhow::Result<()> {
        let (path, settings) = (format!("/connectors/{name}/config"), settings.to_string());
        let began = Instant::now();
        // After another connector's end it is busy for a moment, and answers so.
        while let Err(error) = ask(self.port, "PUT", &path, &settings).await {
            if began.elapsed() > START_DEADLINE {
                return Err(error.context(self.where_log_is()));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Ends a connector.
    pub(crate) async fn disconnect(&self, name: &str) -> anyhow::Result<()> {
        ask(self.port, "DELETE", &format!("/connectors/{name}"), "").await.map(drop)
    }

    /// Its resource use since its start.
    pub(crate) fn used(&self) -> anyhow::Result<Used> {
        Used::by(self.pid)
    }

    fn where_log_is(&self) -> String {
        format!("the log of Kafka Connect is {}", self.log.display())
    }

    /// Ends it, and removes its state.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        process::signal(self.pid, "-TERM")?;
        let ended = tokio::time::timeout(STOP_DEADLINE, self.child.wait()).await;
        ended.with_context(|| self.where_log_is())??;
        for topic in TOPICS {
            delete_topic(&Environment::get().kafka, &format!("{}-{topic}", self.group)).await?;
        }
        Ok(std::fs::remove_file(&self.log)?)
    }
}

fn properties(group: &str, port: u16) -> String {
    let brokers = &Environment::get().kafka;
    format!(
        "bootstrap.servers={brokers}\n\
         group.id={group}\n\
         exactly.once.source.support=enabled\n\
         config.storage.topic={group}-configs\n\
         offset.storage.topic={group}-offsets\n\
         status.storage.topic={group}-status\n\
         config.storage.replication.factor=-1\n\
         offset.storage.replication.factor=-1\n\
         status.storage.replication.factor=-1\n\
         offset.storage.partitions=1\n\
         status.storage.partitions=1\n\
         offset.flush.interval.ms=1000\n\
         scheduled.rebalance.max.delay.ms=0\n\
         connector.client.config.override.policy=All\n\
         plugin.discovery=service_load\n\
         listeners=http://127.0.0.1:{port}\n\
         key.converter=org.apache.kafka.connect.storage.StringConverter\n\
         value.converter=org.apache.kafka.connect.converters.ByteArrayConverter\n"
    )
}
