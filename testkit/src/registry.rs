//! The schema registry through plain HTTP, and a faulty registry.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::must::Must;

const BUFFER_BYTES: usize = 65_536;

/// Gets a path below the base URL of a registry as JSON: HTTP/1.0, so that the answer ends with the
/// connection.
///
/// # Panics
/// If the registry does not answer with 200 and JSON.
pub async fn ask_registry(base_url: &str, path: &str) -> serde_json::Value {
    let address = base_url.strip_prefix("http://").must("ask a registry without TLS");
    let (server, base) = address.split_once('/').must("split the registry's URL");
    let mut connection = TcpStream::connect(server).await.must("connect to the registry");
    let request =
        format!("GET /{base}{path} HTTP/1.0\r\nHost: {server}\r\nAccept: application/json\r\n\r\n");
    connection.write_all(request.as_bytes()).await.must("ask the registry");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.must("read the registry's answer");
    let (head, body) = answer.split_once("\r\n\r\n").must("split the registry's answer");
    let status = head.lines().next().unwrap_or_default();
    assert!(status.contains(" 200 "), "the registry answered {path} with {status}: {body}");
    serde_json::from_str(body).must("read the registry's JSON")
}

/// A faulty answer of a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Garbage {
    /// 500, and an error of the registry's own.
    ServerError,
    /// Confluent's refusal of writes in the modes READONLY, READONLY_OVERRIDE and IMPORT.
    ReadOnly,
    /// 401: no login, or a wrong one.
    Unauthorized,
    /// Confluent's refusal of a subject that the login may not write.
    Forbidden,
    /// Confluent's 404 for a path that it does not have.
    OtherPath,
    /// 404, and an HTML page, as from a web server.
    OtherServer,
    /// 200, and an HTML page, as from a proxy.
    Html,
    /// 200, and JSON with another meaning.
    OtherJson,
    /// 200, and half of an answer, before the connection breaks.
    Half,
    /// None, on an open connection.
    Silence,
}

impl Garbage {
    const fn answer(self) -> &'static str {
        match self {
            Self::ServerError => {
                "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nConnection: close\r\n\
                 Content-Length: 46\r\n\r\n{\"error_code\":50001,\"message\":\"out of memory\"}"
            }
            Self::ReadOnly => {
                "HTTP/1.1 422 Unprocessable Entity\r\nContent-Type: application/vnd.schemaregistry.v1+json\r\n\
                 Connection: close\r\nContent-Length: 69\r\n\r\n\
                 {\"error_code\":42205,\"message\":\"Subject account is in read-only mode\"}"
            }
            Self::Unauthorized => {
                "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nConnection: close\r\n\
                 Content-Length: 43\r\n\r\n{\"error_code\":401,\"message\":\"Unauthorized\"}"
            }
            Self::Forbidden => {
                "HTTP/1.1 403 Forbidden\r\nContent-Type: application/vnd.schemaregistry.v1+json\r\nConnection: close\r\n\
                 Content-Length: 91\r\n\r\n\
                 {\"error_code\":40301,\"message\":\"User is denied operation Write on Subject: account-a.value\"}"
            }
            Self::OtherPath => {
                "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nConnection: close\r\n\
                 Content-Length: 49\r\n\r\n{\"error_code\":404,\"message\":\"HTTP 404 Not Found\"}"
            }
            Self::OtherServer => {
                "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: 35\r\n\r\n\
                 <html><body>Not found</body></html>"
            }
            Self::Html => {
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: 39\r\n\r\n\
                 <html><body>Please log in</body></html>"
            }
            Self::OtherJson => {
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 16\r\n\r\n\
                 {\"answer\": \"42\"}"
            }
            Self::Half => {
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10000\r\n\r\n{\"id\": "
            }
            Self::Silence => "",
        }
    }
}

/// A registry that forwards every request to the real one, until a test makes it faulty.
#[derive(Debug)]
pub struct FaultyRegistry {
    url: String,
    garbage: watch::Sender<Option<Garbage>>,
    asked: watch::Sender<usize>,
    failing: watch::Sender<Option<Arc<str>>>,
    delay: watch::Sender<Duration>,
    task: JoinHandle<()>,
}

/// What a connection to a faulty registry needs.
#[derive(Clone)]
struct Faults {
    server: Arc<str>,
    garbage: watch::Receiver<Option<Garbage>>,
    asked: watch::Sender<usize>,
    /// Requests with this text in their first line have an error.
    failing: watch::Receiver<Option<Arc<str>>>,
    /// The time before each answer.
    delay: watch::Receiver<Duration>,
}

impl FaultyRegistry {
    /// Starts one in front of the registry with this base URL.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start(base_url: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.must("listen as a registry");
        let port = listener.local_addr().must("listen as a registry").port();
        let address = base_url.strip_prefix("http://").must("reach a registry without TLS");
        let (server, base) = address.split_once('/').must("split the registry's URL");
        let url = format!("http://127.0.0.1:{port}/{base}");
        let (garbage, asked) = (watch::Sender::new(None), watch::Sender::new(0));
        let (failing, delay) = (watch::Sender::new(None), watch::Sender::new(Duration::ZERO));
        let faults = Faults {
            server: server.into(),
            garbage: garbage.subscribe(),
            asked: asked.clone(),
            failing: failing.subscribe(),
            delay: delay.subscribe(),
        };
        let task = tokio::spawn(accept(listener, faults));
        Self { url, garbage, asked, failing, delay, task }
    }

