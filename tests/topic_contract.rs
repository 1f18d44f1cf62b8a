//! A record in Kafka, byte by byte, for a reader without Annals.

use std::collections::{BTreeMap, BTreeSet};

use annals_schemas::{EventSet, Framing, Layout, SCHEMA_ID_HEADER};
use annals_store::{Append, ExpectedVersion, Metadata, NewEvent, Position, StreamName, Version};
use annals_testkit::{
    AccountEvent, CATEGORY, Follower, Isolation, MoneyDeposited, Must, RawRecord, RelayProcess,
    RelaySettings, Testbed, account, ask_registry, deposited, opened, partitions, read_topic,
    topic_configuration,
};
use futures_util::TryStreamExt;
use serde_json::Value;
use uuid::Uuid;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn event() -> MoneyDeposited {
    MoneyDeposited { sequence: -3, cents: 1_000_000, note: "Miete für März".to_owned() }
}

/// A category for each layout.
const CATEGORIES: [(&str, Layout); 3] =
    [(CATEGORY, Layout::Record), ("branch", Layout::Union), ("wrapped", Layout::Envelope)];

fn stream(category: &str, framing: Framing) -> StreamName {
    StreamName::new(format!("{category}-{}", framing.name())).must("name a stream")
}

fn relay_with(bed: &Testbed, framing: Framing) -> RelaySettings {
    let layouts =
        CATEGORIES.map(|(category, layout)| format!("{category} = \"{}\"", layout.name()));
    let layouts = format!("{{ {} }}", layouts.join(", "));
    let settings = bed.relay().variable("ANNALS_RELAY__TOPICS__LAYOUTS", &layouts);
    settings.variable("ANNALS_RELAY__TOPICS__FRAMING", framing.name())
}

/// Appends an event with every optional part, after another one, to each of these categories, and
/// lets a relay publish them. The records of these events.
async fn published(
    bed: &Testbed,
    metadata: &Metadata,
    framing: Framing,
    categories: &[(&str, Layout)],
) -> Vec<RawRecord> {
    for (category, _) in categories {
        let stream = stream(category, framing);
        let event = NewEvent::new(&AccountEvent::from(event())).must("encode");
        let event = event.with_metadata(metadata.clone()).with_header("tenant", "blå");
        // The order of the types in a union is that of their first appends.
        for event in [opened("ann"), event] {
            let event = event.for_category(*category);
            let append = Append::to(&stream, ExpectedVersion::Any, [event]);
            bed.store().append(&append).await.must("append");
        }
    }
    let mut relay = RelayProcess::start(&relay_with(bed, framing));
    bed.until_copied().await;
    assert!(relay.terminate().await.success());
    let mut published = Vec::new();
    for (category, layout) in categories {
        let key = stream(category, framing).to_string();
        let topic = bed.topic(category);
        let mut records = read_topic(&bed.environment().kafka, &topic, Isolation::Committed).await;
        records.retain(|record| record.key.as_deref() == Some(key.as_bytes()));
        assert_eq!(records.len(), 2);
        let record = records.pop().unwrap();
        holds_the_page(&record, framing, *layout);
        published.push(record);
    }
    published
}

