//! A record in Kafka, byte by byte, for a reader without Annals.

use annals_schemas::EventSet;
use annals_store::{Append, ExpectedVersion, Metadata, NewEvent, Position, Version};
use annals_testkit::{
    AccountEvent, CATEGORY, Follower, Isolation, MoneyDeposited, Must, RawRecord, RelayProcess,
    Testbed, account, ask_registry, deposited, opened, partitions, read_topic, topic_configuration,
};
use futures_util::TryStreamExt;
use uuid::Uuid;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn event() -> MoneyDeposited {
    MoneyDeposited { sequence: -3, cents: 1_000_000, note: "Miete für März".to_owned() }
}

/// Appends an event with every optional part, after another one, and lets a relay publish it.
async fn published(bed: &Testbed, metadata: &Metadata) -> RawRecord {
    let stream = account("a");
    let event = NewEvent::new(&AccountEvent::from(event())).must("encode");
    let event = event.with_metadata(metadata.clone()).with_header("tenant", "blå");
    let append = Append::to(&stream, ExpectedVersion::NoStream, [opened("ann"), event]);
    bed.store().append(&append).await.must("append");
    let follower = bed.follow();
    let _relay = RelayProcess::start(&bed.relay());
    follower.until_count(2).await;
    let topic = bed.topic(CATEGORY);
    let mut records = read_topic(&bed.environment().kafka, &topic, Isolation::Committed).await;
    assert_eq!(records.len(), 2);
    records.pop().unwrap()
}

#[tokio::test]
async fn a_record_has_key_timestamp_headers_and_value_of_the_topic_contract() {
    let bed = Testbed::new("contract").await;
    let metadata = Metadata {
        correlation_id: Some(Uuid::from_u128(1)),
        causation_id: Some(Uuid::from_u128(2)),
        actor: Some("nobody else's business".to_owned()),
        traceparent: Some(TRACEPARENT.to_owned()),
        tracestate: Some("vendor=1".to_owned()),
        custom: [("client".to_owned(), "nobody else's business".into())].into(),
    };
    let record = published(&bed, &metadata).await;
    let stored = bed.store().read_stream(&account("a"), Version::new(1).unwrap());
    let stored: Vec<_> = stored.try_collect().await.must("read the stream");
    let stored = &stored[0];

    assert_eq!(record.key.as_deref(), Some(b"account-a".as_slice()));
    assert_eq!(record.timestamp_ms, Some(stored.recorded_at.as_millisecond()));
    let mut headers: Vec<(&str, &str)> = record
        .headers
        .iter()
        .map(|(name, value)| {
            (name.as_str(), std::str::from_utf8(value.as_deref().unwrap()).unwrap())
        })
        .collect();
    headers.sort_unstable();
    let (id, time) = (stored.id.to_string(), stored.recorded_at.to_string());
    let position = stored.position.to_string();
    assert_eq!(
        headers,
        [
            ("ce_causationid", "00000000-0000-0000-0000-000000000002"),
            ("ce_correlationid", "00000000-0000-0000-0000-000000000001"),
            ("ce_id", &*id),
            ("ce_position", &*position),
            ("ce_source", "annals"),
            ("ce_specversion", "1.0"),
            ("ce_streamversion", "1"),
            ("ce_subject", "account-a"),
            ("ce_time", &*time),
            ("ce_type", "MoneyDeposited"),
            ("content-type", "application/avro"),
            ("tenant", "blå"),
            ("traceparent", TRACEPARENT),
            ("tracestate", "vendor=1"),
        ]
    );
    let value = record.value.must("read the value");
    assert_eq!((value[0], &value[5..]), (0, stored.payload.as_slice()));
    assert!(stored.position >= Position::FIRST);
}