    /// Its base URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Answers every later request with this fault, also on open connections.
    pub fn talks(&self, garbage: Garbage) {
        self.asked.send_replace(0);
        self.garbage.send_replace(Some(garbage));
    }

    /// Answers every later request whose path has this text with an error of the registry's own.
    pub fn fails_for(&self, path: &str) {
        self.failing.send_replace(Some(path.into()));
    }

    /// Forwards each later answer after this time.
    pub fn answers_after(&self, delay: Duration) {
        self.delay.send_replace(delay);
    }

    /// Forwards again.
    pub fn is_well(&self) {
        self.failing.send_replace(None);
        self.garbage.send_replace(None);
    }

    /// The number of requests answered with the current fault.
    #[must_use]
    pub fn asked(&self) -> usize {
        *self.asked.borrow()
    }
}

impl Drop for FaultyRegistry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, faults: Faults) {
    loop {
        let (client, _) = listener.accept().await.must("accept a client of the registry");
        tokio::spawn(answer(client, faults.clone()));
    }
}

/// Forwards the requests of a connection, up to one that gets a faulty answer.
async fn answer(mut client: TcpStream, mut faults: Faults) {
    let Ok(mut server) = TcpStream::connect(&*faults.server).await else { return };
    let (mut request, mut answer) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
    let mut talked = *faults.garbage.borrow_and_update();
    loop {
        tokio::select! {
            read = client.read(&mut request) => {
                let Ok(length @ 1..) = read else { return };
                // What the test has said since, which this task may not have seen yet.
                talked = *faults.garbage.borrow_and_update();
                let is_failing = faults.fails_for(&request[..length]);
                if let Some(talked) = talked.or(is_failing.then_some(Garbage::ServerError)) {
                    return talk(talked, client, faults).await;
                }
                if server.write_all(&request[..length]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut answer) => {
                let Ok(length @ 1..) = read else { return };
                let delay = *faults.delay.borrow();
                tokio::time::sleep(delay).await;
                if client.write_all(&answer[..length]).await.is_err() {
                    return;
                }
            }
            // The next request is of a new connection.
            _changed = faults.garbage.changed(), if talked.is_none() => return,
        }
    }
}

/// Gives a request a faulty answer.
async fn talk(talked: Garbage, mut client: TcpStream, mut faults: Faults) {
    // Before the client has the answer, after which the test may look.
    faults.asked.send_modify(|asked| *asked += 1);
    if client.write_all(talked.answer().as_bytes()).await.is_err() {
        return;
    }
    match talked {
        Garbage::Half => {}
        Garbage::Silence => {
            faults.garbage.changed().await.ok();
        }
        Garbage::ServerError
        | Garbage::ReadOnly
        | Garbage::Unauthorized
        | Garbage::Forbidden
        | Garbage::OtherPath
        | Garbage::OtherServer
        | Garbage::Html
        | Garbage::OtherJson => {
            let mut rest = vec![0; BUFFER_BYTES];
            if client.shutdown().await.is_ok() {
                // Closing before the client has sent everything would discard the answer.
                while matches!(client.read(&mut rest).await, Ok(1..)) {}
            }
        }
    }
}

impl Faults {
    /// Whether these bytes begin a request that is to fail.
    fn fails_for(&self, request: &[u8]) -> bool {
        let line = request.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        self.failing.borrow().as_ref().is_some_and(|path| line.contains(&**path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_answers_are_as_long_as_they_say() {
        for garbage in [
            Garbage::ServerError,
            Garbage::ReadOnly,
            Garbage::Unauthorized,
            Garbage::Forbidden,
            Garbage::OtherPath,
            Garbage::OtherServer,
            Garbage::Html,
            Garbage::OtherJson,
        ] {
            let (head, body) = garbage.answer().split_once("\r\n\r\n").unwrap();
            let length = format!("Content-Length: {}", body.len());
            assert!(head.lines().any(|line| line == length), "{garbage:?}: {}", body.len());
        }
    }
}
