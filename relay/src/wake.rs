//! What wakes a relay before its time: an append, a change of the leases, or a wish about what is held. All come by LISTEN, on a connection of
//! their own; what is missed is found by the next look.

use std::time::Duration;

use annals_store::Store;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Where changes of leases are told, with the publication's name.
const LEASES: &str = "annals_relay";
/// How long a server is left alone that could not be listened to.
const REST: Duration = Duration::from_secs(1);

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// Something was appended.
    Appended,
    /// Shards are free, a lease is over, or somebody asked for something.
    Told,
}

/// Hears of what happens.
#[derive(Debug)]
pub(crate) struct Wake {
    appended: watch::Receiver<()>,
    leases: watch::Receiver<()>,
    listener: AbortHandle,
}

impl Drop for Wake {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// The other end.
struct Heard {
    appended: watch::Sender<()>,
    leases: watch::Sender<()>,
}

impl Wake {
    pub(crate) fn listen(store: &Store, publication: &str) -> Self {
        let (appended, leases) = (watch::channel(()), watch::channel(()));
        let heard = Heard { appended: appended.0, leases: leases.0 };
        let options = PgConnectOptions::clone(&store.pool().connect_options());
        let channel = store.notify_channel().to_owned();
        let listener = listen(options, channel, publication.to_owned(), heard);
        let listener = tokio::spawn(listener).abort_handle();
        Self { appended: appended.1, leases: leases.1, listener }
    }

    /// Waits for what happens next; for appends only if they are waited for.
    pub(crate) async fn next(&mut self, appends: bool) -> Woken {
        tokio::select! {
            () = heard(&mut self.leases) => Woken::Told,
            () = heard(&mut self.appended), if appends => Woken::Appended,
        }
    }
}

async fn heard(receiver: &mut watch::Receiver<()>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn listen(options: PgConnectOptions, channel: String, publication: String, heard: Heard) {
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
    loop {
        if let Ok(mut listener) = PgListener::connect_with(&pool).await {
            let ended = listen_once(&mut listener, &channel, &publication, &heard).await;
            tracing::debug!(?ended, "not hearing of appends, looking for them meanwhile");
        }
        tokio::time::sleep(REST).await;
    }
}

async fn listen_once(
    listener: &mut PgListener,
    channel: &str,
    publication: &str,
    heard: &Heard,
) -> Result<(), sqlx::Error> {
    listener.listen_all([channel, LEASES]).await?;
    loop {
        match listener.try_recv().await? {
            Some(notice) if notice.channel() == LEASES => {
                if notice.payload() == publication {
                    heard.leases.send_replace(());
                }
            }
            Some(_) => {
                heard.appended.send_replace(());
            }
            // The connection was lost, and so perhaps a notice.
            None => {
                heard.leases.send_replace(());
                heard.appended.send_replace(());
            }
        }
    }
}
