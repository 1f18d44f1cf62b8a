//! A server over HTTP that takes the place of a service for keys, or of a schema registry.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use annals_testkit::Must;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A request, with a body in JSON.
#[derive(Debug, Default)]
pub(crate) struct Request {
    /// Method and path.
    pub(crate) line: String,
    /// By their names in small letters.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
    /// The same, as it was sent.
    pub(crate) bytes: Vec<u8>,
}

type Answer = dyn Fn(&Request) -> (u16, Value) + Send + Sync;

/// Answers requests, as long as a test runs.
pub(crate) async fn start(
    answer: impl Fn(&Request) -> (u16, Value) + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.must("listen");
    let address = listener.local_addr().must("have an address");
    let answer: Arc<Answer> = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(serve(connection, Arc::clone(&answer)));
        }
    });
    address
}

/// Answers the requests of one connection.
async fn serve(connection: TcpStream, answer: Arc<Answer>) {
    let mut connection = BufReader::new(connection);
    while let Some(request) = read(&mut connection).await {
        let (status, answer) = answer(&request);
        let answer = answer.to_string();
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", answer.len());
        connection.write_all((head + &answer).as_bytes()).await.must("answer");
    }
}

/// The next request; none at the end of the connection.
async fn read(connection: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut request = Request::default();
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line).await.unwrap_or_default() == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        match line.split_once(": ") {
            None => request.line = line.trim_end_matches(" HTTP/1.1").to_owned(),
            Some((name, value)) => {
                request.headers.insert(name.to_ascii_lowercase(), value.to_owned());
            }
        }
    }
    let length = request.headers.get("content-length").map(|length| length.parse());
    let mut body = vec![0; length.unwrap_or(Ok(0)).must("read a length")];
    connection.read_exact(&mut body).await.must("read a body");
    request.body = serde_json::from_slice(&body).unwrap_or_default();
    request.bytes = body;
    Some(request)
}
