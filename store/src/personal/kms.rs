//! A wrapping key in the AWS Key Management Service: it never leaves the service.
//!
//! API: <https://docs.aws.amazon.com/kms/latest/APIReference/>; signatures:
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html>.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use reqwest::{Client, StatusCode, Url};
use ring::{digest, hmac};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::personal::provider::{KeyProvider, KeyProviderError};

const PROVIDER: &str = "aws-kms";
const DEADLINE: Duration = Duration::from_secs(10);
const CONTENT_TYPE: &str = "application/x-amz-json-1.1";
/// The headers of a request that its signature covers, without that of a session.
const SIGNED: &str = "content-type;host;x-amz-date;x-amz-target";

/// What requests to AWS are signed with.
#[derive(Clone)]
pub struct AwsCredentials {
    /// The id of the access key.
    pub access_key_id: String,
    /// The secret of the access key.
    pub secret_access_key: Zeroizing<String>,
    /// The token of a session, as roles have it.
    pub session_token: Option<Zeroizing<String>>,
}

/// A symmetric key of the AWS Key Management Service.
///
/// The credentials need `kms:Encrypt` and `kms:Decrypt` on the key; for rotations also
/// `kms:ReEncrypt*` and `kms:RotateKeyOnDemand`. Renewing those of a session is the application's
/// work: [`set_credentials`](Self::set_credentials).
///
/// The service keeps earlier key material as long as the key exists. So it refuses
/// [`destroy_earlier_wrapping_keys`](crate::PersonalKeys::destroy_earlier_wrapping_keys). Use
/// another key instead: [`rotate`](crate::PersonalKeys::rotate) with a provider of the new key
/// encrypts all keys with it, and then schedule the deletion of the old one.
pub struct AwsKmsKeyProvider {
    client: Client,
    endpoint: Url,
    region: String,
    key_id: String,
    context: BTreeMap<String, String>,
    credentials: RwLock<AwsCredentials>,
}

impl AwsKmsKeyProvider {
    /// The key with this id or ARN in a region, such as `eu-central-1`.
    ///
    /// # Errors
    /// [`KeyProviderError`] if the HTTP client cannot be made, or the region is none.
    pub fn new(
        region: &str,
        key_id: &str,
        credentials: AwsCredentials,
    ) -> Result<Self, KeyProviderError> {
        let client = Client::builder().timeout(DEADLINE).build();
        let client = client.map_err(|error| failed("make an HTTP client", &error))?;
        let endpoint = parse(&format!("https://kms.{region}.amazonaws.com"))?;
        let (region, key_id) = (region.to_owned(), key_id.to_owned());
        let (context, credentials) = (BTreeMap::new(), RwLock::new(credentials));
        Ok(Self { client, endpoint, region, key_id, context, credentials })
    }

    /// Encrypts in this encryption context: names and values that are authenticated with each key.
    /// The service decrypts a key only in the context in which it was encrypted, logs the context
    /// with each request, and its policies can require it. It is not secret.
    ///
    /// Set it before the first key is made, and do not change it: keys that were encrypted in
    /// another context, or without one, are refused.
    #[must_use]
    pub fn encryption_context(mut self, context: BTreeMap<String, String>) -> Self {
        self.context = context;
        self
    }

    /// Another endpoint than that of the region, such as one in a private network.
    ///
    /// # Errors
    /// [`KeyProviderError`] if it is no URL.
    pub fn at(self, endpoint: &str) -> Result<Self, KeyProviderError> {
        Ok(Self { endpoint: parse(endpoint)?, ..self })
    }

    /// Replaces the credentials, before they expire.
    pub fn set_credentials(&self, credentials: AwsCredentials) {
        *self.credentials.write().unwrap_or_else(PoisonError::into_inner) = credentials;
    }

    /// One operation of the service.
    async fn request(
        &self,
        action: &'static str,
        operation: &str,
        body: Value,
    ) -> Result<Value, KeyProviderError> {
        let (body, target) = (body.to_string(), format!("TrentService.{operation}"));
        let mut request = self.client.post(self.endpoint.clone());
        for (name, value) in self.signed(&target, &body, Timestamp::now()) {
            request = request.header(name, value);
        }
        let answer = request.body(body).send().await;
        let answer = answer.map_err(|error| unavailable(action, &error.without_url()))?;
        let status = answer.status();
        let text = answer.bytes().await;
        let text = text.map_err(|error| unavailable(action, &error.without_url()))?;
        let answer: Value = serde_json::from_slice(&text).unwrap_or_default();
        if status.is_success() { Ok(answer) } else { Err(refused(action, status, &answer)) }
    }