/// Every header of the record is on the page of the contract, and the page says no other, but for
/// those of a gap and of a replay.
fn holds_the_page(record: &RawRecord, framing: Framing, layout: Layout) {
    let page = include_str!("../docs/topics.md");
    let table = page.split("| header | value |").nth(1).must("find the table of headers");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with("| `"));
    let names = rows
        .flat_map(|row| row.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2));
    let mut said: BTreeSet<&str> = names.collect();
    for other in ["ce_previousversion", "ce_replayed"] {
        assert!(said.remove(other), "{other} is not on the page");
    }
    if framing != Framing::Header {
        assert!(said.remove(SCHEMA_ID_HEADER), "{SCHEMA_ID_HEADER} is not on the page");
    }
    let sent = record.headers.iter().map(|(name, _)| name.as_str());
    let sent: BTreeSet<&str> = sent.filter(|name| *name != "tenant").collect();
    let optional = ["ce_correlationid", "ce_causationid", "traceparent", "tracestate"];
    if optional.iter().all(|name| sent.contains(name)) {
        assert_eq!(sent, said);
    }
    assert!(sent.is_subset(&said), "{sent:?}");
    let row = format!("| `{}` |", framing.name());
    let row = page.lines().find(|line| line.starts_with(&row)).must("find the framing's row");
    assert!(row.contains(framing.content_type()), "{row}");
    let row = format!("| `{}` |", layout.name());
    assert!(page.lines().any(|line| line.starts_with(&row)), "{row} is not on the page");
}

/// All framings, one after the other, into the same topics, one for each layout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_has_key_timestamp_headers_and_value_of_the_topic_contract() {
    let bed = Testbed::new("contract").await;
    for framing in [Framing::Prefix, Framing::Header, Framing::None] {
        let records = published(&bed, &metadata(), framing, &CATEGORIES).await;
        for ((category, layout), record) in CATEGORIES.into_iter().zip(records) {
            holds_the_contract(&bed, category, framing, layout, record).await;
        }
    }
    let (code, said) = relay_with(&bed, Framing::None).run_for_code(&["audit"]).await;
    assert_eq!(code, 0, "{said}");
    decoded_by_the_rust_consumer(&bed).await;
}

fn metadata() -> Metadata {
    Metadata {
        correlation_id: Some(Uuid::from_u128(1)),
        causation_id: Some(Uuid::from_u128(2)),
        actor: Some("nobody else's business".to_owned()),
        traceparent: Some(TRACEPARENT.to_owned()),
        tracestate: Some("vendor=1".to_owned()),
        custom: [("client".to_owned(), "nobody else's business".into())].into(),
    }
}

/// The registry's id of the schema of the category's records.
async fn registered(bed: &Testbed, category: &str, layout: Layout) -> u32 {
    let topic = bed.topic(category);
    let subject = match layout {
        Layout::Record => format!("{topic}-annals.test.account.MoneyDeposited"),
        Layout::Union | Layout::Envelope => format!("{topic}-value"),
    };
    let path = format!("/subjects/{subject}/versions/latest");
    let version = ask_registry(&bed.environment().registry_url, &path).await;
    let schema = version["schema"].as_str().must("find the schema");
    let schema: Value = serde_json::from_str(schema).must("read the schema");
    let types = ["annals.test.account.AccountOpened", "annals.test.account.MoneyDeposited"];
    match layout {
        Layout::Record => assert_eq!(full_name(&schema), types[1]),
        Layout::Union => assert_eq!(full_names(&schema), types),
        Layout::Envelope => {
            assert_eq!(full_name(&schema), format!("annals.{category}.Envelope"));
            assert_eq!(schema["fields"].as_array().map(Vec::len), Some(1));
            assert_eq!(schema["fields"][0]["name"], "event");
            assert_eq!(full_names(&schema["fields"][0]["type"]), types);
        }
    }
    u32::try_from(version["id"].as_u64().must("find the id")).must("find the id")
}

fn full_names(union: &Value) -> Vec<String> {
    union.as_array().must("be a union").iter().map(full_name).collect()
}

/// The name of a record; a registry may print its namespace apart.
fn full_name(record: &Value) -> String {
    let name = record["name"].as_str().must("have a name");
    match record["namespace"].as_str() {
        Some(namespace) if !name.contains('.') => format!("{namespace}.{name}"),
        _ => name.to_owned(),
    }
}

