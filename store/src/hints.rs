//! Hints: "something was appended", from whoever appends to whoever follows, in whatever process.
//!
//! Never on the way of an append: `NOTIFY` makes transactions commit one after the other. It goes out after the
//! commit, on a connection of its own, a few times a second at most. A hint that is lost delays a follower until its
//! next look.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool, SqlStr};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use crate::sql::SchemaName;
use crate::store::Store;

/// Shortest time from one hint to the next.
const HINT_INTERVAL: Duration = Duration::from_millis(10);
/// How long to leave a server alone that could not be reached.
const REST: Duration = Duration::from_secs(1);

/// Both ends, each begun when it is first needed and ended with the store.
#[derive(Debug)]
pub(crate) struct Hints {
    is_on: bool,
    pool: PgPool,
    channel: String,
    statement: SqlStr,
    appended: Arc<Notify>,
    sender: OnceLock<Task>,
    listener: OnceLock<(watch::Receiver<()>, Task)>,
}

/// A task that ends with whoever holds this.
#[derive(Debug)]
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Hints {
    pub(crate) fn new(pool: &PgPool, schema: &SchemaName, statement: SqlStr, is_on: bool) -> Self {
        Self {
            is_on,
            pool: pool.clone(),
            channel: format!("{schema}_appended"),
            statement,
            appended: Arc::default(),
            sender: OnceLock::new(),
            listener: OnceLock::new(),
        }
    }

    fn send(&self) {
        if !self.is_on {
            return;
        }
        self.sender.get_or_init(|| {
            let sender = Sender {
                options: own(&self.pool),
                channel: self.channel.clone(),
                statement: self.statement.clone(),
                appended: Arc::clone(&self.appended),
            };
            Task(tokio::spawn(sender.run()).abort_handle())
        });
        self.appended.notify_one();
    }

    /// What changes with each hint; never, where hints are off.
    fn listen(&self) -> watch::Receiver<()> {
        if !self.is_on {
            return watch::channel(()).1;
        }
        let (receiver, _task) = self.listener.get_or_init(|| {
            let (sender, receiver) = watch::channel(());
            let task = tokio::spawn(listen(own(&self.pool), self.channel.clone(), sender));
            (receiver, Task(task.abort_handle()))
        });
        receiver.clone()
    }
}

impl Store {
    /// Wakes followers, in this process and in others: for after the commit of a transaction that has used
    /// [`append_in`](Self::append_in). [`append`](Self::append) does it by itself. Costs the caller nothing, and sends at
    /// most one hint every 10 ms.
    pub fn wake_followers(&self) {
        self.hints_of_store().send();
    }

    /// The channel of `NOTIFY` on which these hints come, for whoever listens on a connection of its own.
    #[must_use]
    pub fn hint_channel(&self) -> &str {
        &self.hints_of_store().channel
    }

    pub(crate) fn hints(&self) -> watch::Receiver<()> {
        self.hints_of_store().listen()
    }
}

/// Connections beside the pool: a hint must not wait for an append, nor the other way round.
fn own(pool: &PgPool) -> PgConnectOptions {
    PgConnectOptions::clone(&pool.connect_options())
}

struct Sender {
    options: PgConnectOptions,
    channel: String,
    statement: SqlStr,
    appended: Arc<Notify>,
}

impl Sender {
    async fn run(self) {
        let mut connection = None;
        loop {
            self.appended.notified().await;
            match self.hint(connection.take()).await {
                Ok(connected) => connection = Some(connected),
                Err(error) => {
                    log("could not wake followers, they will look by themselves", &error);
                    tokio::time::sleep(REST).await;
                }
            }
            tokio::time::sleep(HINT_INTERVAL).await;
        }
    }

    async fn hint(&self, connection: Option<PgConnection>) -> Result<PgConnection, sqlx::Error> {
        let mut connection = match connection {
            Some(connection) => connection,
            None => PgConnection::connect_with(&self.options).await?,
        };
        let query = sqlx::query(self.statement.clone()).bind(&self.channel);
        query.execute(&mut connection).await?;
        Ok(connection)
    }
}

fn log(what: &str, error: &sqlx::Error) {
    tracing::debug!(error = error as &dyn std::error::Error, "{what}");
}

async fn listen(options: PgConnectOptions, channel: String, heard: watch::Sender<()>) {
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
    loop {
        if let Err(error) = listen_once(&pool, &channel, &heard).await {
            log("cannot hear of appends, looking for them meanwhile", &error);
        }
        tokio::time::sleep(REST).await;
    }
}

async fn listen_once(
    pool: &PgPool,
    channel: &str,
    heard: &watch::Sender<()>,
) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(channel).await?;
    loop {
        // None: the connection was lost, and so perhaps a hint.
        listener.try_recv().await?;
        heard.send_replace(());
    }
}
