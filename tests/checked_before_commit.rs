//! An event that cannot be published cannot be committed: the append checks names, sizes and
//! schemas.

use annals_store::{
    Append, AppendError, Broken, EVENTS_PER_APPEND_MAX, EventStore, ExpectedVersion, MemoryStore,
    Metadata, NewEvent, Refusal, STREAMS_PER_APPEND_MAX, StoreOptions, StreamName, events,
};
use annals_testkit::{Must, Testbed, account, deposited, deposited_for};
use serde::{Deserialize, Serialize};
use sqlx::Row;

/// Empty, without a category or an id, path traversal, names that Kafka reserves, quotes, SQL,
/// look-alike letters, and invisible characters.
const HOSTILE_NAMES: [&str; 22] = [
    "",
    "-a",
    "account-",
    "a.b-c",
    "..",
    "../etc/passwd",
    "account-../b",
    "account/1",
    "account-a/b",
    "account-a\\b",
    "__internal-1",
    "1a-b",
    "account-a b",
    "account-a\n",
    "account-'a'",
    "account-\"a\"",
    "account-a;drop schema annals",
    "kont\u{f6}-1",
    "\u{430}ccount-1",
    "account-\u{ff11}",
    "account-a\u{200b}",
    "account\u{2010}1",
];
const DEPOSIT_SCHEMA: &str = "annals.test.account.MoneyDeposited";

mod later {
    use super::{Deserialize, Serialize, events};

    /// With a field that old events lack.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub(super) struct MoneyDeposited {
        pub(super) sequence: i64,
        pub(super) cents: i64,
        pub(super) note: String,
        pub(super) currency: String,
    }

    events! {
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(super) enum WithDefault in "account" {
            MoneyDeposited = "avro/MoneyDeposited.v2.avsc",
        }
    }

    events! {
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(super) enum WithoutDefault in "account" {
            MoneyDeposited = "avro/MoneyDeposited.incompatible.avsc",
        }
    }

    pub(super) fn deposit() -> MoneyDeposited {
        MoneyDeposited { sequence: 1, cents: 1, note: String::new(), currency: "USD".to_owned() }
    }
}

mod refused_elsewhere {
    //! A set without its generated test, which would fail.

    use annals_schemas::Decimal;

    use super::{Deserialize, Serialize};

    #[derive(Debug, Default, Serialize, Deserialize)]
    pub(super) struct Refunded {
        reason: Option<String>,
        lines: Vec<Line>,
        amount: Decimal<9, 2, 4>,
    }

    #[derive(Debug, Serialize, Deserialize)]
    struct Line {
        sku: Option<String>,
    }

    #[derive(Debug, Serialize, Deserialize)]
    pub(super) struct OrderPlaced {
        customer: String,
    }

    annals_schemas::__events! {
        #[derive(Debug)]
        pub(super) enum Refused in "order" {
            OrderPlaced = "../schemas/tests/avro/order/OrderPlaced.v1.avsc",
            Refunded = "../schemas/tests/avro/wrong/Refunded.avsc",
        }
    }
}

#[tokio::test]
async fn a_name_that_no_topic_could_carry_is_refused_by_the_client_and_by_the_database() {
    let bed = Testbed::new("illegal_name").await;
    let warm = Append::to(&account("a"), ExpectedVersion::Any, [deposited(1)]);
    bed.store().append(&warm).await.must("append");
    let before = bed.fingerprint().await;
    let schema = bed.store().schemas([fingerprint_of_deposit()].into()).await.must("read a schema");
    let fingerprint = schema.keys().next().must("find the schema").get();

    let [long, longer] = [193, 292].map(|letters| format!("account-{}", "x".repeat(letters)));
    assert_eq!((long.len(), longer.len()), (201, 300));
    for name in HOSTILE_NAMES.into_iter().chain([long.as_str(), longer.as_str()]) {
        assert!(StreamName::new(name).is_err(), "the client took {name:?}");
        // A client without the checks of this crate.
        let row = append_raw(&bed, name, fingerprint).await.must("append past the client's checks");
        assert_eq!(row.get::<&str, _>("outcome"), "refused", "the database took {name:?}");
        let refusals: serde_json::Value =
            serde_json::from_str(row.get("refusals")).must("read refusals");
        assert_eq!(refusals[0]["kind"], "illegal_stream", "{refusals}");
    }
    let nul = "account-a\0b";
    assert!(StreamName::new(nul).is_err());
    let refused = append_raw(&bed, nul, fingerprint).await.unwrap_err();
    let code = refused.as_database_error().must("be refused by the server").code();
    assert_eq!(code.as_deref(), Some("22021"), "{refused}");
    assert_eq!(bed.fingerprint().await, before);
    let longest = "x".repeat(192);
    append_raw(&bed, &format!("account-{longest}"), fingerprint).await.must("append");
}

