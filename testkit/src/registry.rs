//! The schema registry through plain HTTP, and a faulty registry.

use std::sync::Arc;

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
    /// 200, and an HTML page, as from a proxy.
    Html,
    /// 200, and JSON with another meaning.
    OtherJson,
    /// 200, and half of an answer, before the connection breaks.
    Half,
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
        }
    }
}

/// A registry that forwards every request to the real one, until a test makes it faulty.
#[derive(Debug)]
pub struct FaultyRegistry {
    url: String,
    garbage: watch::Sender<Option<Garbage>>,
    asked: watch::Sender<usize>,
    task: JoinHandle<()>,
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
        let task = accept(listener, server.into(), garbage.subscribe(), asked.clone());
        Self { url, garbage, asked, task: tokio::spawn(task) }
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

    /// Forwards again.
    pub fn is_well(&self) {
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

async fn accept(
    listener: TcpListener,
    server: Arc<str>,
    garbage: watch::Receiver<Option<Garbage>>,
    asked: watch::Sender<usize>,
) {
    loop {
        let (client, _) = listener.accept().await.must("accept a client of the registry");
        tokio::spawn(answer(client, Arc::clone(&server), garbage.clone(), asked.clone()));
    }
}

async fn answer(
    mut client: TcpStream,
    server: Arc<str>,
    mut garbage: watch::Receiver<Option<Garbage>>,
    asked: watch::Sender<usize>,
) {
    let talked = *garbage.borrow_and_update();
    let Some(talked) = talked else {
        let Ok(mut server) = TcpStream::connect(&*server).await else { return };
        tokio::select! {
            _ended = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
            _changed = garbage.changed() => {}
        }
        return;
    };
    let mut buffer = vec![0; BUFFER_BYTES];
    if !matches!(client.read(&mut buffer).await, Ok(1..)) {
        return;
    }
    if client.write_all(talked.answer().as_bytes()).await.is_ok() {
        asked.send_modify(|asked| *asked += 1);
    }
    if talked != Garbage::Half && client.shutdown().await.is_ok() {
        // Closing before the client has sent everything would discard the answer.
        while matches!(client.read(&mut buffer).await, Ok(1..)) {}
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
            Garbage::Html,
            Garbage::OtherJson,
        ] {
            let (head, body) = garbage.answer().split_once("\r\n\r\n").unwrap();
            let length = format!("Content-Length: {}", body.len());
            assert!(head.lines().any(|line| line == length), "{garbage:?}: {}", body.len());
        }
    }
}
