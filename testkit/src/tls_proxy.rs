//! A registry or an OpenID provider over TLS, with a login or a certificate: a proxy before the
//! real one.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use openssl::ssl::{SslAcceptor, SslFiletype, SslMethod, SslStream, SslVerifyMode};
use tokio::sync::watch;

use crate::certificates::{Authority, CertificateFiles};
use crate::must::Must;

const HEAD_BYTES_MAX: usize = 65_536;

/// What the proxy asks of its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Nothing: the server asks by itself.
    Anyone,
    /// This value of the header `Authorization`.
    Header(String),
    /// A certificate of the authority.
    Certificate,
}

/// The proxy. Its threads end with the test's process.
#[derive(Debug)]
pub struct TlsProxy {
    url: String,
    admission: watch::Sender<Admission>,
}

impl TlsProxy {
    /// Starts one before the server with this base URL.
    ///
    /// # Panics
    /// If no port is free, or the certificate cannot be used.
    #[must_use]
    pub fn before(
        base_url: &str,
        authority: &Authority,
        server: &CertificateFiles,
        admission: Admission,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).must("listen as a proxy");
        let port = listener.local_addr().must("listen as a proxy").port();
        let address = base_url.strip_prefix("http://").must("reach a server without TLS");
        let (upstream, base) = address.split_once('/').must("split the server's URL");
        let url = format!("https://127.0.0.1:{port}/{base}");
        let acceptor = Arc::new(acceptor(authority, server, &admission));
        let upstream = Arc::<str>::from(upstream);
        let (admission, asked) = watch::channel(admission);
        thread::spawn(move || serve(&listener, &acceptor, &upstream, &asked));
        Self { url, admission }
    }

    /// Asks this value of the header `Authorization` of later requests.
    pub fn admits(&self, header: &str) {
        self.admission.send_replace(Admission::Header(header.to_owned()));
    }

    /// Its base URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

fn serve(
    listener: &TcpListener,
    acceptor: &Arc<SslAcceptor>,
    upstream: &Arc<str>,
    admission: &watch::Receiver<Admission>,
) {
    for client in listener.incoming().filter_map(Result::ok) {
        let (acceptor, upstream) = (Arc::clone(acceptor), Arc::clone(upstream));
        let admission = admission.clone();
        thread::spawn(move || {
            // A client that is refused closes the connection.
            let Ok(stream) = acceptor.accept(client) else { return };
            drop(forward(stream, &upstream, &admission));
        });
    }
}

fn acceptor(
    authority: &Authority,
    server: &CertificateFiles,
    admission: &Admission,
) -> SslAcceptor {
    let builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls());
    let mut builder = builder.must("make a TLS server");
    builder.set_certificate_chain_file(&server.certificate).must("use a certificate");
    builder.set_private_key_file(&server.key, SslFiletype::PEM).must("use a key");
    if *admission == Admission::Certificate {
        builder.set_ca_file(authority.file()).must("use an authority");
        builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    }
    builder.build()
}

/// Forwards one request and its answer.
fn forward(
    mut client: SslStream<TcpStream>,
    upstream: &str,
    admission: &watch::Receiver<Admission>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; HEAD_BYTES_MAX];
    let (head, mut body) = loop {
        let length = client.read(&mut buffer)?;
        request.extend_from_slice(&buffer[..length]);
        if let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = request.split_off(end + 4);
            break (String::from_utf8_lossy(&request).into_owned(), body);
        }
        if length == 0 {
            return Ok(());
        }
    };
    while body.len() < content_length(&head) {
        let length = client.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        body.extend_from_slice(&buffer[..length]);
    }
    let is_admitted = is_admitted(&head, &admission.borrow());
    if !is_admitted {
        let said = r#"{"error_code":40101,"message":"HTTP 401 Unauthorized"}"#;
        let head =
            "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nConnection: close";
        write!(client, "{head}\r\nContent-Length: {}\r\n\r\n{said}", said.len())?;
        return client.shutdown().map(drop).map_err(std::io::Error::other);
    }
    let mut server = TcpStream::connect(upstream)?;
    let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    server.write_all(&[head.as_bytes(), &body].concat())?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    client.write_all(&answer)?;
    client.shutdown().map(drop).map_err(std::io::Error::other)
}

fn content_length(head: &str) -> usize {
    header(head, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0)
}

fn is_admitted(head: &str, admission: &Admission) -> bool {
    match admission {
        Admission::Header(wanted) => header(head, "authorization") == Some(wanted),
        Admission::Anyone | Admission::Certificate => true,
    }
}

fn header<'a>(head: &'a str, wanted: &str) -> Option<&'a str> {
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    headers.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
}
