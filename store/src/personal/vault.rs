//! A wrapping key in the transit engine of HashiCorp Vault, or OpenBao: it never leaves the server.
//!
//! API: <https://developer.hashicorp.com/vault/api-docs/secret/transit>.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::personal::provider::{KeyProvider, KeyProviderError};

const PROVIDER: &str = "vault";
const DEADLINE: Duration = Duration::from_secs(10);

/// A named key of Vault's transit engine, of a type that encrypts (`aes256-gcm96` by default).
///
/// The token needs `update` on `transit/encrypt/<key>` and `transit/decrypt/<key>`; for rotations
/// also on `rewrap/<key>`, `keys/<key>/rotate`, `keys/<key>/config` and `keys/<key>/trim`, and
/// `read` on `keys/<key>`. Renewing the token is the application's work:
/// [`set_token`](Self::set_token).
pub struct VaultKeyProvider {
    client: Client,
    /// `<address>/v1/<mount>`.
    base: String,
    key: String,
    token: std::sync::RwLock<Zeroizing<String>>,
}

impl VaultKeyProvider {
    /// The key `key` of the transit engine at `transit` of a server, such as
    /// `https://vault.example.org:8200`.
    ///
    /// # Errors
    /// [`KeyProviderError`] if the HTTP client cannot be made.
    pub fn new(address: &str, token: &str, key: &str) -> Result<Self, KeyProviderError> {
        let client = Client::builder().timeout(DEADLINE).build();
        let client = client.map_err(|error| permanent("make an HTTP client", &error))?;
        Ok(Self {
            client,
            base: format!("{}/v1/transit", address.trim_end_matches('/')),
            key: key.to_owned(),
            token: std::sync::RwLock::new(Zeroizing::new(token.to_owned())),
        })
    }

    /// Another mount of the engine than `transit`.
    #[must_use]
    pub fn mounted_at(mut self, mount: &str) -> Self {
        if let Some((address, _transit)) = self.base.rsplit_once("/v1/") {
            self.base = format!("{address}/v1/{}", mount.trim_matches('/'));
        }
        self
    }

    /// Replaces the token, before it expires.
    pub fn set_token(&self, token: &str) {
        let mut own = self.token.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        *own = Zeroizing::new(token.to_owned());
    }

    /// One request; the object `data` of the answer.
    async fn request(
        &self,
        action: &'static str,
        method: Method,
        path: String,
        body: Value,
    ) -> Result<Value, KeyProviderError> {
        let token = self.token.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let mut request = self.client.request(method.clone(), format!("{}/{path}", self.base));
        request = request.header("X-Vault-Token", token.as_str());
        if method == Method::POST {
            request = request.header("Content-Type", "application/json").body(body.to_string());
        }
        let answer =
            request.send().await.map_err(|error| transient(action, &error.without_url()))?;
        let status = answer.status();
        let text = answer.bytes().await;
        let text = text.map_err(|error| transient(action, &error.without_url()))?;
        if !status.is_success() {
            return Err(refused(action, status, &text));
        }
        let answer: Value = serde_json::from_slice(&text).unwrap_or_default();
        Ok(answer.get("data").cloned().unwrap_or_default())
    }

    /// A request whose answer has a text.
    async fn text(
        &self,
        action: &'static str,
        operation: &str,
        body: Value,
        field: &str,
    ) -> Result<Zeroizing<String>, KeyProviderError> {
        let path = format!("{operation}/{}", self.key);
        let data = self.request(action, Method::POST, path, body).await?;
        let text = data.get(field).and_then(Value::as_str);
        let text = text.ok_or_else(|| permanent(action, &format!("the answer lacks {field}")));
        text.map(|text| Zeroizing::new(text.to_owned()))
    }

    async fn rotate_now(&self) -> Result<(), KeyProviderError> {
        let path = format!("keys/{}/rotate", self.key);
        self.request("rotate the wrapping key", Method::POST, path, json!({})).await.map(drop)
    }

