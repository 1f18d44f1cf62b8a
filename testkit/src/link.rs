//! A faulty network link between a client and a server, for tests that break it.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::follow::DEADLINE;
use crate::must::Must;

const BUFFER_BYTES: usize = 65_536;
/// Kafka's API key of the request that ends a transaction.
const END_TRANSACTION: i16 = 26;

/// The state of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// Data arrive.
    Open,
    /// Open connections break, and new ones, too.
    Cut,
    /// Data do not arrive, and neither side sees an error.
    Silent,
}

#[derive(Debug, Clone, Copy)]
struct State {
    flow: Flow,
    holds_commits: bool,
}

/// The protocol on the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Any,
    Kafka,
}

/// A link to a server that can be cut, silenced, and restored.
#[derive(Debug)]
pub struct Link {
    port: u16,
    server: watch::Sender<Arc<str>>,
    state: watch::Sender<State>,
    held: watch::Sender<usize>,
    task: JoinHandle<()>,
}

impl Link {
    /// A link to `host:port`, for any protocol.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn to(server: &str) -> Self {
        Self::start(server, Protocol::Any).await
    }

    /// A link to the server of a URL such as `postgres://user:password@host:port/database`, and the
    /// URL that uses it.
    ///
    /// # Panics
    /// If the URL has no server, or no port is free.
    pub async fn before(url: &str) -> (Self, String) {
        let server = url.rsplit('@').next().and_then(|rest| rest.split('/').next());
        let server = server.must("find the server");
        let link = Self::to(server).await;
        let near = url.replace(server, &format!("127.0.0.1:{}", link.port()));
        (link, near)
    }

    /// A link to a broker, which has to advertise the link's port.
    pub(crate) async fn to_broker(server: &str) -> Self {
        Self::start(server, Protocol::Kafka).await
    }

    async fn start(server: &str, protocol: Protocol) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.must("listen as a link");
        let port = listener.local_addr().must("listen as a link").port();
        let state = watch::Sender::new(State { flow: Flow::Open, holds_commits: false });
        let held = watch::Sender::new(0);
        let way = Way { state: state.subscribe(), held: held.clone(), protocol };
        let server = watch::Sender::new(Arc::from(server));
        let task = tokio::spawn(accept(listener, server.subscribe(), way));
        Self { port, server, state, held, task }
    }

    /// The port of its near end, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sends later connections to another server, as a name that moves does. Call it while the link
    /// is cut.
    pub fn lead_to(&self, server: &str) {
        self.server.send_replace(Arc::from(server));
    }

    /// Breaks all connections, and each new one.
    pub fn cut(&self) {
        self.flow(Flow::Cut);
    }

    /// Drops all data in both directions without an error.
    pub fn silence(&self) {
        self.flow(Flow::Silent);
    }

    /// Lets everything through again, also held requests.
    pub fn mend(&self) {
        self.state.send_replace(State { flow: Flow::Open, holds_commits: false });
    }

    fn flow(&self, flow: Flow) {
        self.state.send_modify(|state| state.flow = flow);
    }

    /// Holds requests to end a transaction from now on, and everything after them on their
    /// connections.
    pub fn hold_commits(&self) {
        self.held.send_replace(0);
        self.state.send_modify(|state| state.holds_commits = true);
    }

    /// Waits until a request to end a transaction is held: the transaction's records are written,
    /// and it is open.
    ///
    /// # Panics
    /// If none comes.
    pub async fn holds_a_commit(&self) {
        let mut held = self.held.subscribe();
        let held = tokio::time::timeout(DEADLINE, held.wait_for(|held| *held > 0)).await;
        held.must("wait for a commit").must("wait for a commit");
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

#[derive(Debug, Clone)]
struct Way {
    state: watch::Receiver<State>,
    held: watch::Sender<usize>,
    protocol: Protocol,
}

async fn accept(listener: TcpListener, server: watch::Receiver<Arc<str>>, way: Way) {
    loop {
        let (client, _) = listener.accept().await.must("accept a client of the link");
        let server = Arc::clone(&server.borrow());
        tokio::spawn(connect(client, server, way.clone()));
    }
}

async fn connect(client: TcpStream, server: Arc<str>, mut way: Way) {
    if way.state.borrow_and_update().flow == Flow::Cut {
        return;
    }
    // A server that is down breaks the connection, too.
    let Ok(server) = TcpStream::connect(&*server).await else { return };
    client.set_nodelay(true).must("set up a link");
    server.set_nodelay(true).must("set up a link");
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut state = way.state.clone();
    tokio::select! {
        () = requests(from_client, to_server, way.clone()) => {}
        () = answers(from_server, to_client, way) => {}
        _ = state.wait_for(|state| state.flow == Flow::Cut) => {}
    }
}

async fn requests(mut client: OwnedReadHalf, mut server: OwnedWriteHalf, mut way: Way) {
    while let Some(bytes) = request(&mut client, way.protocol).await {
        let is_commit = way.protocol == Protocol::Kafka && key(&bytes) == Some(END_TRANSACTION);
        if is_commit && way.state.borrow().holds_commits {
            way.held.send_modify(|held| *held += 1);
        }
        let passes =
            |state: &State| state.flow == Flow::Open && !(is_commit && state.holds_commits);
        if way.state.wait_for(passes).await.is_err() || server.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn answers(mut server: OwnedReadHalf, mut client: OwnedWriteHalf, mut way: Way) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(length @ 1..) = server.read(&mut buffer).await {
        let passes = |state: &State| state.flow == Flow::Open;
        if way.state.wait_for(passes).await.is_err()
            || client.write_all(&buffer[..length]).await.is_err()
        {
            return;
        }
    }
}

/// The next unit to send: one request for Kafka, all received bytes for other protocols.
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

/// The API key of a request.
fn key(request: &[u8]) -> Option<i16> {
    let key = request.get(4..6)?;
    Some(i16::from_be_bytes([key[0], key[1]]))
}
