//! The service over HTTP, on a real store.

use std::net::SocketAddr;

use annals_store::{Read, RecordedEvent, SchemaName, StoreOptions};
use annals_testkit::{HttpAnswer, Must, Testbed, http_get};
use futures_util::TryStreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

async fn start(bed: &Testbed) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.must("listen");
    let address = listener.local_addr().must("have an address");
    let url = bed.database_url();
    tokio::spawn(async move {
        crate::serve(&url, listener, std::future::pending()).await.must("serve");
    });
    HttpAnswer::until(address, "/health/ready", 200).await;
    address
}

#[tokio::test]
async fn the_service_is_ready_while_its_database_has_the_tables() {
    let bed = Testbed::new("axum_ready").await;
    let schema = SchemaName::new("elsewhere").must("name a schema");
    let store = StoreOptions::default().schema(schema).connect(&bed.database_url()).await;
    let store = store.must("connect");
    let listener = TcpListener::bind("127.0.0.1:0").await.must("listen");
    let address = listener.local_addr().must("have an address");
    let routes = crate::service::routes(store.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await.must("serve") });
    for (ready, migrate) in [(503, true), (200, false)] {
        assert_eq!(http_get(address, "/health/live", "").await.status, 200);
        assert_eq!(http_get(address, "/health/ready", "").await.status, ready);
        if migrate {
            store.migrate().await.must("migrate");
        }
    }
}

/// Posts JSON under a key.
async fn send(address: SocketAddr, path: &str, key: &str, body: &str) -> (u16, String) {
    let mut connection = TcpStream::connect(address).await.must("connect");
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         idempotency-key: {key}\r\ntraceparent: {TRACEPARENT}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).await.must("send a request");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.must("read an answer");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.must("have a status"), answer)
}

fn position(answer: &str) -> i64 {
    let (_, body) = answer.split_once("\r\n\r\n").must("have a body");
    let body: serde_json::Value = serde_json::from_str(body).must("be JSON");
    body["position"].as_i64().must("have a position")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_recorded_once_and_read_back_at_once_with_their_trace() {
    let bed = Testbed::new("axum").await;
    let address = start(&bed).await;
    let key = || Uuid::now_v7().to_string();
    let (status, _) = send(address, "/accounts/ann", &key(), r#"{"owner": "Ann"}"#).await;
    assert_eq!(status, 201);
    let deposit = key();
    let mut answers = Vec::new();
    for replayed in ["false", "true"] {
        let path = "/accounts/ann/deposits";
        let (status, answer) = send(address, path, &deposit, r#"{"cents": 700}"#).await;
        assert_eq!(status, 201, "{answer}");
        assert!(answer.contains(&format!("idempotent-replayed: {replayed}")), "{answer}");
        answers.push(position(&answer));
        // The write is in the read model.
        let path = format!("/accounts/ann?after={}", position(&answer));
        let read = http_get(address, &path, "").await;
        assert_eq!(
            (read.status, read.json()),
            (200, serde_json::json!({"owner": "Ann", "cents": 700}))
        );
    }
    assert_eq!(answers[0], answers[1]);

    let events: Vec<RecordedEvent> =
        bed.store().read(Read::all()).try_collect().await.must("read the log");
    assert_eq!(events.len(), 2);
    for event in &events {
        assert_eq!(event.metadata.traceparent.as_deref(), Some(TRACEPARENT));
        assert!(event.metadata.correlation_id.is_some());
    }
    let refused = [
        ("/accounts/ann", key(), r#"{"owner": "Ann"}"#, 422),
        ("/accounts/ann/deposits", key(), r#"{"cents": 0}"#, 422),
        ("/accounts/ben/deposits", key(), r#"{"cents": 1}"#, 422),
        ("/accounts/ann/deposits", "none".to_owned(), r#"{"cents": 1}"#, 400),
        ("/accounts/a%20b", key(), r#"{"owner": "A"}"#, 400),
    ];
    for (path, key, body, expected) in refused {
        let (status, answer) = send(address, path, &key, body).await;
        assert_eq!(status, expected, "{path}: {answer}");
    }
    // A key belongs to one request.
    let (status, answer) = send(address, "/accounts/ben", &deposit, r#"{"owner": "Ben"}"#).await;
    assert_eq!(status, 409, "{answer}");
    assert_eq!(http_get(address, "/accounts/ben", "").await.status, 404);
    // A position that no event has is not seen in time.
    assert_eq!(http_get(address, "/accounts/ann?after=1000000", "").await.status, 504);
    assert_eq!(http_get(address, "/health/live", "").await.status, 200);
}