    async fn destroy_earlier_now(&self) -> Result<(), KeyProviderError> {
        const ACTION: &str = "destroy earlier versions of the wrapping key";
        let key = format!("keys/{}", self.key);
        let data = self.request(ACTION, Method::GET, key.clone(), Value::Null).await?;
        let newest = data.get("latest_version").and_then(Value::as_u64);
        let newest = newest.ok_or_else(|| permanent(ACTION, &"the answer lacks latest_version"))?;
        let limits = json!({ "min_decryption_version": newest, "min_encryption_version": newest });
        self.request(ACTION, Method::POST, format!("{key}/config"), limits).await?;
        let trim = json!({ "min_available_version": newest });
        self.request(ACTION, Method::POST, format!("{key}/trim"), trim).await.map(drop)
    }
}

impl KeyProvider for VaultKeyProvider {
    fn wrap<'a>(&'a self, secret: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, KeyProviderError>> {
        Box::pin(async move {
            let body = json!({ "plaintext": STANDARD.encode(secret) });
            let text = self.text("encrypt a key", "encrypt", body, "ciphertext").await?;
            Ok(text.as_bytes().to_vec())
        })
    }

    fn unwrap<'a>(
        &'a self,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<Zeroizing<Vec<u8>>, KeyProviderError>> {
        const ACTION: &str = "decrypt a key";
        Box::pin(async move {
            let body = json!({ "ciphertext": ciphertext(ACTION, wrapped)? });
            let text = self.text(ACTION, "decrypt", body, "plaintext").await?;
            let secret = STANDARD.decode(text.as_bytes());
            let secret = secret.map_err(|_quotes| permanent(ACTION, &"the answer is no base64"))?;
            Ok(Zeroizing::new(secret))
        })
    }

    fn rewrap<'a>(&'a self, wrapped: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, KeyProviderError>> {
        const ACTION: &str = "encrypt a key again";
        Box::pin(async move {
            let body = json!({ "ciphertext": ciphertext(ACTION, wrapped)? });
            let text = self.text(ACTION, "rewrap", body, "ciphertext").await?;
            Ok(text.as_bytes().to_vec())
        })
    }

    fn rotate(&self) -> BoxFuture<'_, Result<(), KeyProviderError>> {
        Box::pin(self.rotate_now())
    }

    fn destroy_earlier_versions(&self) -> BoxFuture<'_, Result<(), KeyProviderError>> {
        Box::pin(self.destroy_earlier_now())
    }
}

/// Without the token.
impl fmt::Debug for VaultKeyProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultKeyProvider")
            .field("base", &self.base)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

fn ciphertext<'a>(action: &'static str, wrapped: &'a [u8]) -> Result<&'a str, KeyProviderError> {
    let text = std::str::from_utf8(wrapped).ok().filter(|text| text.starts_with("vault:v"));
    text.ok_or_else(|| permanent(action, &"the bytes were not encrypted by Vault"))
}

/// The errors that the server names.
fn refused(action: &'static str, status: StatusCode, text: &[u8]) -> KeyProviderError {
    let answer: Value = serde_json::from_slice(text).unwrap_or_default();
    let errors = answer.get("errors").cloned().unwrap_or_default();
    let reason = format!("status {}: {errors}", status.as_u16());
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        transient(action, &reason)
    } else {
        permanent(action, &reason)
    }
}

/// A failure that a later try can end.
fn transient(action: &'static str, reason: &dyn fmt::Display) -> KeyProviderError {
    KeyProviderError { is_retryable: true, ..permanent(action, reason) }
}

/// A failure that each try would meet.
fn permanent(action: &'static str, reason: &dyn fmt::Display) -> KeyProviderError {
    let reason = reason.to_string();
    KeyProviderError { provider: PROVIDER, action, reason, is_retryable: false }
}
