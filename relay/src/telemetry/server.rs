//! The HTTP server, in a thread of its own: it answers also while the event loop hangs, and a slow
//! client delays nothing.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use crate::config::{Config, Http, Secret, TlsFiles};
use crate::telemetry::answers::answer;
use crate::telemetry::vitals::Vitals;

/// The most connections at a time: further ones wait.
const CONNECTIONS_MAX: usize = 32;
/// The time within which a client sends a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest life of a connection: a client that does not read its answer is cut off.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);
/// The pause after a failed accept: the process may have no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the HTTP server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be used.
    #[error(
        "http.listen: cannot listen on {address}: set another address, port 0 for any free port, or off"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("http.tls_certificate: cannot use {certificate} with {key}")]
    Tls {
        /// The file of the certificate.
        certificate: String,
        /// The file of its key.
        key: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The thread could not be started.
    #[error("start the HTTP server")]
    Thread(#[source] std::io::Error),
}

/// The inputs of each connection.
struct ServerState {
    vitals: Arc<Vitals>,
    access: watch::Receiver<Arc<Access>>,
    connections: Arc<Semaphore>,
}

/// Who may read, and over which protocol: a reload changes it for later connections.
pub(crate) struct Access {
    token: Option<Secret>,
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "plain HTTP only"))]
    tls: Tls,
}

impl Access {
    /// Reads the files of the certificate.
    ///
    /// # Errors
    /// [`ServerError::Tls`] when the certificate cannot be used.
    pub(crate) fn load(http: &Http) -> Result<Arc<Self>, ServerError> {
        Ok(Arc::new(Self { token: http.token.clone(), tls: tls(http.tls.as_ref())? }))
    }
}

/// A server that runs.
pub(crate) struct Served {
    /// The address; the system may have chosen the port.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests connect to it"))]
    address: SocketAddr,
    access: watch::Sender<Arc<Access>>,
}

impl Served {
    /// Changes the access of later connections.
    pub(crate) fn give(&self, access: Arc<Access>) {
        self.access.send_replace(access);
    }
}