#[tokio::test]
async fn the_value_is_read_by_a_reader_that_has_only_the_registry() {
    let bed = Testbed::new("registry_only").await;
    let record = published(&bed, &Metadata::default()).await;
    let value = record.value.must("read the value");
    let id = u32::from_be_bytes(value[1..5].try_into().unwrap());

    let registry = &bed.environment().registry_url;
    let answer = ask_registry(registry, &format!("/schemas/ids/{id}")).await;
    let schema: serde_json::Value =
        serde_json::from_str(answer["schema"].as_str().unwrap()).must("read the schema");
    let fields = schema["fields"].as_array().unwrap();
    let fields: Vec<_> = fields.iter().map(|field| (&field["name"], &field["type"])).collect();
    let text = |text: &str| serde_json::Value::from(text);
    assert_eq!(
        fields,
        [
            (&text("sequence"), &text("long")),
            (&text("cents"), &text("long")),
            (&text("note"), &text("string"))
        ]
    );
    let subject = format!("{}-annals.test.account.MoneyDeposited", bed.topic(CATEGORY));
    let versions = ask_registry(registry, &format!("/subjects/{subject}/versions/1")).await;
    assert_eq!(versions["id"], id);

    // Avro by its specification: longs are zigzag varints, a string has its length before it.
    let mut datum = &value[5..];
    let (sequence, cents) = (take_long(&mut datum), take_long(&mut datum));
    let length = usize::try_from(take_long(&mut datum)).unwrap();
    let note = std::str::from_utf8(&datum[..length]).unwrap().to_owned();
    assert_eq!(MoneyDeposited { sequence, cents, note }, event());
    assert_eq!(datum.len(), length, "bytes behind the datum");
}

fn take_long(bytes: &mut &[u8]) -> i64 {
    let end = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap();
    let (digits, rest) = bytes.split_at(end + 1);
    *bytes = rest;
    let zigzag = digits.iter().rev().fold(0_u64, |value, byte| value << 7 | u64::from(byte & 0x7f));
    i64::try_from(zigzag >> 1).unwrap() ^ -i64::from(zigzag & 1 == 1)
}

#[tokio::test]
async fn a_rust_consumer_decodes_what_was_appended() {
    let bed = Testbed::new("decodes").await;
    published(&bed, &Metadata::default()).await;
    let follower = Follower::start(&bed.environment().kafka, &[&bed.topic(CATEGORY)]);
    follower.until_count(2).await;
    let schemas = annals_consumer::SchemaRegistry::new(&bed.environment().registry_url)
        .must("ask the registry");
    let delivered = follower.seen().pop().unwrap();
    assert_eq!(delivered.event_type, AccountEvent::from(event()).event_type());
    let decoded: AccountEvent = delivered.decode(&schemas).await.must("decode");
    assert_eq!(decoded, event().into());
}

#[tokio::test]
async fn a_stream_lies_in_the_partition_that_java_producers_and_kafka_streams_would_choose() {
    const STREAMS: usize = 40;
    let bed = Testbed::new("partitioner").await;
    let mut append = Append::default();
    for number in 0..STREAMS {
        append = append.and_to(&account(number), ExpectedVersion::NoStream, [deposited(1)]);
    }
    bed.store().append(&append).await.must("append");
    let follower = bed.follow();
    let _relay = RelayProcess::start(&bed.relay());
    follower.until_count(STREAMS).await;
    let count = partitions(&bed.environment().kafka, &bed.topic(CATEGORY)).await;
    for delivered in follower.seen() {
        let hash = murmur2(delivered.stream.as_bytes()) & 0x7fff_ffff;
        let expected = i32::try_from(hash % count.unsigned_abs()).unwrap();
        assert_eq!(delivered.partition, expected, "{}", delivered.stream);
    }
}

/// Kafka's `Utils.murmur2`, by which its default partitioner maps keys.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).unwrap();
    let mut hash = 0x9747_b28c ^ length;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes(chunk.try_into().unwrap()).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0_u32, |tail, byte| tail << 8 | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[tokio::test]
async fn a_topic_keeps_every_event_for_ever_whatever_its_time() {
    let bed = Testbed::new("keeps").await;
    published(&bed, &Metadata::default()).await;
    let topic = bed.topic(CATEGORY);
    let found = topic_configuration(&bed.environment().kafka, &topic).await;
    let setting = |name: &str| found.get(name).map(String::as_str);
    assert_eq!(setting("cleanup.policy"), Some("delete"));
    assert_eq!(setting("retention.ms"), Some("-1"));
    assert_eq!(setting("retention.bytes"), Some("-1"));
    assert_eq!(setting("message.timestamp.type"), Some("CreateTime"));
}