async fn holds_the_contract(
    bed: &Testbed,
    category: &str,
    framing: Framing,
    layout: Layout,
    record: RawRecord,
) {
    let stream = stream(category, framing);
    let stored = bed.store().read_stream(&stream, Version::new(1).unwrap());
    let stored: Vec<_> = stored.try_collect().await.must("read the stream");
    let stored = &stored[0];

    assert_eq!(record.key.as_deref(), Some(stream.as_str().as_bytes()));
    assert_eq!(record.timestamp_ms, Some(stored.recorded_at.as_millisecond()));
    let value = record.value.must("read the value");
    let (prefix, datum) = value.split_at(value.len() - stored.payload.len());
    // The second type of the category; the first is AccountOpened.
    let prefix = match layout {
        Layout::Record => prefix,
        Layout::Union | Layout::Envelope => prefix.strip_suffix(b"\x02").must("find a branch"),
    };
    assert_eq!(datum, stored.payload.as_slice());
    let mut headers: BTreeMap<&str, &[u8]> = BTreeMap::new();
    headers.extend(
        record
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref().must("read a header"))),
    );
    let in_header = headers.remove(SCHEMA_ID_HEADER).unwrap_or_default();
    let id = match framing {
        Framing::Prefix => prefix,
        Framing::Header => in_header,
        Framing::None => &[],
    };
    assert_eq!((prefix.len() + in_header.len(), id.len()), (id.len(), id.len()), "{framing:?}");
    let number = registered(bed, category, layout).await;
    let uri = format!("{}/schemas/ids/{number}", bed.environment().registry_url);
    if framing != Framing::None {
        assert_eq!(id, [&[0], number.to_be_bytes().as_slice()].concat());
    }
    let (id, time) = (stored.id.to_string(), stored.recorded_at.to_string());
    let position = stored.position.to_string();
    let expected = [
        ("ce_causationid", "00000000-0000-0000-0000-000000000002"),
        ("ce_correlationid", "00000000-0000-0000-0000-000000000001"),
        ("ce_dataschema", &*uri),
        ("ce_id", &*id),
        ("ce_position", &*position),
        ("ce_source", "annals"),
        ("ce_specversion", "1.0"),
        ("ce_streamversion", "1"),
        ("ce_subject", stream.as_str()),
        ("ce_time", &*time),
        ("ce_type", "annals.test.account.MoneyDeposited"),
        ("content-type", framing.content_type()),
        ("tenant", "blå"),
        ("traceparent", TRACEPARENT),
        ("tracestate", "vendor=1"),
    ];
    assert_eq!(headers, expected.map(|(name, value)| (name, value.as_bytes())).into());
    assert!(stored.position >= Position::FIRST);
}

