//! Notifications of appends: `NOTIFY` from each process that appends to each process that follows.
//!
//! Never inside an append: `NOTIFY` serializes the commits of transactions. The notification is
//! sent after the commit, on its own connection, at most once in 10 ms. A lost notification delays
//! a follower until its next poll.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool, SqlStr};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use crate::statements::SchemaName;

/// Minimum time between two notifications.
const NOTIFY_INTERVAL: Duration = Duration::from_millis(10);
/// Pause after a failed connection to the server.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// Whether a store sends and receives notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotifyPolicy {
    Notify,
    PollOnly,
}

/// Sender and listener, each started at its first use and stopped with the store.
#[derive(Debug)]
pub(crate) struct Notifications {
    policy: NotifyPolicy,
    pool: PgPool,
    channel: String,
    statement: SqlStr,
    appended: Arc<Notify>,
    sender: OnceLock<Task>,
    listener: OnceLock<(watch::Receiver<()>, Task)>,
}

/// A task that is aborted when this handle is dropped.
#[derive(Debug)]
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Notifications {
    pub(crate) fn new(
        pool: &PgPool,
        schema: &SchemaName,
        statement: SqlStr,
        policy: NotifyPolicy,
    ) -> Self {
        Self {
            policy,
            pool: pool.clone(),
            channel: format!("{schema}_appended"),
            statement,
            appended: Arc::default(),
            sender: OnceLock::new(),
            listener: OnceLock::new(),
        }
    }

    /// The channel of `NOTIFY`.
    pub(crate) fn channel(&self) -> &str {
        &self.channel
    }

    /// Notifies the followers of all processes.
    pub(crate) fn notify(&self) {
        if self.policy == NotifyPolicy::PollOnly {
            return;
        }
        self.sender.get_or_init(|| {
            let sender = NotifySender {
                options: connect_options(&self.pool),
                channel: self.channel.clone(),
                statement: self.statement.clone(),
                appended: Arc::clone(&self.appended),
            };
            Task(tokio::spawn(sender.run()).abort_handle())
        });
        self.appended.notify_one();
    }

    /// A receiver that changes with each notification; it never changes if notifications are off.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        if self.policy == NotifyPolicy::PollOnly {
            return watch::channel(()).1;
        }
        let (receiver, _task) = self.listener.get_or_init(|| {
            let (sender, receiver) = watch::channel(());
            let listener = listen(connect_options(&self.pool), self.channel.clone(), sender);
            let task = tokio::spawn(listener);
            (receiver, Task(task.abort_handle()))
        });
        receiver.clone()
    }
}

/// Options for connections outside the pool: a notification and an append do not wait for each
/// other.
fn connect_options(pool: &PgPool) -> PgConnectOptions {
    PgConnectOptions::clone(&pool.connect_options())
}

struct NotifySender {
    options: PgConnectOptions,
    channel: String,
    statement: SqlStr,
    appended: Arc<Notify>,
}

impl NotifySender {
    async fn run(self) {
        let mut connection = None;
        loop {
            self.appended.notified().await;
            match self.notify(connection.take()).await {
                Ok(connected) => connection = Some(connected),
                Err(error) => {
                    log("could not notify followers, they find events at their next poll", &error);
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                }
            }
            tokio::time::sleep(NOTIFY_INTERVAL).await;
        }
    }

    async fn notify(&self, connection: Option<PgConnection>) -> Result<PgConnection, sqlx::Error> {
        let mut connection = match connection {
            Some(connection) => connection,
            None => PgConnection::connect_with(&self.options).await?,
        };
        let query = sqlx::query(self.statement.clone()).bind(&self.channel);
        query.execute(&mut connection).await?;
        Ok(connection)
    }
}

fn log(message: &str, error: &sqlx::Error) {
    tracing::debug!(error = error as &dyn std::error::Error, "{message}");
}

async fn listen(options: PgConnectOptions, channel: String, notified: watch::Sender<()>) {
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
    loop {
        if let Err(error) = listen_until_disconnected(&pool, &channel, &notified).await {
            log("cannot listen for notifications of appends, polling until reconnected", &error);
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

async fn listen_until_disconnected(
    pool: &PgPool,
    channel: &str,
    notified: &watch::Sender<()>,
) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(channel).await?;
    loop {
        // None: the connection was lost, and with it possibly a notification.
        listener.try_recv().await?;
        notified.send_replace(());
    }
}
