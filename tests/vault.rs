//! Keys in Vault's transit engine: against a server that speaks the part of its API that is used,
//! with its errors.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use annals_store::{KeyProvider, Personal, PersonalError, PersonalKeys, Subject, VaultKeyProvider};
use annals_testkit::{Must, Testbed};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

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

    fn answer(&mut self, request: &str, body: &Value) -> Result<Value, (u16, &'static str)> {
        if self.is_sealed {
            return Err((503, "Vault is sealed"));
        }
        match request {
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
        let listener = TcpListener::bind("127.0.0.1:0").await.must("listen");
        let address = listener.local_addr().must("have an address");
        let shared = Arc::clone(&engine);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, Arc::clone(&shared)));
            }
        });
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

/// Answers the requests of one connection.
async fn serve(connection: TcpStream, engine: Arc<Mutex<Engine>>) {
    let mut connection = BufReader::new(connection);
    loop {
        let (mut request, mut token, mut length) = (String::new(), None, 0);
        loop {
            let mut line = String::new();
            if connection.read_line(&mut line).await.unwrap_or_default() == 0 {
                return;
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            match line.split_once(": ") {
                None => request = line.trim_end_matches(" HTTP/1.1").to_owned(),
                Some((name, value)) => match name.to_ascii_lowercase().as_str() {
                    "x-vault-token" => token = Some(value.to_owned()),
                    "content-length" => length = value.parse().must("read a length"),
                    _ => {}
                },
            }
        }
        let mut body = vec![0; length];
        connection.read_exact(&mut body).await.must("read a body");
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let answer = match token.as_deref() {
            Some(TOKEN) => {
                engine.lock().unwrap_or_else(PoisonError::into_inner).answer(&request, &body)
            }
            Some(_) | None => Err((403, "permission denied")),
        };
        let (status, answer) = match answer {
            Ok(data) => (200, json!({ "request_id": "1", "data": data })),
            Err((status, error)) => (status, json!({ "errors": [error] })),
        };
        let answer = answer.to_string();
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", answer.len());
        connection.write_all((head + &answer).as_bytes()).await.must("answer");
    }
}

#[tokio::test]
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
    assert_eq!(keys().rotate().await.must("rotate"), 1);
    keys().destroy_earlier_wrapping_keys().await.must("destroy version 1");
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
    let key = ask(TOKEN).await.must("get a key");
    // An outage does not make values unknown or erased.
    vault.change(|engine| engine.is_sealed = true);
    assert!(ask(TOKEN).await.unwrap_err().is_retryable);
    let value: Personal<String> = Personal::new(key, "Ann".to_owned());
    assert!(!value.is_erased());
}
