//! Requests to the HTTP servers of relays and of Prometheus.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::follow::DEADLINE;
use crate::must::Must;

/// The interval at which an awaited answer is asked for.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// An answer.
#[derive(Debug, Clone)]
pub struct HttpAnswer {
    /// Its status, for example 200.
    pub status: u16,
    /// Its head, with the status line.
    pub head: String,
    /// Its body.
    pub body: String,
}

impl HttpAnswer {
    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).must("read an answer as JSON")
    }

    /// The value of a metric with its labels, as Prometheus' text format has it.
    #[must_use]
    pub fn metric(&self, series: &str) -> Option<f64> {
        let values = self.body.lines().filter_map(|line| line.strip_prefix(series));
        values.into_iter().find_map(|value| value.strip_prefix(' ')?.parse().ok())
    }

    /// Asks until the answer has this status; the server may still be starting.
    ///
    /// # Panics
    /// If it does not get it.
    pub async fn until(address: SocketAddr, path: &str, status: u16) -> Self {
        Self::until_with(address, (path, ""), status).await
    }

    /// The same for a path with headers, as [`http_get`] takes them.
    ///
    /// # Panics
    /// As [`until`](Self::until).
    pub async fn until_with(
        address: SocketAddr,
        (path, headers): (&str, &str),
        status: u16,
    ) -> Self {
        let asked = async {
            let mut polls = tokio::time::interval(POLL_INTERVAL);
            let mut answer = ask(address, path, headers).await.ok();
            while answer.as_ref().is_none_or(|answer| answer.status != status) {
                polls.tick().await;
                answer = ask(address, path, headers).await.ok();
            }
            answer
        };
        let answered = tokio::time::timeout(DEADLINE, asked).await;
        let Ok(Some(answer)) = answered else { panic!("{path} did not answer {status} in time") };
        answer
    }
}

/// Gets a path; `headers` are whole lines, each with its end.
///
/// # Panics
/// If there is no answer.
pub async fn http_get(address: SocketAddr, path: &str, headers: &str) -> HttpAnswer {
    ask(address, path, headers).await.must("ask an HTTP server")
}

/// HTTP/1.0, so that the answer ends with the connection.
async fn ask(address: SocketAddr, path: &str, headers: &str) -> std::io::Result<HttpAnswer> {
    let mut connection = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n{headers}\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    // A server that ends closes its connections.
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.must("find the status of an answer");
    Ok(HttpAnswer { status, head: head.to_owned(), body: body.to_owned() })
}