async fn append_raw(
    bed: &Testbed,
    name: &str,
    fingerprint: i64,
) -> Result<sqlx::postgres::PgRow, sqlx::Error> {
    let query = sqlx::query(include_str!("sql/append_raw.sql"));
    let query = query.bind(name).bind(deposited(1).id().get()).bind(fingerprint);
    query.fetch_one(bed.store().pool()).await
}

fn fingerprint_of_deposit() -> annals_store::Fingerprint {
    let schemas = <annals_testkit::AccountEvent as annals_store::EventSet>::schemas();
    let found = schemas.must("read the schemas").iter().find(|(name, _)| *name == "MoneyDeposited");
    found.must("find the schema").1.fingerprint()
}

#[tokio::test]
async fn what_is_too_large_is_refused_with_the_limit_before_it_is_sent() {
    let bed = Testbed::new("too_large").await;
    let before = bed.fingerprint().await;
    let options = StoreOptions::default().event_bytes_max(1_000);
    let store = options.connect(&bed.database_url()).await.must("connect");
    let stream = account("a");
    let actor = Metadata { actor: Some("x".repeat(20_000)), ..Metadata::default() };
    let twice = deposited(1);
    let cases: [(&str, Vec<NewEvent>); 5] = [
        ("payload bytes", vec![deposited(1), deposited_for(2, &"x".repeat(1_001))]),
        ("metadata and header bytes", vec![deposited(1).with_metadata(actor)]),
        ("metadata and header bytes", vec![deposited(1).with_header("x", "y".repeat(20_000))]),
        ("events of the append", (0..=10_000).map(deposited).collect()),
        ("events of the append, of which some have the same id", vec![twice.clone(), twice]),
    ];
    for (what, events) in cases {
        let error =
            store.append(&Append::to(&stream, ExpectedVersion::Any, events)).await.unwrap_err();
        let AppendError::Refused(refusals) = &error else { panic!("{error:?}") };
        let [Refusal::Limit { what: found, actual, max }] = refusals.as_slice() else {
            panic!("{error}")
        };
        assert!(found.starts_with(what) && actual > max, "{error}");
    }
    assert_eq!(bed.fingerprint().await, before);
}

#[tokio::test]
async fn too_many_streams_and_one_named_twice_are_refused_with_the_limit() {
    let bed = Testbed::new("streams").await;
    let many = (0..=STREAMS_PER_APPEND_MAX).fold(Append::default(), |append, number| {
        append.and_check(&account(number), ExpectedVersion::NoStream)
    });
    let twice = Append::to(&account("a"), ExpectedVersion::NoStream, [deposited(1)]).and_to(
        &account("a"),
        ExpectedVersion::Any,
        [deposited(2)],
    );
    for (append, limit) in [(many, (1_001, 1_000)), (twice, (2, 1))] {
        let error = bed.store().append(&append).await.unwrap_err();
        let AppendError::Refused(refusals) = &error else { panic!("{error:?}") };
        let [Refusal::Limit { what, actual, max }] = refusals.as_slice() else { panic!("{error}") };
        assert!(what.starts_with("streams of the append") && (*actual, *max) == limit, "{error}");
    }
    assert_eq!(bed.recorded().await, []);
}

#[tokio::test]
async fn a_header_that_the_relay_writes_itself_is_refused_by_name() {
    let bed = Testbed::new("headers").await;
    for name in ["ce_id", "__value_schema_id", "Content-Type", "traceparent", "", "a b"] {
        let append =
            Append::to(&account("a"), ExpectedVersion::Any, [deposited(1).with_header(name, "x")]);
        let refused = bed.store().append(&append).await.unwrap_err();
        let AppendError::Refused(refusals) = &refused else { panic!("{refused:?}") };
        assert!(
            matches!(&refusals[..], [Refusal::HeaderName { name: found, .. }] if found == name),
            "{refused}"
        );
    }
    assert_eq!(bed.recorded().await, []);
}

