//! Schemas as Avro's Java library prints them, and a registry that returns them in that form, as
//! Confluent's does.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use crate::must::Must;

const HEAD_BYTES_MAX: usize = 65_536;

/// A Java process that prints schemas; ends with the test.
#[derive(Debug)]
pub struct JavaPrinter {
    wire: Mutex<(ChildStdin, Lines<BufReader<ChildStdout>>)>,
    #[expect(dead_code, reason = "its drop ends Java")]
    process: Child,
}

impl JavaPrinter {
    /// Starts it, and waits until it prints; downloads the library if it is not in the cache yet.
    ///
    /// # Panics
    /// If there is no Java, or the library cannot be downloaded.
    pub async fn start() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().must("find the checkout");
        let dev = Command::new(root.join("ops/dev/dev")).arg("avro").output().await;
        let dev = dev.must("run ops/dev/dev avro");
        let errors = String::from_utf8_lossy(&dev.stderr);
        assert!(dev.status.success(), "ops/dev/dev avro: {errors}");
        let class_path = String::from_utf8(dev.stdout).must("read the class path");
        let mut process = Command::new("java")
            .args(["-XX:TieredStopAtLevel=1", "-cp", class_path.trim()])
            .arg(root.join("testkit/java/PrintSchema.java"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .must("start Java");
        let input = process.stdin.take().must("reach Java");
        let output = process.stdout.take().must("read Java");
        let printer = Self { wire: Mutex::new((input, BufReader::new(output).lines())), process };
        // It has compiled the program: a relay does not wait for an answer for that long.
        drop(printer.print("\"string\"").await);
        printer
    }

    /// A definition as Java prints it; or Java's reason to reject it.
    ///
    /// # Errors
    /// The library's message.
    ///
    /// # Panics
    /// If Java has ended.
    pub async fn print(&self, definition: &str) -> Result<String, String> {
        let mut wire = self.wire.lock().await;
        let (input, output) = &mut *wire;
        let line = format!("{}\n", Value::from(definition));
        input.write_all(line.as_bytes()).await.must("ask Java");
        let line = output.next_line().await.must("read Java").must("read Java before its end");
        let said: Value = serde_json::from_str(&line).must("parse Java's output");
        match said["schema"].as_str() {
            Some(printed) => Ok(printed.to_owned()),
            None => Err(said["error"].to_string()),
        }
    }
}

/// A registry that stores schemas as Java prints them: the real registry's answers with other
/// definitions.
#[derive(Debug)]
pub struct JavaRegistry {
    url: String,
    heads: watch::Receiver<Vec<String>>,
    task: JoinHandle<()>,
}

/// The state that a connection needs.
struct Front {
    server: String,
    printer: JavaPrinter,
    heads: watch::Sender<Vec<String>>,
}

impl JavaRegistry {
    /// Starts one in front of the registry with this base URL.
    ///
    /// # Panics
    /// If no port is free, or Java does not start.
    pub async fn start(base_url: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.must("listen as a registry");
        let port = listener.local_addr().must("listen as a registry").port();
        let address = base_url.strip_prefix("http://").must("reach a registry without TLS");
        let (server, base) = address.split_once('/').must("split the registry's URL");
        let (heads, seen) = watch::channel(Vec::new());
        let front = Front { server: server.to_owned(), printer: JavaPrinter::start().await, heads };
        let task = tokio::spawn(accept(listener, Arc::new(front)));
        Self { url: format!("http://127.0.0.1:{port}/{base}"), heads: seen, task }
    }

    /// Its base URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The base URL with a login in it.
    #[must_use]
    pub fn url_with_login(&self, login: &str) -> String {
        self.url.replacen("://", &format!("://{login}@"), 1)
    }

    /// The requests so far, each with its headers.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.heads.borrow().clone()
    }
}

impl Drop for JavaRegistry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, front: Arc<Front>) {
    loop {
        let (client, _) = listener.accept().await.must("accept a client of the registry");
        let front = Arc::clone(&front);
        tokio::spawn(async move { drop(front.answer(client).await) });
    }
}

impl Front {
    /// Answers one request: there is one per connection.
    async fn answer(&self, mut client: TcpStream) -> std::io::Result<()> {
        let mut request = Vec::new();
        let head_end = read_head(&mut client, &mut request).await?;
        let head = String::from_utf8_lossy(&request[..head_end]).into_owned();
        while request.len() < head_end + content_length(&head) {
            read_more(&mut client, &mut request).await?;
        }
        self.heads.send_modify(|heads| heads.push(head.clone()));
        let (status, body) = self.ask(&head, &request[head_end..]).await?;
        let body = self.printed(&body).await;
        let length = body.len();
        let answer = format!(
            "{status}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        client.write_all(answer.as_bytes()).await?;
        client.write_all(&body).await?;
        client.shutdown().await
    }

    /// The real registry's answer: HTTP/1.0, so that the answer ends with the connection.
    async fn ask(&self, head: &str, body: &[u8]) -> std::io::Result<(String, Vec<u8>)> {
        let mut server = TcpStream::connect(&self.server).await?;
        let mut lines = head.lines();
        let first = lines.next().unwrap_or_default().replace("HTTP/1.1", "HTTP/1.0");
        let kept = lines.filter(|line| line.to_ascii_lowercase().starts_with("content-"));
        let kept: String = kept.map(|line| format!("{line}\r\n")).collect();
        let request = format!("{first}\r\nHost: {}\r\n{kept}\r\n", self.server);
        server.write_all(request.as_bytes()).await?;
        server.write_all(body).await?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).await?;
        let end = head_end(&answer).unwrap_or(answer.len());
        let head = String::from_utf8_lossy(&answer[..end]);
        let status = head.lines().next().unwrap_or_default().replace("HTTP/1.0", "HTTP/1.1");
        Ok((status, answer[end..].to_vec()))
    }

    /// An answer whose definition, if it has one, is as Java prints it.
    async fn printed(&self, body: &[u8]) -> Vec<u8> {
        let Ok(mut answer) = serde_json::from_slice::<Value>(body) else { return body.to_vec() };
        if let Some(definition) = answer["schema"].as_str()
            && let Ok(printed) = self.printer.print(definition).await
        {
            answer["schema"] = printed.into();
        }
        answer.to_string().into_bytes()
    }
}

async fn read_head(client: &mut TcpStream, request: &mut Vec<u8>) -> std::io::Result<usize> {
    loop {
        if let Some(end) = head_end(request) {
            return Ok(end);
        }
        if request.len() > HEAD_BYTES_MAX {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        read_more(client, request).await?;
    }
}

async fn read_more(client: &mut TcpStream, request: &mut Vec<u8>) -> std::io::Result<()> {
    match client.read_buf(request).await? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|end| end == b"\r\n\r\n").map(|place| place + 4)
}

fn content_length(head: &str) -> usize {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    lengths.next().and_then(|(_, length)| length.trim().parse().ok()).unwrap_or(0)
}
