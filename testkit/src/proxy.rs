//! A TCP proxy in front of PostgreSQL that counts round trips.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::follow::DEADLINE;
use crate::must::Must;

const BUFFER_BYTES: usize = 65_536;

/// Forwards connections to a PostgreSQL server and counts round trips: each time that a client
/// sends after the server has answered, over all connections.
///
/// On a current-thread runtime nothing is forwarded while a test's own task runs, so that the task
/// reaches each of its await points with the answer outstanding, on any machine.
#[derive(Debug)]
pub struct CountingProxy {
    port: u16,
    wire: watch::Sender<Wire>,
    loses: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Wire {
    /// The types of the protocol messages that began each round trip.
    round_trips: Vec<String>,
    /// Connections whose client sent last.
    unanswered: usize,
}

impl CountingProxy {
    /// Starts a proxy in front of the server of a database URL.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start(database_url: &str) -> Self {
        let server = server_of(database_url);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.must("listen as a proxy");
        let port = listener.local_addr().must("listen as a proxy").port();
        let wire = watch::Sender::new(Wire::default());
        let loses = Arc::<AtomicBool>::default();
        let task = tokio::spawn(accept(listener, server, wire.clone(), Arc::clone(&loses)));
        Self { port, wire, loses, task }
    }

    /// The same database through the proxy. Without TLS, which the proxy could not read.
    #[must_use]
    pub fn url(&self, database_url: &str) -> String {
        let server = server_of(database_url);
        let (address, _options) = database_url.split_once('?').unwrap_or((database_url, ""));
        let through = address.replacen(&server, &format!("127.0.0.1:{}", self.port), 1);
        format!("{through}?sslmode=disable")
    }

    /// Waits until every request has been answered, including requests that spawned tasks of a
    /// current-thread runtime are about to send; returns the number of round trips.
    ///
    /// # Panics
    /// If an answer does not come.
    pub async fn quiet(&self) -> usize {
        // Lets every ready task run, so that its requests are seen.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let mut wire = self.wire.subscribe();
        let answered =
            tokio::time::timeout(DEADLINE, wire.wait_for(|wire| wire.unanswered == 0)).await;
        answered.must("wait for the server").must("wait for the server").round_trips.len()
    }

    /// Loses the server's next answer and breaks its connection: the server executes the request,
    /// and the client receives no answer.
    pub fn lose_next_answer(&self) {
        self.loses.store(true, Ordering::SeqCst);
    }

    /// The round trips after the first `skip` ones, each as the types of the protocol messages that
    /// began it: `BES` is bind, execute, sync; `S` alone a ping.
    #[must_use]
    pub fn round_trips_after(&self, skip: usize) -> Vec<String> {
        self.wire.borrow().round_trips.iter().skip(skip).cloned().collect()
    }
}

impl Drop for CountingProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// `host:port` of a database URL.
fn server_of(database_url: &str) -> String {
    let rest = database_url.split_once("://").map_or(database_url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    let server = authority.rsplit_once('@').map_or(authority, |(_, server)| server);
    server.to_owned()
}

async fn accept(
    listener: TcpListener,
    server: String,
    wire: watch::Sender<Wire>,
    loses: Arc<AtomicBool>,
) {
    loop {
        let (client, _) = listener.accept().await.must("accept a client of the proxy");
        let server = TcpStream::connect(&server).await.must("reach the server behind the proxy");
        client.set_nodelay(true).must("set up a proxied connection");
        server.set_nodelay(true).must("set up a proxied connection");
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let turn =
            Turn { is_clients: Arc::default(), wire: wire.clone(), loses: Arc::clone(&loses) };
        tokio::spawn(forward_requests(from_client, to_server, turn.clone()));
        tokio::spawn(forward_answers(from_server, to_client, turn));
    }
}

/// The side of one connection that sent last.
#[derive(Debug, Clone)]
struct Turn {
    is_clients: Arc<AtomicBool>,
    wire: watch::Sender<Wire>,
    loses: Arc<AtomicBool>,
}

impl Turn {
    fn request(&self, bytes: &[u8]) {
        if !self.is_clients.swap(true, Ordering::SeqCst) {
            self.wire.send_modify(|wire| {
                wire.round_trips.push(message_types(bytes));
                wire.unanswered += 1;
            });
        }
    }

    fn answer(&self) {
        if self.is_clients.swap(false, Ordering::SeqCst) {
            self.wire.send_modify(|wire| wire.unanswered -= 1);
        }
    }
}

/// The one-letter types of the messages that begin in these bytes; `^` for a message without a
/// type, at a connection's start.
fn message_types(mut bytes: &[u8]) -> String {
    let mut types = String::new();
    while let [kind, a, b, c, d, ..] = *bytes {
        if kind == 0 {
            return "^".to_owned();
        }
        types.push(char::from(kind));
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        bytes = bytes.get(length.saturating_add(1)..).unwrap_or_default();
    }
    types
}

async fn forward_requests(mut client: OwnedReadHalf, mut server: OwnedWriteHalf, turn: Turn) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(length @ 1..) = client.read(&mut buffer).await {
        turn.request(&buffer[..length]);
        if server.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    turn.answer();
}

async fn forward_answers(mut server: OwnedReadHalf, mut client: OwnedWriteHalf, turn: Turn) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(length @ 1..) = server.read(&mut buffer).await {
        turn.answer();
        // Returning closes the client's side: the rest of the answer is lost, too.
        if turn.loses.swap(false, Ordering::SeqCst)
            || client.write_all(&buffer[..length]).await.is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_of_a_url_is_found() {
        for url in ["postgres://a:b@host:1/db", "postgres://host:1/db?x=y", "postgres://host:1"] {
            assert_eq!(server_of(url), "host:1", "{url}");
        }
    }

    #[test]
    fn messages_are_told_by_their_types() {
        assert_eq!(message_types(b"B\0\0\0\x05xE\0\0\0\x04S\0\0\0\x04"), "BES");
        assert_eq!(message_types(&[0, 0, 0, 8, 4, 210, 22, 47]), "^");
        assert_eq!(message_types(b"B\0\0\xff\xff cut off"), "B");
    }
}