/// Serves health and metrics until the process ends, if the configuration has an address.
///
/// # Errors
/// [`ServerError`] when the address or the certificate cannot be used.
pub(crate) fn serve(config: &Config, vitals: &Arc<Vitals>) -> Result<Option<Served>, ServerError> {
    let Some(address) = config.http.listen else { return Ok(None) };
    let cannot = |source| ServerError::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(cannot)?;
    listener.set_nonblocking(true).map_err(cannot)?;
    let chosen = listener.local_addr().map_err(cannot)?;
    let (access, receiver) = watch::channel(Access::load(&config.http)?);
    let shared = Arc::new(ServerState {
        vitals: Arc::clone(vitals),
        access: receiver,
        connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ServerError::Thread)?;
    std::thread::Builder::new()
        .name("http".to_owned())
        .spawn(move || runtime.block_on(accept(listener, shared)))
        .map_err(ServerError::Thread)?;
    tracing::info!(event = "http_listening", address = %chosen, "health and metrics are served");
    Ok(Some(Served { address: chosen, access }))
}

/// Does not log: a log that blocks must not keep health from being answered.
async fn accept(listener: TcpListener, shared: Arc<ServerState>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    while let Ok(permit) = Arc::clone(&shared.connections).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let served = tokio::time::timeout(CONNECTION_TIMEOUT, greet(stream, &shared));
                    // The client is gone, or is cut off.
                    drop(served.await);
                    drop(permit);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    vitals: &Vitals,
    token: Option<&Secret>,
) {
    let service = service_fn(async |request| Ok::<_, Infallible>(answer(&request, vitals, token)));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    // A client that breaks the protocol gets no answer.
    drop(server.serve_connection(TokioIo::new(stream), service).await);
}

#[cfg(feature = "tls")]
type Tls = Option<tokio_native_tls::TlsAcceptor>;
#[cfg(not(feature = "tls"))]
type Tls = ();

#[cfg(feature = "tls")]
async fn greet(stream: TcpStream, shared: &ServerState) {
    let access = Arc::clone(&shared.access.borrow());
    let token = access.token.as_ref();
    match &access.tls {
        None => converse(stream, &shared.vitals, token).await,
        Some(acceptor) => {
            let greeted = tokio::time::timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await;
            // A client without TLS gets no answer.
            if let Ok(Ok(stream)) = greeted {
                converse(stream, &shared.vitals, token).await;
            }
        }
    }
}

#[cfg(not(feature = "tls"))]
async fn greet(stream: TcpStream, shared: &ServerState) {
    let access = Arc::clone(&shared.access.borrow());
    converse(stream, &shared.vitals, access.token.as_ref()).await;
}

#[cfg(feature = "tls")]
fn tls(files: Option<&TlsFiles>) -> Result<Tls, ServerError> {
    let Some(files) = files else { return Ok(None) };
    let accept = || -> Result<_, Box<dyn std::error::Error + Send + Sync>> {
        let (certificate, key) = (std::fs::read(&files.certificate)?, std::fs::read(&files.key)?);
        let identity = native_tls::Identity::from_pkcs8(&certificate, &key)?;
        Ok(native_tls::TlsAcceptor::new(identity)?.into())
    };
    accept().map(Some).map_err(|source| ServerError::Tls {
        certificate: files.certificate.display().to_string(),
        key: files.key.display().to_string(),
        source,
    })
}

/// The check of the configuration refuses a certificate without the feature.
#[cfg(not(feature = "tls"))]
fn tls(_files: Option<&TlsFiles>) -> Result<Tls, ServerError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const GET: &[u8] = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

    fn start(config: &Config) -> SocketAddr {
        started(config).address
    }

    fn started(config: &Config) -> Served {
        let vitals = Arc::new(Vitals::new(config));
        vitals.beat();
        serve(config, &vitals).unwrap().unwrap()
    }

    fn on_any_port() -> Config {
        let mut config = Config::example();
        config.http.listen = "127.0.0.1:0".parse().ok();
        config
    }

    async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
        stream.write_all(GET).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn silent_clients_keep_no_other_from_its_answer() {
        let address = start(&on_any_port());
        let mut silent = Vec::new();
        for _ in 1..CONNECTIONS_MAX {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let answer = ask(TcpStream::connect(address).await.unwrap()).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }

    #[test]
    fn an_address_in_use_is_named() {
        let mut config = on_any_port();
        config.http.listen = Some(start(&config));
        let vitals = Arc::new(Vitals::new(&config));
        let refused = serve(&config, &vitals).err().unwrap();
        let address = config.http.listen.unwrap();
        assert!(refused.to_string().contains(&address.to_string()), "{refused}");
    }

    /// Connects as a client that trusts this certificate only.
    #[cfg(feature = "tls")]
    async fn trusting(
        certificate: &std::path::Path,
        address: SocketAddr,
    ) -> Result<tokio_native_tls::TlsStream<TcpStream>, native_tls::Error> {
        let root = std::fs::read(certificate).unwrap();
        let root = native_tls::Certificate::from_pem(&root).unwrap();
        let client = native_tls::TlsConnector::builder().add_root_certificate(root).build();
        let client = tokio_native_tls::TlsConnector::from(client.unwrap());
        client.connect("localhost", TcpStream::connect(address).await.unwrap()).await
    }

    #[cfg(feature = "tls")]
    #[tokio::test]
    async fn a_new_certificate_counts_for_later_connections_and_a_wrong_one_is_refused() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
        let [first, key, second, second_key] =
            ["certificate.pem", "key.pem", "renewed.pem", "renewed-key.pem"]
                .map(|name| directory.join(name));
        let mut config = on_any_port();
        config.http.tls = Some(TlsFiles { certificate: first.clone(), key: key.clone() });
        let served = started(&config);
        let mut open = trusting(&first, served.address).await.unwrap();
        config.http.tls = Some(TlsFiles { certificate: second.clone(), key: second_key });
        served.give(Access::load(&config.http).unwrap());
        trusting(&second, served.address).await.unwrap();
        assert!(trusting(&first, served.address).await.is_err());
        // Connections that are open go on.
        let answer = ask(&mut open).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        config.http.tls = Some(TlsFiles { certificate: key.clone(), key });
        assert!(Access::load(&config.http).is_err());
    }

    #[cfg(feature = "tls")]
    #[tokio::test]
    async fn with_a_certificate_it_speaks_tls_and_nothing_else() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
        let mut config = on_any_port();
        let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
        config.http.tls = Some(TlsFiles { certificate: certificate.clone(), key });
        let address = start(&config);

        let answer = ask(trusting(&certificate, address).await.unwrap()).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");

        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(GET).await.unwrap();
        let mut answer = Vec::new();
        // It may reset the connection.
        drop(plain.read_to_end(&mut answer).await);
        assert!(!answer.starts_with(b"HTTP"));

        config.http.tls = Some(TlsFiles { key: certificate.clone(), certificate });
        let refused = serve(&config, &Arc::new(Vitals::new(&config))).err().unwrap();
        assert!(matches!(refused, ServerError::Tls { .. }), "{refused}");
    }
}
