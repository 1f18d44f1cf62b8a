//! One connection through a faulty link.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::link_state::{Flow, State};
use crate::must::Must;
use crate::round_trips::Turn;

const BUFFER_BYTES: usize = 65_536;
/// How many reads of answers are on their way at once.
const DELAYED_MAX: usize = 64;

/// How the link splits bytes into requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Any,
    Kafka,
}

/// The answers to lose.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    pub(crate) next_answer: AtomicBool,
    pub(crate) commits: AtomicUsize,
}

/// The inputs of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Path {
    pub(crate) state: watch::Receiver<State>,
    pub(crate) held: watch::Sender<usize>,
    pub(crate) losses: Arc<Losses>,
    pub(crate) turn: Turn,
    pub(crate) protocol: Protocol,
}

/// Forwards one connection until either side or the link ends it.
pub(crate) async fn connect(client: TcpStream, server: Arc<str>, mut path: Path) {
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
    let (arrived, mut queue) = mpsc::channel(DELAYED_MAX);
    let turn = path.turn.clone();
    let receive = async {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Ok(length @ 1..) = server.read(&mut buffer).await {
            turn.answer();
            let answer = (Instant::now(), buffer[..length].to_vec());
            if arrived.send(answer).await.is_err() {
                return;
            }
        }
        drop(arrived);
    };
    let forward = async {
        while let Some((arrived, bytes)) = queue.recv().await {
            // The server has executed the request when it answers; returning breaks the connection.
            if loses_answers.load(Ordering::SeqCst)
                || path.losses.next_answer.swap(false, Ordering::SeqCst)
            {
                return;
            }
            let state = *path.state.borrow();
            state.pause(bytes.len()).await;
            tokio::time::sleep_until(arrived + state.delay).await;
            let passes = |state: &State| state.flow == Flow::Open;
            if path.state.wait_for(passes).await.is_err() || client.write_all(&bytes).await.is_err()
            {
                return;
            }
        }
    };
    tokio::pin!(receive, forward);
    tokio::select! {
        () = &mut receive => forward.await,
        () = &mut forward => {}
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
