//! Keys in the AWS Key Management Service: against a server that speaks the part of its API that is
//! used, verifies the signatures of requests, and answers with the errors of the service.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use annals_store::{
    AwsCredentials, AwsKmsKeyProvider, KeyProvider, KeyProviderError, PersonalError, PersonalKeys,
    Subject, SubjectKey,
};
use annals_testkit::{Must, Testbed};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sha::sha256;
use openssl::sign::Signer;
use serde_json::{Value, json};

use crate::audit_log::lines;
use crate::key_server::{self, Request};

/// The service: its keys, by their ids, with the number of their rotations, and their
/// ciphertexts.
#[derive(Debug, Default)]
struct Service {
    keys: BTreeMap<String, u32>,
    ciphertexts: BTreeMap<String, Encrypted>,
    is_throttled: bool,
}

#[derive(Debug)]
struct Encrypted {
    key: String,
    plaintext: Value,
    /// The encryption context; null without one.
    context: Value,
}

type Refused = (u16, &'static str);

const SECRET: &str = "a-secret";

/// The signature, version 4, of a request with these signed headers, for a date, region and
/// service.
fn signature(request: &Request, names: &str, scope: &str) -> String {
    let header = |name: &str| request.headers.get(name).map(String::as_str).unwrap_or_default();
    let headers: String =
        names.split(';').map(|name| format!("{name}:{}\n", header(name))).collect();
    let body = hex(&sha256(&request.bytes));
    let canonical = format!("POST\n/\n\n{headers}\n{names}\n{body}");
    let canonical = hex(&sha256(canonical.as_bytes()));
    let text = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{canonical}", header("x-amz-date"));
    let first = format!("AWS4{SECRET}").into_bytes();
    let key = scope.split('/').fold(first, |key, part| hmac(&key, part));
    hex(&hmac(&key, &text))
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let key = PKey::hmac(key).must("use a key");
    let mut signer = Signer::new(MessageDigest::sha256(), &key).must("sign");
    signer.update(text.as_bytes()).must("sign");
    signer.sign_to_vec().must("sign")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the authorization of a request is that of its content, with all headers that matter.
fn is_signed(request: &Request) -> bool {
    const NAMES: &str = "content-type;host;x-amz-date;x-amz-security-token;x-amz-target";
    let authorization = request.headers.get("authorization").map(String::as_str);
    let parts =
        authorization.and_then(|text| text.strip_prefix("AWS4-HMAC-SHA256 Credential=an-id/"));
    let parts = parts.and_then(|text| text.split_once(", SignedHeaders="));
    let Some((scope, (names, found))) =
        parts.and_then(|(scope, rest)| Some((scope, rest.split_once(", Signature=")?)))
    else {
        return false;
    };
    let is_of_now =
        request.headers["x-amz-date"].starts_with(scope.split('/').next().unwrap_or("-"));
    let is_complete = names == NAMES && scope.ends_with("/eu-central-1/kms/aws4_request");
    is_of_now && is_complete && signature(request, names, scope) == found
}

impl Service {
    fn encrypt(&mut self, key: &Value, plaintext: Value, context: Value) -> Result<Value, Refused> {
        let key = key.as_str().filter(|key| self.keys.contains_key(*key));
        let key = key.ok_or((400, "NotFoundException"))?.to_owned();
        // Bytes in base64 without padding, as long as the number has three digits.
        let blob = format!("blob{}", 1_000 + self.ciphertexts.len());
        self.ciphertexts.insert(blob.clone(), Encrypted { key, plaintext, context });
        Ok(json!({ "CiphertextBlob": blob }))
    }

    fn decrypt(&self, body: &Value, context: &Value) -> Result<Value, Refused> {
        let blob = body["CiphertextBlob"].as_str().unwrap_or_default();
        let found = self.ciphertexts.get(blob).filter(|found| found.context == *context);
        let found = found.ok_or((400, "InvalidCiphertextException"))?;
        // A key that is scheduled for deletion decrypts nothing.
        let is_usable = self.keys.contains_key(&found.key);
        is_usable.then(|| found.plaintext.clone()).ok_or((400, "KMSInvalidStateException"))
    }

    fn answer(&mut self, request: &Request) -> Result<Value, Refused> {
        let header = |name: &str| request.headers.get(name).map(String::as_str).unwrap_or_default();
        if header("x-amz-security-token") != "a-token" {
            return Err((400, "UnrecognizedClientException"));
        }
        if !is_signed(request) {
            return Err((400, "InvalidSignatureException"));
        }
        if self.is_throttled {
            return Err((400, "ThrottlingException"));
        }
        let body = &request.body;
        let context = &body["EncryptionContext"];
        match header("x-amz-target") {
            "TrentService.Encrypt" => {
                self.encrypt(&body["KeyId"], body["Plaintext"].clone(), context.clone())
            }
            "TrentService.Decrypt" => Ok(json!({ "Plaintext": self.decrypt(body, context)? })),
            "TrentService.ReEncrypt" => {
                let plaintext = self.decrypt(body, &body["SourceEncryptionContext"])?;
                let context = body["DestinationEncryptionContext"].clone();
                self.encrypt(&body["DestinationKeyId"], plaintext, context)
            }
            "TrentService.RotateKeyOnDemand" => {
                let key = self.keys.get_mut(body["KeyId"].as_str().unwrap_or_default());
                *key.ok_or((400, "NotFoundException"))? += 1;
                Ok(json!({ "KeyId": body["KeyId"] }))
            }
            _ => Err((400, "UnknownOperationException")),
        }
    }
}

/// A stand-in for the service, with the keys `first` and `second`.
struct Kms {
    address: SocketAddr,
    service: Arc<Mutex<Service>>,
}

impl Kms {
    async fn start() -> Self {
        let keys = ["first", "second"].map(|key| (key.to_owned(), 0)).into();
        let service = Arc::new(Mutex::new(Service { keys, ..Service::default() }));
        let shared = Arc::clone(&service);
        let address = key_server::start(move |request| {
            let mut service = shared.lock().unwrap_or_else(PoisonError::into_inner);
            match service.answer(request) {
                Ok(answer) => (200, answer),
                Err((status, kind)) => (status, json!({ "__type": kind, "message": "refused" })),
            }
        });
        Self { address: address.await, service }
    }

    fn provider(&self, key: &str, token: &str) -> AwsKmsKeyProvider {
        let credentials = credentials(SECRET, token);
        let provider = AwsKmsKeyProvider::new("eu-central-1", key, credentials).must("use the key");
        provider.at(&format!("http://{}", self.address)).must("use the stand-in")
    }

    fn change(&self, change: impl FnOnce(&mut Service)) {
        change(&mut self.service.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn credentials(secret: &str, token: &str) -> AwsCredentials {
    AwsCredentials {
        access_key_id: "an-id".to_owned(),
        secret_access_key: secret.to_owned().into(),
        session_token: Some(token.to_owned().into()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_wrapped_by_kms_and_moved_to_another_of_its_keys() {
    let bed = Testbed::new("kms").await;
    let kms = Kms::start().await;
    let keys = |key: &str| PersonalKeys::new(bed.store(), kms.provider(key, "a-token"));
    let subject = Subject::new("customer-1").must("name a subject");
    let key = keys("first").subject(&subject).await.must("get a key");
    assert_eq!(keys("first").subject(&subject).await.must("get it again"), key);

    assert_eq!(keys("first").rotate().await.must("rotate"), 1);
    kms.change(|service| assert_eq!(service.keys["first"], 1));
    // Its earlier material stays as long as the key.
    let refused = keys("first").destroy_earlier_wrapping_keys().await.unwrap_err();
    assert!(matches!(&refused, PersonalError::Provider(error) if !error.is_retryable), "{refused}");
    assert_eq!(rotate_by_command(&bed, &kms, "second"), [json!({ "rewrapped": 1 })]);
    kms.change(|service| {
        service.keys.remove("first");
    });
    assert_eq!(keys("second").subject(&subject).await.must("get it under the other key"), key);
}

fn rotate_by_command(bed: &Testbed, kms: &Kms, key: &str) -> Vec<Value> {
    let endpoint = format!("http://{}", kms.address);
    let of_key = ["--kms-key", key, "--kms-region", "eu-central-1", "--kms-endpoint", &endpoint];
    let login =
        ["--kms-access-key", "an-id", "--kms-secret-key", SECRET, "--kms-session-token", "a-token"];
    lines(bed, &[&["personal"], &of_key[..], &login, &["rotate"]].concat())
}

#[tokio::test]
async fn a_key_is_decrypted_in_its_encryption_context_only() {
    let bed = Testbed::new("kms_context").await;
    let kms = Kms::start().await;
    let keys = |key: &str, shop: &str| {
        let context = BTreeMap::from([("shop".to_owned(), shop.to_owned())]);
        let provider = kms.provider(key, "a-token").encryption_context(context);
        PersonalKeys::new(bed.store(), provider)
    };
    let subject = Subject::new("customer-1").must("name a subject");
    let key = keys("first", "here").subject(&subject).await.must("get a key");
    let without = PersonalKeys::new(bed.store(), kms.provider("first", "a-token"));
    for others in [keys("first", "elsewhere"), without] {
        let refused = others.subject(&subject).await.unwrap_err();
        let PersonalError::Provider(error) = refused else { panic!("{refused}") };
        assert!(!error.is_retryable && error.reason.contains("InvalidCiphertext"), "{error}");
    }
    assert_eq!(keys("second", "here").rotate().await.must("rotate to another key"), 1);
    assert_eq!(keys("second", "here").subject(&subject).await.must("get it again"), key);
    assert!(keys("second", "elsewhere").subject(&subject).await.is_err());
}

#[tokio::test]
async fn a_kms_that_refuses_is_an_error_that_tells_whether_to_try_again() {
    let bed = Testbed::new("kms_refuses").await;
    let kms = Kms::start().await;
    let subject = Subject::new("customer-1").must("name a subject");
    let ask = async |key: &str, token: &str| -> Result<SubjectKey, KeyProviderError> {
        let keys = PersonalKeys::new(bed.store(), kms.provider(key, token));
        match keys.subject(&subject).await {
            Ok(key) => Ok(key),
            Err(PersonalError::Provider(error)) => Err(error),
            Err(other) => panic!("{other}"),
        }
    };
    let denied = ask("first", "another-token").await.unwrap_err();
    assert!(!denied.is_retryable && denied.reason.contains("UnrecognizedClient"), "{denied}");
    let provider = kms.provider("first", "a-token");
    provider.set_credentials(credentials("another-secret", "a-token"));
    let forged = provider.wrap(b"a key").await.unwrap_err();
    assert!(!forged.is_retryable && forged.reason.contains("InvalidSignature"), "{forged}");
    provider.set_credentials(credentials(SECRET, "a-token"));
    provider.wrap(b"a key").await.must("wrap a key with the credentials that follow");
    assert!(!format!("{:?}", kms.provider("first", "a-token")).contains("a-token"));
    assert!(!ask("third", "a-token").await.unwrap_err().is_retryable);
    kms.change(|service| service.is_throttled = true);
    let throttled = ask("first", "a-token").await.unwrap_err();
    assert!(throttled.is_retryable, "{throttled}");
    kms.change(|service| service.is_throttled = false);
    ask("first", "a-token").await.must("get a key");
}