    /// The headers of a request, with its signature.
    fn signed(&self, target: &str, body: &str, now: Timestamp) -> Vec<(&'static str, String)> {
        let credentials = self.credentials.read().unwrap_or_else(PoisonError::into_inner).clone();
        let time = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        let host = self.endpoint.host_str().unwrap_or_default();
        let host = match self.endpoint.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let token = credentials.session_token.as_ref();
        // In the order of their names, as the signature wants them.
        let session = token.map(|token| format!("x-amz-security-token:{}\n", token.as_str()));
        let session = Zeroizing::new(session.unwrap_or_default());
        let names = match token {
            Some(_) => SIGNED.replace(";x-amz-target", ";x-amz-security-token;x-amz-target"),
            None => SIGNED.to_owned(),
        };
        let canonical = Zeroizing::new(format!(
            "POST\n/\n\ncontent-type:{CONTENT_TYPE}\nhost:{host}\nx-amz-date:{time}\n{}\
             x-amz-target:{target}\n\n{names}\n{}",
            session.as_str(),
            hex(digest::digest(&digest::SHA256, body.as_bytes()).as_ref())
        ));
        let scope = Scope { time: &time, region: &self.region, service: "kms" };
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={names}, Signature={}",
            credentials.access_key_id,
            scope.name(),
            scope.signature(&credentials.secret_access_key, &canonical)
        );
        let mut headers = vec![
            ("content-type", CONTENT_TYPE.to_owned()),
            ("x-amz-date", time),
            ("x-amz-target", target.to_owned()),
            ("authorization", authorization),
        ];
        headers.extend(token.map(|token| ("x-amz-security-token", token.to_string())));
        headers
    }

    /// An operation whose answer has bytes.
    async fn bytes(
        &self,
        (action, operation): (&'static str, &str),
        body: Value,
        field: &str,
    ) -> Result<Zeroizing<Vec<u8>>, KeyProviderError> {
        let answer = self.request(action, operation, body).await?;
        let text = answer.get(field).and_then(Value::as_str);
        let text = text.ok_or_else(|| failed(action, &format!("the answer lacks {field}")))?;
        let bytes = STANDARD.decode(text);
        let bytes = bytes.map_err(|_quotes| failed(action, &"the answer is no base64"))?;
        Ok(Zeroizing::new(bytes))
    }

    /// A request with the encryption context in these fields, if there is one.
    fn in_context(&self, mut body: Value, fields: &[&str]) -> Value {
        for field in fields.iter().filter(|_| !self.context.is_empty()) {
            body[*field] = json!(self.context);
        }
        body
    }

    async fn rotate_now(&self) -> Result<(), KeyProviderError> {
        let body = json!({ "KeyId": self.key_id });
        self.request("rotate the wrapping key", "RotateKeyOnDemand", body).await.map(drop)
    }
}

impl KeyProvider for AwsKmsKeyProvider {
    fn wrap<'a>(&'a self, secret: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, KeyProviderError>> {
        Box::pin(async move {
            let body = json!({ "KeyId": self.key_id, "Plaintext": STANDARD.encode(secret) });
            let body = self.in_context(body, &["EncryptionContext"]);
            let wrapped = self.bytes(("encrypt a key", "Encrypt"), body, "CiphertextBlob").await?;
            Ok(wrapped.to_vec())
        })
    }

