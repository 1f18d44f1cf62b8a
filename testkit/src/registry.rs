//! The schema registry, asked as any HTTP client would.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::must::Must;

/// Gets a path below the base URL of a registry as JSON: HTTP/1.0, so that the answer ends with the connection.
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
