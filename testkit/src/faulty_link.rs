//! A TCP proxy between a client and a server, for tests that break the network or count round
//! trips.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::follow::DEADLINE;
use crate::link_state::{Flow, State};
use crate::must::Must;
use crate::round_trips::{RoundTrips, Turn};

const BUFFER_BYTES: usize = 65_536;
/// The API keys of Kafka's requests to add partitions to a transaction and to end one.
const ADD_PARTITIONS_TO_TXN: i16 = 24;
const END_TXN: i16 = 26;

/// How the link splits bytes into requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Any,
    Kafka,
}

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

/// The answers to lose.
#[derive(Debug, Default)]
struct Losses {
    next_answer: AtomicBool,
    commits: AtomicUsize,
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

    /// Forwards everything again, including held requests, at full speed.
    pub fn mend(&self) {
        self.state.send_modify(|state| {
            state.flow = Flow::Open;
            state.holds = None;
            state.bytes_per_second = None;
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

/// The inputs of one connection.
#[derive(Debug, Clone)]
struct Path {
    state: watch::Receiver<State>,
    held: watch::Sender<usize>,
    losses: Arc<Losses>,
    turn: Turn,
    protocol: Protocol,
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

async fn connect(client: TcpStream, server: Arc<str>, mut path: Path) {
    let State { flow, cuts, .. } = *path.state.borrow_and_update();
    if flow == Flow::Cut {
        return;
    }
    // A server that is down breaks the connection, too.
    let Ok(server) = TcpStream::connect(&*server).await else { return };
    client.set_nodelay(true).must("set up a link");
    server.set_nodelay(true).must("set up a link");
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (mut state, turn) = (path.state.clone(), path.turn.clone());
    let loses_answers = AtomicBool::new(false);
    tokio::select! {
        () = requests(from_client, to_server, path.clone(), &loses_answers) => {}
        () = answers(from_server, to_client, path, &loses_answers) => {}
        _ = state.wait_for(|state| state.cuts != cuts) => {}
    }
    turn.answer();
}

async fn requests(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    mut path: Path,
    loses_answers: &AtomicBool,
) {
    while let Some(bytes) = request(&mut client, path.protocol).await {
        path.turn.request(&bytes);
        if bytes.windows(6).any(|text| text == b"COMMIT") && take_one(&path.losses.commits) {
            loses_answers.store(true, Ordering::SeqCst);
        }
        let key = (path.protocol == Protocol::Kafka).then(|| api_key(&bytes)).flatten();
        let is_held = |state: &State| key.is_some() && state.holds == key;
        if is_held(&path.state.borrow()) {
            path.held.send_modify(|held| *held += 1);
        }
        let state = *path.state.borrow();
        state.pause(bytes.len()).await;
        let passes = |state: &State| state.flow == Flow::Open && !is_held(state);
        if path.state.wait_for(passes).await.is_err() || server.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn answers(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    mut path: Path,
    loses_answers: &AtomicBool,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(length @ 1..) = server.read(&mut buffer).await {
        path.turn.answer();
        // The server has executed the request when it answers; returning breaks the connection.
        if loses_answers.load(Ordering::SeqCst)
            || path.losses.next_answer.swap(false, Ordering::SeqCst)
        {
            return;
        }
        let state = *path.state.borrow();
        state.pause(length).await;
        let passes = |state: &State| state.flow == Flow::Open;
        if path.state.wait_for(passes).await.is_err()
            || client.write_all(&buffer[..length]).await.is_err()
        {
            return;
        }
    }
}

/// The next bytes to forward: of Kafka one request, else all that have arrived.
async fn request(client: &mut OwnedReadHalf, protocol: Protocol) -> Option<Vec<u8>> {
    if protocol == Protocol::Any {
        let mut buffer = vec![0; BUFFER_BYTES];
        let length = client.read(&mut buffer).await.ok()?;
        buffer.truncate(length);
        return (length > 0).then_some(buffer);
    }
    let size = client.read_u32().await.ok()?;
    let mut bytes = size.to_be_bytes().to_vec();
    let start = bytes.len();
    bytes.resize(start + usize::try_from(size).ok()?, 0);
    client.read_exact(&mut bytes[start..]).await.ok()?;
    Some(bytes)
}

fn api_key(request: &[u8]) -> Option<i16> {
    let key = request.get(4..6)?;
    Some(i16::from_be_bytes([key[0], key[1]]))
}

fn take_one(counter: &AtomicUsize) -> bool {
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
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