#[tokio::test]
async fn the_value_is_read_by_a_reader_that_has_only_the_registry() {
    let bed = Testbed::new("registry_only").await;
    let metadata = Metadata::default();
    let mut records = published(&bed, &metadata, Framing::default(), &CATEGORIES[..1]).await;
    let record = records.pop().unwrap();
    let value = record.value.must("read the value");
    let id = u32::from_be_bytes(value[1..5].try_into().unwrap());

    let registry = &bed.environment().registry_url;
    let answer = ask_registry(registry, &format!("/schemas/ids/{id}")).await;
    let schema: Value =
        serde_json::from_str(answer["schema"].as_str().unwrap()).must("read the schema");
    let fields = schema["fields"].as_array().unwrap();
    let fields: Vec<_> = fields.iter().map(|field| (&field["name"], &field["type"])).collect();
    let text = |text: &str| Value::from(text);
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

/// `MoneyDeposited` as a later program writes it.
mod later {
    use annals_store::events;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub(super) struct MoneyDeposited {
        pub(super) sequence: i64,
        pub(super) cents: i64,
        pub(super) note: String,
        pub(super) currency: String,
    }

    events! {
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(super) enum Event in "account" { MoneyDeposited = "avro/MoneyDeposited.v2.avsc" }
    }
}

fn deposited_in(currency: &str) -> NewEvent {
    let deposited = later::MoneyDeposited {
        sequence: 3,
        cents: 3,
        note: String::new(),
        currency: currency.to_owned(),
    };
    NewEvent::new(&later::Event::from(deposited)).must("encode")
}

/// The first event of a type adds a branch, and so does a new version of a type; the records that
/// are there keep the union that they were written with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_events_keep_their_union_when_the_category_gets_another_type() {
    let bed = Testbed::new("unions").await;
    let layouts = format!("{{ {CATEGORY} = \"union\" }}");
    let settings = bed.relay().variable("ANNALS_RELAY__TOPICS__LAYOUTS", &layouts);
    let mut relay = RelayProcess::start(&settings);
    let follower = bed.follow();
    let events = [opened("ann"), deposited(1), opened("bob"), deposited(2), deposited_in("SEK")];
    let events = events.into_iter().chain([deposited(4)]);
    for (count, event) in events.enumerate() {
        let append = Append::to(&account(count), ExpectedVersion::NoStream, [event]);
        bed.store().append(&append).await.must("append");
        follower.until_count(count + 1).await;
        if count == 1 {
            // Another relay, with empty caches, finds the same unions.
            assert!(relay.terminate().await.success());
            relay = RelayProcess::start(&settings.clone().instance("b"));
        }
    }
    let mut seen = follower.seen();
    seen.sort_by(|one, other| one.stream.cmp(&other.stream));
    let ids: Vec<_> = seen.iter().map(|delivered| delivered.schema_id.0).collect();
    let [first, second, third] = [ids[0], ids[1], ids[4]];
    // An event of an earlier version, from a program that is not upgraded, too.
    assert_eq!(ids, [first, second, first, second, third, second]);
    assert_eq!(BTreeSet::from([first, second, third]).len(), 3, "{ids:?}");
    let schemas = annals_consumer::SchemaRegistry::new(&bed.environment().registry_url)
        .must("ask the registry");
    for delivered in &seen {
        // The program that is not upgraded reads the new version, too.
        let decoded: AccountEvent = delivered.decode(&schemas).await.must("decode");
        assert_eq!(decoded.event_type(), delivered.event_type);
    }
    let decoded: later::Event = seen[4].decode(&schemas).await.must("decode");
    let later::Event::MoneyDeposited(deposited) = decoded;
    assert_eq!(deposited.currency, "SEK");
    bed.until_copied().await;
    let (code, said) = settings.run_for_code(&["audit"]).await;
    assert_eq!(code, 0, "{said}");
}

async fn decoded_by_the_rust_consumer(bed: &Testbed) {
    let topics = CATEGORIES.map(|(category, _)| bed.topic(category));
    let topics = topics.each_ref().map(String::as_str);
    let follower = Follower::start(&bed.environment().kafka, &topics);
    follower.until_count(18).await;
    let schemas = annals_consumer::SchemaRegistry::new(&bed.environment().registry_url)
        .must("ask the registry");
    let seen = follower.seen();
    let full_type = "annals.test.account.MoneyDeposited";
    let deposits: Vec<_> = seen.iter().filter(|event| event.full_type == full_type).collect();
    assert_eq!(deposits.len(), 9);
    for delivered in deposits {
        assert_eq!(delivered.event_type, AccountEvent::from(event()).event_type());
        let decoded: AccountEvent = delivered.decode(&schemas).await.must("decode");
        assert_eq!(decoded, event().into());
    }
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
    published(&bed, &Metadata::default(), Framing::default(), &CATEGORIES[..1]).await;
    let topic = bed.topic(CATEGORY);
    let found = topic_configuration(&bed.environment().kafka, &topic).await;
    let setting = |name: &str| found.get(name).map(String::as_str);
    assert_eq!(setting("cleanup.policy"), Some("delete"));
    assert_eq!(setting("retention.ms"), Some("-1"));
    assert_eq!(setting("retention.bytes"), Some("-1"));
    assert_eq!(setting("message.timestamp.type"), Some("CreateTime"));
}
