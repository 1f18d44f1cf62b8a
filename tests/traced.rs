//! With a collector, the relay's spans are in the trace of the append, and records carry it on to
//! consumers.

use annals_consumer::{Consumer, ConsumerSettings};
use annals_store::{Append, ExpectedVersion, Metadata};
use annals_testkit::{
    CATEGORY, Must, RelayProcess, Testbed, account, deposited, http_get, in_time, until,
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const APPENDING_SPAN: &str = "b7ad6b7169203331";
const CONSUMING_SPAN: &str = "00f067aa0ba902b7";

/// A collector that speaks OTLP over HTTP with JSON; its URL, and the spans that it gets.
async fn collector() -> (String, mpsc::UnboundedReceiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.must("listen");
    let address = listener.local_addr().must("find the address");
    let (spans, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(take(BufReader::new(stream), spans.clone()));
        }
    });
    (format!("http://{address}/v1/traces"), received)
}

async fn take(mut stream: BufReader<tokio::net::TcpStream>, spans: mpsc::UnboundedSender<Value>) {
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.must("read a head") == 0 {
                return;
            }
        }
        let head = head.to_lowercase();
        assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
        assert!(head.contains("content-type: application/json\r\n"), "{head}");
        assert!(head.contains("authorization: bearer s3cret\r\n"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.and_then(|length| length.parse().ok()).must("find the length");
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.must("read a body");
        let body: Value = serde_json::from_slice(&body).must("read OTLP");
        for resource in body["resourceSpans"].as_array().must("have resources") {
            let scopes = resource["scopeSpans"].as_array().must("have scopes").iter();
            for span in scopes.flat_map(|scope| scope["spans"].as_array().must("have spans")) {
                let mut span = span.clone();
                span["resource"] = resource["resource"].clone();
                drop(spans.send(span));
            }
        }
        let answer =
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        stream.write_all(answer.as_bytes()).await.must("answer");
    }
}

/// Sends a span as a service does.
async fn export(url: &str, span: Value) {
    let address = url.trim_start_matches("http://").trim_end_matches("/v1/traces");
    let body = json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [span] }] }] }).to_string();
    let request = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         authorization: Bearer s3cret\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut connection = TcpStream::connect(address).await.must("connect to the collector");
    connection.write_all(request.as_bytes()).await.must("send a span");
    let mut status = [0; 12];
    connection.read_exact(&mut status).await.must("read the answer");
    assert_eq!(&status, b"HTTP/1.1 200");
}

/// The event of a stream, as a consumer gets it, continues the trace of its append.
async fn consume(bed: &Testbed, url: &str, stream: &str) {
    let (topic, kafka) = (bed.topic(CATEGORY), ConsumerSettings::new(&bed.environment().kafka));
    let topics = [topic.as_str()];
    let consumer = in_time(Consumer::connect(kafka).read_to_end(&topics));
    let mut consumer = consumer.await.must("read a topic");
    let events = in_time(consumer.read_remaining()).await.must("read a topic");
    let event = events.into_iter().find(|event| event.stream == stream);
    let context = event.and_then(|event| event.traceparent).must("have a trace");
    let fields: Vec<&str> = context.split('-').collect();
    let [_, trace, parent, "01"] = fields[..] else { panic!("{context}") };
    let span = json!({
        "traceId": trace, "spanId": CONSUMING_SPAN, "parentSpanId": parent, "name": "process", "kind": 5
    });
    export(url, span).await;
}

fn traced(stream: &str, flags: &str) -> Append {
    let metadata = Metadata {
        traceparent: Some(format!("00-{TRACE}-{APPENDING_SPAN}-{flags}")),
        ..Metadata::default()
    };
    let event = deposited(1).with_metadata(metadata);
    Append::to(&account(stream), ExpectedVersion::Any, [event])
}

fn attribute<'a>(of: &'a Value, key: &str) -> Option<&'a str> {
    let attributes = of["attributes"].as_array()?;
    attributes.iter().find(|of| of["key"] == key)?["value"]["stringValue"].as_str()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_goes_from_the_append_through_the_relay_to_the_consumer() {
    let bed = Testbed::new("traced").await;
    let (url, mut spans) = collector().await;
    let settings = bed
        .relay()
        .variable("ANNALS_RELAY__TRACE__OTLP_URL", &url)
        .variable("ANNALS_RELAY__TRACE__TOKEN", "s3cret");
    let mut relay = RelayProcess::start(&settings);
    let address = relay.http().await;
    // Not sampled, not traced, sampled: in one stream's partition order does not matter.
    bed.store().append(&traced("quiet", "00")).await.must("append");
    let plain = Append::to(&account("plain"), ExpectedVersion::Any, [deposited(1)]);
    bed.store().append(&plain).await.must("append");
    bed.until_copied().await;
    let appending =
        json!({ "traceId": TRACE, "spanId": APPENDING_SPAN, "name": "append", "kind": 1 });
    export(&url, appending).await;
    bed.store().append(&traced("loud", "01")).await.must("append");

    let append = spans.recv().await.must("get a span");
    let span = spans.recv().await.must("get a span");
    assert_eq!(span["traceId"], TRACE);
    assert_eq!(span["parentSpanId"], APPENDING_SPAN);
    assert_eq!(
        (&span["kind"], &span["name"]),
        (&4.into(), &format!("send {}", bed.topic(CATEGORY)).into())
    );
    assert_eq!(attribute(&span, "messaging.kafka.message.key"), Some("account-loud"));
    assert_eq!(attribute(&span["resource"], "service.name"), Some("annals-relay"));
    let id = span["spanId"].as_str().must("have an id");
    assert!(id.len() == 16 && id != APPENDING_SPAN, "{span}");
    let nanoseconds = |key: &str| span[key].as_str().and_then(|of| of.parse::<u64>().ok());
    let times = (nanoseconds("startTimeUnixNano"), nanoseconds("endTimeUnixNano"));
    assert!(times.0.is_some() && times.0 < times.1, "{span}");

    consume(&bed, &url, "account-loud").await;
    let consumed = spans.recv().await.must("get a span");
    // One trace, and both others below the append.
    for (of, id) in [(&span, id), (&consumed, CONSUMING_SPAN)] {
        assert_eq!((&of["traceId"], &of["spanId"]), (&append["traceId"], &id.into()));
        assert_eq!(of["parentSpanId"], append["spanId"], "{of}");
    }
    // Counted once the collector has answered.
    let counted = "annals_relay_spans_total{outcome=\"exported\"} 1\n";
    until("the span is counted", async || {
        http_get(address, "/metrics", "").await.body.contains(counted)
    })
    .await;
    assert!(relay.terminate().await.success());
    assert!(spans.try_recv().is_err(), "one event was sampled");
    assert!(!relay.text().contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_delays_nothing() {
    let bed = Testbed::new("traced_away").await;
    let settings =
        bed.relay().variable("ANNALS_RELAY__TRACE__OTLP_URL", "http://127.0.0.1:1/v1/traces");
    let mut relay = RelayProcess::start(&settings);
    for number in 0..20 {
        bed.store().append(&traced(&number.to_string(), "01")).await.must("append");
    }
    bed.until_copied().await;
    relay.event("spans_dropped").await;
    assert_eq!(relay.times("spans_dropped"), 1);
    assert!(relay.terminate().await.success());
}
