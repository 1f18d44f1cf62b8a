//! Notifications of appends, of changed leases and of operators' requests, by LISTEN on a
//! connection of its own. The next poll finds the events of a lost notification.

use std::time::Duration;

use annals_store::Store;
use sqlx::postgres::PgListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// The channel of changes to deployments, with the publication's name as payload.
const DEPLOYMENT_CHANNEL: &str = "annals_relay";
/// The pause after a failed or lost connection.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);
/// The pause after a connection through a pooler, which passes no notifications.
const POOLER_PAUSE: Duration = Duration::from_secs(60);

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
        let task = listen(store.clone(), publication.to_owned(), channels);
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

async fn listen(store: Store, publication: String, channels: Channels) {
    let channel = store.notify_channel();
    loop {
        let pause = match store.connect_listener().await {
            Ok(Some(mut listener)) => {
                let ended = listen_once(&mut listener, channel, &publication, &channels).await;
                tracing::debug!(?ended, "no connection for notifications: polling meanwhile");
                RECONNECT_PAUSE
            }
            Ok(None) => POOLER_PAUSE,
            Err(_unreached) => RECONNECT_PAUSE,
        };
        tokio::time::sleep(pause).await;
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
