//! A TCP proxy between a client and a server, for tests that break the network or count round
//! trips.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::follow::DEADLINE;
use crate::link_connection::{Losses, Path, Protocol, connect};
use crate::link_state::{Flow, State};
use crate::must::Must;
use crate::round_trips::RoundTrips;

/// The API keys of Kafka's requests to add partitions to a transaction and to end one.
const ADD_PARTITIONS_TO_TXN: i16 = 24;
const END_TXN: i16 = 26;

/// A proxy that can be cut, fall silent, lose answers, and be mended.
///
/// On a current-thread runtime it forwards nothing while a test's own task runs. So the test
/// reaches each of its await points with the answer outstanding, however busy the machine is.
#[derive(Debug)]
pub struct FaultyLink {
    port: u16,
    server: watch::Sender<Arc<str>>,
    state: watch::Sender<State>,
    connections: watch::Sender<usize>,
    held: watch::Sender<usize>,
    losses: Arc<Losses>,
    round_trips: RoundTrips,
    task: JoinHandle<()>,
}

impl FaultyLink {
    /// A link to `host:port`, of any protocol.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn to(server: &str) -> Self {
        Self::start(server, Protocol::Any).await
    }

    /// A link to the server of a URL such as `postgres://user:password@host:port/database`, and the
    /// URL through it, with `sslmode=disable`: it could not observe TLS.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn before(url: &str) -> (Self, String) {
        let link = Self::to(&server_of(url)).await;
        let through = link.url(url);
        (link, through)
    }

    /// A link to the server of an `http` URL, and the URL through it.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn before_http(url: &str) -> (Self, String) {
        let server = server_of(url);
        let link = Self::to(&server).await;
        let through = url.replacen(&server, &link.address(), 1);
        (link, through)
    }

    /// A link to a broker, which has to advertise the link's port.
    pub(crate) async fn to_broker(server: &str) -> Self {
        Self::start(server, Protocol::Kafka).await
    }

    async fn start(server: &str, protocol: Protocol) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.must("listen as a link");
        let port = listener.local_addr().must("listen as a link").port();
        let state = watch::Sender::new(State {
            flow: Flow::Open,
            holds: None,
            cuts: 0,
            bytes_per_second: None,
            delay: Duration::ZERO,
        });
        let (held, connections) = (watch::Sender::new(0), watch::Sender::new(0));
        let (losses, round_trips) = (Arc::<Losses>::default(), RoundTrips::default());
        let path = Path {
            state: state.subscribe(),
            held: held.clone(),
            losses: Arc::clone(&losses),
            turn: round_trips.turn(),
            protocol,
        };
        let server = watch::Sender::new(Arc::from(server));
        let task = tokio::spawn(accept(
            listener,
            server.subscribe(),
            connections.clone(),
            path,
            round_trips.clone(),
        ));
        Self { port, server, state, connections, held, losses, round_trips, task }
    }

    /// The port to connect to, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port` to connect to.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The URL of a database of the server, through the link.
    #[must_use]
    pub fn url(&self, database_url: &str) -> String {
        let (address, _options) = database_url.split_once('?').unwrap_or((database_url, ""));
        let through = address.replacen(&server_of(database_url), &self.address(), 1);
        format!("{through}?sslmode=disable")
    }

    /// Connects to another server from the next connection on. Call it while the link is cut.
    pub fn lead_to(&self, server: &str) {
        self.server.send_replace(Arc::from(server));
    }

    /// Breaks all connections, and each new one.
    pub fn cut(&self) {
        self.state.send_modify(|state| {
            state.flow = Flow::Cut;
            state.cuts += 1;
        });
    }

    /// Forwards nothing in both directions, and keeps connections open.
    pub fn silence(&self) {
        self.state.send_modify(|state| state.flow = Flow::Silent);
    }

    /// Forwards so many bytes in a second in each direction of a connection.
    pub fn slow_down(&self, bytes_per_second: u32) {
        self.state.send_modify(|state| state.bytes_per_second = Some(bytes_per_second));
    }

    /// Forwards each answer so much later.
    pub fn delay_answers(&self, delay: Duration) {
        self.state.send_modify(|state| state.delay = delay);
    }

    /// Forwards everything again, including held requests, at full speed.
    pub fn mend(&self) {
        self.state.send_modify(|state| {
            state.flow = Flow::Open;
            state.holds = None;
            state.bytes_per_second = None;
            state.delay = Duration::ZERO;
        });
    }

    /// Holds Kafka requests to end a transaction, and all that follows them on their connections.
    pub fn hold_commits(&self) {
        self.hold(END_TXN);
    }

    /// Holds Kafka requests to add partitions to a transaction: a transaction that begins stays
    /// unknown to the broker.
    pub fn hold_new_transactions(&self) {
        self.hold(ADD_PARTITIONS_TO_TXN);
    }

    fn hold(&self, api_key: i16) {
        self.held.send_replace(0);
        self.state.send_modify(|state| state.holds = Some(api_key));
    }

    /// Waits until a request to end a transaction is held: the transaction's records are written,
    /// and it is open.
    ///
    /// # Panics
    /// If none arrives.
    pub async fn holds_a_commit(&self) {
        at_least(&self.held, 1).await.must("wait for a commit");
    }

    /// Waits until a request to add partitions to a transaction is held.
    ///
    /// # Panics
    /// If none arrives.
    pub async fn holds_a_new_transaction(&self) {
        at_least(&self.held, 1).await.must("wait for a transaction");
    }

    /// Waits for this number of connections, refused ones included.
    ///
    /// # Panics
    /// If they do not come.
    pub async fn accepted(&self, connections: usize) {
        at_least(&self.connections, connections).await.must("wait for connections");
    }

    /// Loses the next answer of the server, and breaks its connection.
    pub fn lose_next_answer(&self) {
        self.losses.next_answer.store(true, Ordering::SeqCst);
    }

    /// Forwards this number of `COMMIT`s to PostgreSQL, but loses their answers, and breaks their
    /// connections.
    pub fn lose_answers_to_commits(&self, commits: usize) {
        self.losses.commits.store(commits, Ordering::SeqCst);
    }

    /// The number of `COMMIT`s whose answers are still to be lost.
    #[must_use]
    pub fn commits_to_lose(&self) -> usize {
        self.losses.commits.load(Ordering::SeqCst)
    }

    /// Waits until every request is answered, including those that spawned tasks of a
    /// current-thread runtime are about to send; returns the number of round trips.
    ///
    /// # Panics
    /// If an answer does not come.
    pub async fn quiet(&self) -> usize {
        self.round_trips.quiet().await
    }

    /// The round trips to PostgreSQL after the first `skip` ones, each as the types of the protocol
    /// messages that began it: `BES` is bind, execute, sync; `S` alone a ping.
    #[must_use]
    pub fn round_trips_after(&self, skip: usize) -> Vec<String> {
        self.round_trips.after(skip)
    }
}

impl Drop for FaultyLink {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

/// Waits until a counter has reached a number.
async fn at_least(counter: &watch::Sender<usize>, count: usize) -> Option<()> {
    let mut counter = counter.subscribe();
    let reached = counter.wait_for(|found| *found >= count);
    tokio::time::timeout(DEADLINE, reached).await.ok()?.ok().map(drop)
}

/// `host:port` of a URL.
pub(crate) fn server_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    let server = authority.rsplit_once('@').map_or(authority, |(_, server)| server);
    server.to_owned()
}

async fn accept(
    listener: TcpListener,
    server: watch::Receiver<Arc<str>>,
    connections: watch::Sender<usize>,
    path: Path,
    round_trips: RoundTrips,
) {
    loop {
        let (client, _) = listener.accept().await.must("accept a client of the link");
        connections.send_modify(|connections| *connections += 1);
        let server = Arc::clone(&server.borrow());
        let path = Path { turn: round_trips.turn(), ..path.clone() };
        tokio::spawn(connect(client, server, path));
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
}