    fn unwrap<'a>(
        &'a self,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<Zeroizing<Vec<u8>>, KeyProviderError>> {
        Box::pin(async move {
            // The ciphertext names its key, which can be the one before.
            let body = json!({ "CiphertextBlob": STANDARD.encode(wrapped) });
            let body = self.in_context(body, &["EncryptionContext"]);
            self.bytes(("decrypt a key", "Decrypt"), body, "Plaintext").await
        })
    }

    fn rewrap<'a>(&'a self, wrapped: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, KeyProviderError>> {
        const WHAT: (&str, &str) = ("encrypt a key again", "ReEncrypt");
        Box::pin(async move {
            let blob = STANDARD.encode(wrapped);
            let body = json!({ "CiphertextBlob": blob, "DestinationKeyId": self.key_id });
            let fields = ["SourceEncryptionContext", "DestinationEncryptionContext"];
            let body = self.in_context(body, &fields);
            Ok(self.bytes(WHAT, body, "CiphertextBlob").await?.to_vec())
        })
    }

    fn rotate(&self) -> BoxFuture<'_, Result<(), KeyProviderError>> {
        Box::pin(self.rotate_now())
    }

    fn destroy_earlier_versions(&self) -> BoxFuture<'_, Result<(), KeyProviderError>> {
        const REASON: &str = "the service keeps earlier key material as long as the key: rotate to \
                              another key, and schedule the deletion of this one";
        let refused = failed("destroy earlier versions of the wrapping key", &REASON);
        Box::pin(std::future::ready(Err(refused)))
    }
}

/// Without the credentials.
impl fmt::Debug for AwsKmsKeyProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsKmsKeyProvider")
            .field("endpoint", &self.endpoint.as_str())
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// Without the secrets.
impl fmt::Debug for AwsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsCredentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

/// What a signature is valid for.
struct Scope<'a> {
    /// As `20150830T123600Z`.
    time: &'a str,
    region: &'a str,
    service: &'a str,
}

impl Scope<'_> {
    fn date(&self) -> &str {
        self.time.get(..8).unwrap_or_default()
    }

    fn name(&self) -> String {
        format!("{}/{}/{}/aws4_request", self.date(), self.region, self.service)
    }

    /// The signature, version 4, of a canonical request.
    fn signature(&self, secret: &str, canonical_request: &str) -> String {
        let hash = hex(digest::digest(&digest::SHA256, canonical_request.as_bytes()).as_ref());
        let text = format!("AWS4-HMAC-SHA256\n{}\n{}\n{hash}", self.time, self.name());
        let secret = Zeroizing::new(format!("AWS4{secret}"));
        let mut key = sign(secret.as_bytes(), self.date());
        for part in [self.region, self.service, "aws4_request"] {
            key = sign(key.as_ref(), part);
        }
        hex(sign(key.as_ref(), &text).as_ref())
    }
}

fn sign(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse(endpoint: &str) -> Result<Url, KeyProviderError> {
    Url::parse(endpoint).map_err(|error| failed("read the endpoint", &error))
}

/// The errors that the service names.
fn refused(action: &'static str, status: StatusCode, answer: &Value) -> KeyProviderError {
    let text = |field| answer.get(field).and_then(Value::as_str).unwrap_or_default();
    let kind = text("__type").rsplit('#').next().unwrap_or_default();
    let retryable = ["ThrottlingException", "LimitExceededException", "KeyUnavailableException"];
    let reason = format!("status {}: {kind}: {}", status.as_u16(), text("message"));
    if status.is_server_error() || retryable.contains(&kind) {
        return unavailable(action, &reason);
    }
    failed(action, &reason)
}

/// A failure that a later try does not have to meet.
fn unavailable(action: &'static str, reason: &dyn fmt::Display) -> KeyProviderError {
    KeyProviderError { is_retryable: true, ..failed(action, reason) }
}

fn failed(action: &'static str, reason: &dyn fmt::Display) -> KeyProviderError {
    KeyProviderError { provider: PROVIDER, action, reason: reason.to_string(), is_retryable: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the documentation of AWS.
    #[test]
    fn a_request_is_signed_as_aws_does() {
        let canonical = "GET\n/\nAction=ListUsers&Version=2010-05-08\n\
             content-type:application/x-www-form-urlencoded; charset=utf-8\n\
             host:iam.amazonaws.com\nx-amz-date:20150830T123600Z\n\n\
             content-type;host;x-amz-date\n\
             e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let scope = Scope { time: "20150830T123600Z", region: "us-east-1", service: "iam" };
        let signature = scope.signature("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", canonical);
        assert_eq!(signature, "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7");
    }
}
