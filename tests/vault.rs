//! Keys in Vault's transit engine: against a server that speaks the part of its API that is used,
//! with its errors.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use annals_store::{
    Append, ExpectedVersion, KeyProvider, PersonalError, PersonalKeys, Subject, VaultKeyProvider,
};
use annals_testkit::{Must, Testbed};
use serde_json::{Value, json};

use crate::audit_log::lines;
use crate::erasing::{named, names, stream};
use crate::key_server::{self, Request};

const TOKEN: &str = "a-token";

/// A key of the engine: its versions, and the plaintexts that each of them encrypted.
#[derive(Debug)]
struct Engine {
    newest: u64,
    oldest: u64,
    is_sealed: bool,
    ciphertexts: BTreeMap<String, Value>,
}

/// An imitation of Vault. Its ciphertexts are names of the plaintexts that it keeps.
struct Vault {
    address: SocketAddr,
    engine: Arc<Mutex<Engine>>,
}

impl Engine {
    fn encrypt(&mut self, plaintext: Value) -> Value {
        let name = format!("vault:v{}:{}", self.newest, self.ciphertexts.len());
        self.ciphertexts.insert(name.clone(), plaintext);
        json!({ "ciphertext": name, "key_version": self.newest })
    }

    fn decrypt(&self, body: &Value) -> Result<Value, (u16, &'static str)> {
        let name = body["ciphertext"].as_str().ok_or((400, "missing ciphertext"))?;
        let version = name.split(':').nth(1).and_then(|version| version[1..].parse().ok());
        if version.is_none_or(|version: u64| version < self.oldest) {
            return Err((400, "ciphertext or signature version is disallowed by policy (too old)"));
        }
        self.ciphertexts.get(name).cloned().ok_or((400, "invalid ciphertext"))
    }

    fn answer(&mut self, request: &Request) -> Result<Value, (u16, &'static str)> {
        if request.headers.get("x-vault-token").is_none_or(|token| token != TOKEN) {
            return Err((403, "permission denied"));
        }
        if self.is_sealed {
            return Err((503, "Vault is sealed"));
        }
        let body = &request.body;
        match &*request.line {
            "POST /v1/transit/encrypt/people" => Ok(self.encrypt(body["plaintext"].clone())),
            "POST /v1/transit/decrypt/people" => Ok(json!({ "plaintext": self.decrypt(body)? })),
            "POST /v1/transit/rewrap/people" => {
                let plaintext = self.decrypt(body)?;
                Ok(self.encrypt(plaintext))
            }
            "POST /v1/transit/keys/people/rotate" => {
                self.newest += 1;
                Ok(Value::Null)
            }
            "GET /v1/transit/keys/people" => Ok(json!({ "latest_version": self.newest })),
            "POST /v1/transit/keys/people/config" => {
                self.oldest = body["min_decryption_version"].as_u64().ok_or((400, "no version"))?;
                Ok(Value::Null)
            }
            "POST /v1/transit/keys/people/trim" => {
                let oldest = body["min_available_version"].as_u64();
                if oldest.is_none_or(|oldest| oldest > self.oldest) {
                    return Err((400, "minimum available version cannot be greater"));
                }
                Ok(Value::Null)
            }
            _ => Err((404, "no handler for route")),
        }
    }
}

impl Vault {
    async fn start() -> Self {
        let engine =
            Engine { newest: 1, oldest: 1, is_sealed: false, ciphertexts: BTreeMap::new() };
        let engine = Arc::new(Mutex::new(engine));
        let shared = Arc::clone(&engine);
        let address = key_server::start(move |request| {
            let mut engine = shared.lock().unwrap_or_else(PoisonError::into_inner);
            match engine.answer(request) {
                Ok(data) => (200, json!({ "request_id": "1", "data": data })),
                Err((status, error)) => (status, json!({ "errors": [error] })),
            }
        });
        let address = address.await;
        Self { address, engine }
    }

    fn provider(&self, token: &str) -> VaultKeyProvider {
        let url = format!("http://{}", self.address);
        VaultKeyProvider::new(&url, token, "people").must("use Vault")
    }

    fn change(&self, change: impl FnOnce(&mut Engine)) {
        change(&mut self.engine.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_wrapped_rotated_and_rewrapped_by_vault() {
    let bed = Testbed::new("vault").await;
    let vault = Vault::start().await;
    let keys = || PersonalKeys::new(bed.store(), vault.provider(TOKEN));
    let subject = Subject::new("customer-1").must("name a subject");
    let key = keys().subject(&subject).await.must("get a key");
    assert_eq!(keys().subject(&subject).await.must("get it again"), key);

    let wrapped = sqlx::query_scalar(include_str!("sql/personal_wrapped.sql"));
    let wrapped = wrapped.bind(subject.as_str());
    let wrapped: Vec<u8> = wrapped.fetch_one(bed.store().pool()).await.must("read the table");
    assert!(wrapped.starts_with(b"vault:v1:"));
    let url = format!("http://{}", vault.address);
    let provider = ["--vault-address", &url, "--vault-token", TOKEN, "--vault-key", "people"];
    let command = |action: &[&str]| lines(&bed, &[&["personal"], &provider[..], action].concat());
    assert_eq!(command(&["rotate"]), [json!({ "rewrapped": 1 })]);
    assert_eq!(command(&["forget-backups"]), [json!({ "destroyed": true })]);
    assert_eq!(keys().subject(&subject).await.must("get it under version 2"), key);
    let lost = vault.provider(TOKEN).unwrap(&wrapped).await.unwrap_err();
    assert!(!lost.is_retryable, "{lost}");
}

#[tokio::test]
async fn a_vault_that_refuses_is_an_error_that_tells_whether_to_try_again() {
    let bed = Testbed::new("vault_refuses").await;
    let vault = Vault::start().await;
    let subject = Subject::new("customer-1").must("name a subject");
    let ask = async |token: &str| {
        let keys = PersonalKeys::new(bed.store(), vault.provider(token));
        match keys.subject(&subject).await {
            Ok(key) => Ok(key),
            Err(PersonalError::Provider(error)) => Err(error),
            Err(other) => panic!("{other}"),
        }
    };
    let denied = ask("another-token").await.unwrap_err();
    assert!(!denied.is_retryable && denied.reason.contains("permission denied"), "{denied}");
    assert!(!format!("{denied:?}").contains("another-token"));
    vault.change(|engine| engine.is_sealed = true);
    let sealed = ask(TOKEN).await.unwrap_err();
    assert!(sealed.is_retryable, "{sealed}");
    vault.change(|engine| engine.is_sealed = false);
    ask(TOKEN).await.must("get a key");
    // An outage does not make a recorded value unknown or erased.
    let keys = || PersonalKeys::new(bed.store(), vault.provider(TOKEN));
    let event = named(&keys(), 1, "Ann").await;
    let append = Append::to(&stream(1), ExpectedVersion::Any, [event]);
    bed.store().append(&append).await.must("append");
    let name = names(bed.store(), 1).await.remove(0);
    vault.change(|engine| engine.is_sealed = true);
    let outage = keys().open(&name).await.unwrap_err();
    let PersonalError::Provider(outage) = outage else { panic!("{outage}") };
    assert!(outage.is_retryable, "{outage}");
    vault.change(|engine| engine.is_sealed = false);
    assert_eq!(keys().open(&name).await.must("open").value().must("be open"), "Ann");
}
