//! A TCP proxy: the cable to a server, to be cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Forwards connections to a server until it is cut.
pub(crate) struct Proxy {
    /// Where to connect to.
    pub(crate) address: String,
    state: Arc<State>,
}

struct State {
    server: String,
    connected: AtomicBool,
    /// Grows with each cut; connections of an older generation end.
    generation: watch::Sender<usize>,
    /// So many more times an answer to COMMIT is withheld.
    commits_to_lose: AtomicUsize,
    accepted: watch::Sender<usize>,
}

impl Proxy {
    /// Listens on a free port; refuses connections until [`mend`](Self::mend) if not `connected`.
    pub(crate) async fn to(server: &str, connected: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State {
            server: server.to_owned(),
            connected: AtomicBool::new(connected),
            generation: watch::Sender::new(0),
            commits_to_lose: AtomicUsize::new(0),
            accepted: watch::Sender::new(0),
        });
        tokio::spawn(listen(listener, Arc::clone(&state)));
        Self { address, state }
    }

    /// Ends all connections, and every new one at once.
    pub(crate) fn cut(&self) {
        self.state.connected.store(false, Ordering::SeqCst);
        self.state.generation.send_modify(|generation| *generation += 1);
    }

    /// Lets new connections through again.
    pub(crate) fn mend(&self) {
        self.state.connected.store(true, Ordering::SeqCst);
    }

    /// The next so many commits reach the server, but their answers are lost: the connection breaks
    /// instead.
    pub(crate) fn lose_answers_to_commits(&self, commits: usize) {
        self.state.commits_to_lose.store(commits, Ordering::SeqCst);
    }

    pub(crate) fn commits_to_lose(&self) -> usize {
        self.state.commits_to_lose.load(Ordering::SeqCst)
    }

    /// Waits until so many connections were tried, those included that were refused.
    pub(crate) async fn accepted(&self, connections: usize) {
        let mut accepted = self.state.accepted.subscribe();
        accepted.wait_for(|accepted| *accepted >= connections).await.unwrap();
    }
}

async fn listen(listener: TcpListener, state: Arc<State>) {
    while let Ok((client, _)) = listener.accept().await {
        state.accepted.send_modify(|accepted| *accepted += 1);
        if state.connected.load(Ordering::SeqCst) {
            tokio::spawn(forward(client, Arc::clone(&state)));
        }
    }
}

async fn forward(client: TcpStream, state: Arc<State>) {
    let mut cut = state.generation.subscribe();
    cut.mark_unchanged();
    let Ok(server) = TcpStream::connect(&state.server).await else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let losing = Arc::new(AtomicBool::new(false));
    tokio::select! {
        _ = cut.changed() => {}
        () = pump(from_client, to_server, |bytes| {
            let commit = bytes.windows(6).any(|text| text == b"COMMIT");
            if commit && take_one(&state.commits_to_lose) {
                losing.store(true, Ordering::SeqCst);
            }
            true
        }) => {}
        // The server has committed when it answers; then the answer is lost.
        () = pump(from_server, to_client, |_bytes| !losing.load(Ordering::SeqCst)) => {}
    }
}

/// Passes bytes on until either side ends or `pass` refuses.
async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    pass: impl Fn(&[u8]) -> bool,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if !pass(&buffer[..count]) || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

fn take_one(counter: &AtomicUsize) -> bool {
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}
