//! Notifications of appends, of changed leases and of operators' requests, by LISTEN on a
//! connection of its own. The next poll finds the events of a lost notification.

use std::time::Duration;

use annals_store::Store;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// The channel of changes to deployments, with the publication's name as payload.
const DEPLOYMENT_CHANNEL: &str = "annals_relay";
/// The pause after a failed or lost connection.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// The subject of a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notification {
    /// An append.
    Append,
    /// A shard became free, a lease expired, or an operator requested something.
    Deployment,
}

/// Which notifications are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Both kinds.
    All,
    /// Those of the deployment.
    Deployment,
}

/// Receives notifications.
#[derive(Debug)]
pub(crate) struct Listener {
    appends: watch::Receiver<()>,
    deployment: watch::Receiver<()>,
    task: AbortHandle,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The other ends of its channels.
struct Channels {
    appends: watch::Sender<()>,
    deployment: watch::Sender<()>,
}

impl Listener {
    pub(crate) fn start(store: &Store, publication: &str) -> Self {
        let (appends, deployment) = (watch::channel(()), watch::channel(()));
        let channels = Channels { appends: appends.0, deployment: deployment.0 };
        let options = PgConnectOptions::clone(&store.pool().connect_options());
        let channel = store.notify_channel().to_owned();
        let task = listen(options, channel, publication.to_owned(), channels);
        let task = tokio::spawn(task).abort_handle();
        Self { appends: appends.1, deployment: deployment.1, task }
    }

    /// Waits for the next notification.
    pub(crate) async fn next(&mut self, wanted: Wanted) -> Notification {
        tokio::select! {
            () = changed(&mut self.deployment) => Notification::Deployment,
            () = changed(&mut self.appends), if wanted == Wanted::All => Notification::Append,
        }
    }
}

async fn changed(receiver: &mut watch::Receiver<()>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn listen(
    options: PgConnectOptions,
    channel: String,
    publication: String,
    channels: Channels,
) {
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
    loop {
        if let Ok(mut listener) = PgListener::connect_with(&pool).await {
            let ended = listen_once(&mut listener, &channel, &publication, &channels).await;
            tracing::debug!(?ended, "the connection for notifications was lost: polling meanwhile");
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

async fn listen_once(
    listener: &mut PgListener,
    channel: &str,
    publication: &str,
    channels: &Channels,
) -> Result<(), sqlx::Error> {
    listener.listen_all([channel, DEPLOYMENT_CHANNEL]).await?;
    loop {
        match listener.try_recv().await? {
            Some(notice) if notice.channel() == DEPLOYMENT_CHANNEL => {
                if notice.payload() == publication {
                    channels.deployment.send_replace(());
                }
            }
            Some(_) => {
                channels.appends.send_replace(());
            }
            // The connection was lost, and perhaps notifications with it.
            None => {
                channels.deployment.send_replace(());
                channels.appends.send_replace(());
            }
        }
    }
}
