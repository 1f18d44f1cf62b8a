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

use crate::connections::url::refuses_session_options;
use crate::statements::{SchemaName, Statements};

/// Minimum time between two notifications.
const NOTIFY_INTERVAL: Duration = Duration::from_millis(10);
/// Pause after a failed connection to the server.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);
/// Pause after a connection through a pooler, which passes no notifications.
const POOLER_PAUSE: Duration = Duration::from_secs(60);

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
    has_own_session: SqlStr,
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
        statements: &Statements,
        policy: NotifyPolicy,
    ) -> Self {
        Self {
            policy,
            pool: pool.clone(),
            channel: format!("{schema}_appended"),
            statement: statements.notify.clone(),
            has_own_session: statements.has_own_session.clone(),
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
            let listener = listen(
                connect_options(&self.pool),
                self.has_own_session.clone(),
                self.channel.clone(),
                sender,
            );
            let task = tokio::spawn(listener);
            (receiver, Task(task.abort_handle()))
        });
        receiver.clone()
    }
}

/// Options for connections outside the pool: a notification and an append do not wait for each
/// other.
pub(crate) fn connect_options(pool: &PgPool) -> PgConnectOptions {
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

/// Connects for notifications; none if a connection pooler is in between.
///
/// A pooler in transaction mode would execute `LISTEN` in the session of some transaction, and that
/// session's notifications would reach the next client in the middle of its statements. Poolers
/// refuse or ignore options at the start of a session, and by this they are recognized.
pub(crate) async fn connect_listener(
    options: PgConnectOptions,
    has_own_session: SqlStr,
) -> Result<Option<PgListener>, sqlx::Error> {
    let options = options.options([("annals_listener.has_own_session", "on")]);
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
    let mut listener = match PgListener::connect_with(&pool).await {
        Ok(listener) => listener,
        Err(error) if refuses_session_options(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let has_own: bool = sqlx::query_scalar(has_own_session).fetch_one(&mut listener).await?;
    Ok(has_own.then_some(listener))
}

async fn listen(
    options: PgConnectOptions,
    has_own_session: SqlStr,
    channel: String,
    notified: watch::Sender<()>,
) {
    loop {
        let pause = match connect_listener(options.clone(), has_own_session.clone()).await {
            Ok(Some(listener)) => {
                if let Err(error) = listen_until_disconnected(listener, &channel, &notified).await {
                    log("no notifications of appends, polling until reconnected", &error);
                }
                RECONNECT_PAUSE
            }
            Ok(None) => POOLER_PAUSE,
            Err(error) => {
                log("cannot listen for notifications of appends, polling meanwhile", &error);
                RECONNECT_PAUSE
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn listen_until_disconnected(
    mut listener: PgListener,
    channel: &str,
    notified: &watch::Sender<()>,
) -> Result<(), sqlx::Error> {
    listener.listen(channel).await?;
    loop {
        // None: the connection was lost, and with it possibly a notification.
        listener.try_recv().await?;
        notified.send_replace(());
    }
}