#[tokio::test]
async fn what_is_just_not_too_large_is_recorded() {
    let bed = Testbed::new("just_fits").await;
    let events = (0..).take(EVENTS_PER_APPEND_MAX).map(deposited);
    let append = Append::to(&account("many"), ExpectedVersion::NoStream, events);
    let appended = bed.store().append(&append).await.must("append as many events as may be");
    assert_eq!(appended.events.len(), EVENTS_PER_APPEND_MAX);

    // The payload is the note, its length in 3 bytes, and two numbers of a byte each.
    let note = "x".repeat(annals_store::EVENT_BYTES_MAX - 5);
    let large = Append::to(&account("large"), ExpectedVersion::Any, [deposited_for(1, &note)]);
    bed.store().append(&large).await.must("append an event as large as may be");
    let larger = format!("{note}x");
    let larger = Append::to(&account("large"), ExpectedVersion::Any, [deposited_for(1, &larger)]);
    bed.store().append(&larger).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_is_registered_once_whoever_comes_first() {
    let bed = Testbed::new("registered_once").await;
    let mut tasks = Vec::new();
    for number in 0..8 {
        let store = bed.another_store().await;
        tasks.push(tokio::spawn(async move {
            let append = Append::to(&account(number), ExpectedVersion::NoStream, [deposited(1)]);
            store.append(&append).await.must("append");
        }));
    }
    for task in tasks {
        task.await.must("append");
    }
    assert_eq!(registered(&bed).await, 1);
    assert_eq!(bed.recorded().await.len(), 8);
}

#[tokio::test]
async fn a_schema_that_cannot_read_what_was_written_before_is_refused() {
    let bed = Testbed::new("incompatible").await;
    let stream = account("a");
    bed.store()
        .append(&Append::to(&stream, ExpectedVersion::Any, [deposited(1)]))
        .await
        .must("append");
    let before = bed.fingerprint().await;

    let event = NewEvent::new(&later::WithoutDefault::from(later::deposit())).must("encode");
    let append = Append::to(&stream, ExpectedVersion::Any, [event]);
    for store in [bed.store(), &bed.another_store().await] {
        let error = store.append(&append).await.unwrap_err();
        let AppendError::Refused(refusals) = &error else { panic!("{error:?}") };
        let [Refusal::IncompatibleSchema { full_name, earlier, breaks, reason }] =
            refusals.as_slice()
        else {
            panic!("{error}")
        };
        assert_eq!((full_name.as_str(), *earlier), (DEPOSIT_SCHEMA, fingerprint_of_deposit()));
        assert_eq!(*breaks, Broken::ReadersOfOldEvents);
        assert!(reason.contains("currency"), "{reason}");
    }
    assert_eq!((registered(&bed).await, bed.fingerprint().await), (1, before));
}

#[tokio::test]
async fn a_new_schema_that_other_programs_refuse_is_refused() {
    let bed = Testbed::new("refused_elsewhere").await;
    let refund = refused_elsewhere::Refused::from(refused_elsewhere::Refunded::default());
    let event = NewEvent::new(&refund).must("encode");
    let order = StreamName::new("order-1").must("name a stream");
    let append = Append::to(&order, ExpectedVersion::Any, [event]);
    let memory = MemoryStore::new();
    for result in [bed.store().append(&append).await, memory.append(&append).await] {
        let error = result.unwrap_err();
        let AppendError::Refused(refusals) = &error else { panic!("{error:?}") };
        let [Refusal::RefusedElsewhere { full_name, reasons }] = &refusals[..] else {
            panic!("{error}")
        };
        let told = [("a fixed of 4 bytes", 1), ("`reason`", 1), ("shop.Line", 1)];
        let times = |what: &str| reasons.iter().filter(|reason| reason.contains(what)).count();
        assert_eq!(told.map(|(what, _)| (what, times(what))), told, "{error}");
        assert_eq!((full_name.as_str(), reasons.len()), ("shop.Refunded", 3));
    }
    // One that is registered already stays usable.
    let schemas = <refused_elsewhere::Refused as annals_store::EventSet>::schemas();
    let (_, schema) = schemas.must("read the schemas")[1];
    let register = sqlx::query(include_str!("sql/register_schema.sql")).bind("order");
    let register = register.bind(schema.fingerprint().get()).bind(schema.full_name());
    let register = register.bind(schema.definition()).execute(bed.store().pool());
    register.await.must("register");
    bed.store().append(&append).await.must("append");
}

#[tokio::test]
async fn a_schema_that_can_read_what_was_written_before_is_taken_and_reads_it() {
    let bed = Testbed::new("compatible").await;
    let stream = account("a");
    bed.store()
        .append(&Append::to(&stream, ExpectedVersion::Any, [deposited(7)]))
        .await
        .must("append");
    let event = NewEvent::new(&later::WithDefault::from(later::deposit())).must("encode");
    bed.store().append(&Append::to(&stream, ExpectedVersion::Any, [event])).await.must("append");
    assert_eq!(registered(&bed).await, 2);

    let store = bed.another_store().await;
    let read = store.read_events::<later::WithDefault>(&stream, annals_store::Version::FIRST);
    let read: Vec<_> = futures_util::TryStreamExt::try_collect(read).await.must("read");
    let old = later::MoneyDeposited {
        sequence: 7,
        cents: 7,
        currency: "EUR".to_owned(),
        ..later::deposit()
    };
    let values: Vec<_> = read.into_iter().map(|(_, event)| event).collect();
    assert_eq!(values, [old.into(), later::deposit().into()]);
}

#[tokio::test]
async fn an_event_of_another_categorys_set_is_refused_and_can_be_allowed() {
    let bed = Testbed::new("other_category").await;
    let order = StreamName::new("order-1").must("name a stream");
    let append = |event: NewEvent| {
        let both = Append::to(&account("a"), ExpectedVersion::Any, [deposited(1)]);
        both.and_to(&order, ExpectedVersion::Any, [event])
    };
    for store in [&bed.another_store().await, bed.store()] {
        let refused = store.append(&append(deposited(2))).await.unwrap_err();
        let AppendError::Refused(refusals) = &refused else { panic!("{refused:?}") };
        let [Refusal::OtherCategory { event_type, category, stream, .. }] = &refusals[..] else {
            panic!("{refused}")
        };
        let told = (*event_type, category.as_str(), stream);
        assert_eq!(told, ("MoneyDeposited", "account", &order));
    }
    let mut transaction = bed.store().pool().begin().await.must("begin");
    let refused = bed.store().append_in(&mut transaction, &append(deposited(2))).await.unwrap_err();
    assert!(matches!(refused, AppendError::Refused(_)), "{refused}");
    transaction.commit().await.must("commit");
    assert_eq!((bed.recorded().await, registered(&bed).await), (vec![], 0));
    let shared = append(deposited(2).for_category("order"));
    bed.store().append(&shared).await.must("append");
    assert_eq!(bed.recorded().await.len(), 2);
}

#[tokio::test]
async fn a_definition_is_registered_under_its_own_fingerprint_and_name_only() {
    let bed = Testbed::new("fingerprint").await;
    let schemas = <annals_testkit::AccountEvent as annals_store::EventSet>::schemas();
    let (_, schema) = schemas.must("read the schemas")[0];
    let (right, name) = (schema.fingerprint().get(), schema.full_name());
    let cases = [
        (right + 1, name, "schemas_fingerprint"),
        (right, "annals.test.account.Other", "schemas_record"),
    ];
    let register = |fingerprint: i64, name: &'static str| {
        let query = sqlx::query(include_str!("sql/register_schema.sql"));
        query.bind("account").bind(fingerprint).bind(name).bind(schema.definition())
    };
    for (fingerprint, name, constraint) in cases {
        let refused = register(fingerprint, name).execute(bed.store().pool()).await.unwrap_err();
        let refused = refused.as_database_error().must("be refused by the server");
        assert_eq!(refused.constraint(), Some(constraint), "{refused}");
    }
    register(right, name).execute(bed.store().pool()).await.must("register");
}

async fn registered(bed: &Testbed) -> i64 {
    let query = sqlx::query_scalar(include_str!("sql/registered_schemas.sql")).bind(DEPOSIT_SCHEMA);
    query.fetch_one(bed.store().pool()).await.must("count schemas")
}
