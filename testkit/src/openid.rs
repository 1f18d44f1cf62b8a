//! An OpenID provider that issues tokens to clients with a secret.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use openssl::base64::encode_block;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::must::Must;

const KEY_BITS: u32 = 2_048;
const KEY_ID: &str = "test";
const REQUEST_BYTES_MAX: usize = 65_536;
const TOKEN_SECONDS: u64 = 600;

/// The provider: `/token` for clients, `/keys` for brokers. Ends with the test.
#[derive(Debug)]
pub struct OpenIdProvider {
    port: u16,
    task: JoinHandle<()>,
}

struct Secrets {
    key: PKey<Private>,
    /// The value of the header with the login of the client.
    login: String,
    client: &'static str,
}

impl OpenIdProvider {
    /// Starts one that knows one client with its secret; the client's name is the subject of its
    /// tokens.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start(client: &'static str, secret: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.must("listen as a provider");
        let port = listener.local_addr().must("listen as a provider").port();
        let rsa = Rsa::generate(KEY_BITS).must("make a key");
        let login = format!("Basic {}", encode_block(format!("{client}:{secret}").as_bytes()));
        let key = PKey::from_rsa(rsa).must("make a key");
        let secrets = Arc::new(Secrets { key, login, client });
        Self { port, task: tokio::spawn(accept(listener, secrets)) }
    }

    /// The address for clients.
    #[must_use]
    pub fn token_url(&self) -> String {
        format!("http://127.0.0.1:{}/token", self.port)
    }

    /// The address for brokers.
    #[must_use]
    pub fn keys_url(&self) -> String {
        format!("http://127.0.0.1:{}/keys", self.port)
    }
}

impl Drop for OpenIdProvider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, secrets: Arc<Secrets>) {
    loop {
        let (connection, _) = listener.accept().await.must("accept a client");
        tokio::spawn(answer(connection, Arc::clone(&secrets)));
    }
}

async fn answer(mut connection: TcpStream, secrets: Arc<Secrets>) {
    let mut request = vec![0; REQUEST_BYTES_MAX];
    let Ok(length) = connection.read(&mut request).await else { return };
    let request = String::from_utf8_lossy(&request[..length]).into_owned();
    let has_login = request.lines().any(|line| {
        let (name, value) = line.split_once(": ").unwrap_or_default();
        name.eq_ignore_ascii_case("authorization") && value == secrets.login
    });
    let (status, body) = if request.starts_with("GET /keys") {
        ("200 OK", secrets.keys())
    } else if has_login {
        ("200 OK", secrets.token())
    } else {
        ("401 Unauthorized", r#"{"error":"invalid_client"}"#.to_owned())
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    drop(connection.write_all(answer.as_bytes()).await);
}

impl Secrets {
    fn keys(&self) -> String {
        let rsa = self.key.rsa().must("find the key");
        let (n, e) = (base64url(&rsa.n().to_vec()), base64url(&rsa.e().to_vec()));
        serde_json::json!({ "keys": [
            { "kty": "RSA", "kid": KEY_ID, "use": "sig", "alg": "RS256", "n": n, "e": e }
        ] })
        .to_string()
    }

    fn token(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let header = serde_json::json!({ "alg": "RS256", "typ": "JWT", "kid": KEY_ID });
        let claims = serde_json::json!({
            "iss": "https://provider.test", "sub": self.client, "aud": "kafka", "iat": now,
            "exp": now + TOKEN_SECONDS
        });
        let [header, claims] = [header, claims].map(|part| base64url(part.to_string().as_bytes()));
        let signed = format!("{header}.{claims}");
        let signature = Signer::new(MessageDigest::sha256(), &self.key)
            .and_then(|mut signer| signer.sign_oneshot_to_vec(signed.as_bytes()));
        let token = format!("{signed}.{}", base64url(&signature.must("sign a token")));
        serde_json::json!({
            "access_token": token, "token_type": "Bearer", "expires_in": TOKEN_SECONDS
        })
        .to_string()
    }
}

fn base64url(bytes: &[u8]) -> String {
    encode_block(bytes).replace('\n', "").replace('+', "-").replace('/', "_").replace('=', "")
}
