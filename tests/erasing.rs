//! A person is erased by the destruction of a key: events, replicas, Kafka and backups have
//! ciphertext only, no process opens a value after the erasure, and no late key brings one back.

use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use annals_consumer::{Delivered, SchemaRegistry};
use annals_store::{
    Aggregate, Append, AppendError, Appended, Category, CommandId, Decide, EventId, EventStore,
    ExpectedVersion, FileKeyProvider, Follow, KeyId, KeyProvider, NewEvent, OpenError, Personal,
    PersonalDataEvent, PersonalError, PersonalKeys, Projection, Read, RecordedEvent, Refusal,
    Snapshots, Store, StreamName, Subject, SubjectErased, events,
};
use annals_testkit::{DEADLINE, Dump, Follower, Must, RelayProcess, Testbed, until};
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::sync::Barrier;
use uuid::Uuid;

const NAME: &str = "Ann Lee of Lochaber";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CustomerNamed {
    pub(crate) name: Personal<String>,
    email: Option<Personal<String>>,
}

events! {
    #[derive(Debug, Clone, PartialEq)]
    pub(crate) enum CustomerEvent in "customer" {
        CustomerNamed = "../schemas/avro/customer/CustomerNamed.v1.avsc",
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "CustomerState")]
struct Customer {
    name: Option<Personal<String>>,
}

impl Aggregate for Customer {
    type Event = CustomerEvent;

    fn apply(&mut self, event: CustomerEvent) {
        let CustomerEvent::CustomerNamed(named) = event;
        self.name = Some(named.name);
    }

    fn snapshots() -> Option<Snapshots<Self>> {
        Some(Snapshots::every(1, include_str!("avro/CustomerState.v1.avsc")))
    }
}

/// A test bed with a key file, which several processes use.
struct Keys {
    bed: Testbed,
    file: std::path::PathBuf,
}

impl Keys {
    async fn new(label: &str) -> Self {
        let bed = Testbed::new(label).await;
        let file = std::env::temp_dir().join(format!("{}.keys", bed.name()));
        Self { bed, file }
    }

    fn provider(&self) -> FileKeyProvider {
        FileKeyProvider::open_or_create(&self.file).must("open the key file")
    }

    fn here(&self) -> PersonalKeys {
        PersonalKeys::new(self.bed.store(), self.provider())
    }

    /// As in another process: with empty caches.
    async fn elsewhere(&self) -> PersonalKeys {
        PersonalKeys::new(&self.bed.another_store().await, self.provider())
    }

    /// Whether a backup has a text in any table, as text or in the bytes of a payload.
    async fn backup_has(&self, text: &str) -> bool {
        let dump = Dump::as_sql(&self.bed.database_url()).await;
        let bytes: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        dump.contains(text) || dump.contains(&bytes)
    }

    async fn has_text(&self, text: &str) -> bool {
        let query = sqlx::query_scalar(include_str!("sql/has_text.sql")).bind(text.as_bytes());
        query.fetch_one(self.bed.store().pool()).await.must("search the tables")
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.file));
    }
}

pub(crate) fn subject(number: u32) -> Subject {
    Subject::new(format!("customer-{number}")).must("name a subject")
}

pub(crate) fn stream(number: u32) -> StreamName {
    StreamName::new(format!("customer-{number}")).must("name a stream")
}

pub(crate) async fn named<S: EventStore>(
    keys: &PersonalKeys<S>,
    number: u32,
    name: &str,
) -> NewEvent {
    let key = keys.subject(&subject(number)).await.must("get a key");
    let email = Some(Personal::new(key.clone(), "ann@example.org".to_owned()));
    let named = CustomerNamed { name: Personal::new(key, name.to_owned()), email };
    NewEvent::new(&CustomerEvent::from(named)).must("encode")
}

async fn append(store: &Store, number: u32, event: NewEvent) -> Result<Appended, AppendError> {
    store.append(&Append::to(&stream(number), ExpectedVersion::Any, [event])).await
}

pub(crate) async fn names(store: &impl EventStore, number: u32) -> Vec<Personal<String>> {
    let events = store.read(Read::stream(&stream(number)));
    let events: Vec<RecordedEvent> = events.try_collect().await.must("read the stream");
    let name = |event: &RecordedEvent| {
        let CustomerEvent::CustomerNamed(named) = event.decode().must("decode");
        named.name
    };
    events.iter().map(name).collect()
}

pub(crate) async fn erased_events(store: &impl EventStore) -> Vec<SubjectErased> {
    let category = Category::new("personal_data").must("name the category");
    let read = store.read(Read::category(&category));
    let events: Vec<RecordedEvent> = read.try_collect().await.must("read");
    events
        .iter()
        .map(|event| match event.decode().must("decode") {
            PersonalDataEvent::SubjectErased(erased) => erased,
        })
        .collect()
}

#[tokio::test]
async fn an_erased_person_is_unreadable_and_was_never_stored_in_the_clear() {
    let keys = Keys::new("erased").await;
    let (here, elsewhere, store) = (keys.here(), keys.elsewhere().await, keys.bed.store());
    append(store, 1, named(&here, 1, NAME).await).await.must("append");
    append(store, 2, named(&elsewhere, 2, "Bob").await).await.must("append");
    for text in ["Lochaber", "ann@example.org"] {
        assert!(!keys.has_text(text).await && !keys.backup_has(text).await, "{text}");
    }

    let (ann, bob) = (names(store, 1).await.remove(0), names(store, 2).await.remove(0));
    for reader in [&here, &elsewhere] {
        let opened = reader.open(&ann).await.must("open");
        assert_eq!(opened.value().map(String::as_str), Some(NAME));
    }
    let erased = here.erase(&subject(1), "a request").await.must("erase");
    assert_eq!(erased.key_id, ann.key_id());
    for reader in [&here, &elsewhere, &keys.elsewhere().await] {
        assert!(reader.open(&ann).await.must("read as erased").is_erased());
        let refused = reader.subject(&subject(1)).await.unwrap_err();
        assert!(matches!(&refused, PersonalError::Erased(who) if *who == subject(1)), "{refused}");
        assert_eq!(reader.open(&bob).await.must("open").value().must("be open"), "Bob");
    }

    let again = elsewhere.erase(&subject(1), "another request").await.must("erase again");
    assert!(again.appended.repeated && again.appended.events == erased.appended.events);
    let told = erased_events(store).await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].subject, "customer-1");
    assert_eq!(told[0].key_id, ann.key_id().map(|id| id.to_string()));
    store.close_stream(&stream(1), "erased").await.must("close");
    store.archive_stream(&stream(1), "erased").await.must("archive");
    assert!(!keys.backup_has("Lochaber").await);
    assert!(keys.backup_has("customer-1").await, "a backup has what is not personal");
}

async fn first_key(process: PersonalKeys, number: u32, start: Arc<Barrier>) -> KeyId {
    start.wait().await;
    process.subject(&subject(number)).await.must("get a key").id()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_make_a_first_key_at_once_get_the_same_one() {
    const PROCESSES: usize = 8;
    let keys = Keys::new("first_key").await;
    let file = keys.provider();
    for number in 0..3 {
        let start = Arc::new(Barrier::new(PROCESSES));
        let mut asking = Vec::new();
        for _ in 0..PROCESSES {
            let process = PersonalKeys::new(&keys.bed.another_store().await, file.clone());
            asking.push(tokio::spawn(first_key(process, number, Arc::clone(&start))));
        }
        let mut ids = Vec::new();
        for asked in asking {
            ids.push(asked.await.must("ask"));
        }
        ids.dedup();
        assert_eq!(ids.len(), 1, "{ids:?}");
    }
}

#[tokio::test]
async fn a_late_key_never_comes_back() {
    let keys = Keys::new("late_key").await;
    let here = keys.here();
    // A subject that never had a key, and one that had.
    here.subject(&subject(2)).await.must("get a key");
    for (number, key_id) in [(1, [1_u8; 16]), (2, [2; 16])] {
        here.erase(&subject(number), "a request").await.must("erase");
        let late = sqlx::query_scalar(include_str!("sql/personal_late_key.sql"));
        let late = late.bind(subject(number).to_string()).bind(key_id.to_vec());
        let is_refused: bool = late.fetch_one(keys.bed.store().pool()).await.must("be answered");
        assert!(is_refused, "subject {number}");
        assert!(matches!(here.subject(&subject(number)).await, Err(PersonalError::Erased(_))));
    }
    // Neither an owner nor a superuser brings a key back.
    for change in [
        "update annals.personal_keys set wrapped = '\\x01', destroyed_at = null",
        "update annals.personal_keys set fenced_at = null, reason = null, erased_event = null",
        "delete from annals.personal_keys",
        "truncate annals.personal_keys",
    ] {
        for replication in ["origin", "replica"] {
            let set = format!("set local session_replication_role = {replication}; {change}");
            let mut transaction = keys.bed.store().pool().begin().await.must("begin");
            let refused = sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut *transaction).await;
            let refused = refused.map(drop).unwrap_err();
            let code = refused.as_database_error().must("be the server's").code();
            assert_eq!(code.as_deref(), Some("42501"), "{change}: {refused}");
        }
    }
}

#[tokio::test]
async fn an_erasure_that_stopped_anywhere_reads_as_erased_and_is_finished() {
    let keys = Keys::new("stopped").await;
    let (here, store) = (keys.here(), keys.bed.store());
    for (number, steps) in [(1, 1), (2, 2)] {
        append(store, number, named(&here, number, NAME).await).await.must("append");
        let statements =
            [include_str!("sql/personal_fence.sql"), include_str!("sql/personal_destroy.sql")];
        for statement in statements.into_iter().take(steps) {
            let step = sqlx::query(statement).bind(subject(number).to_string());
            step.execute(store.pool()).await.must("erase in part");
        }
        let name = names(store, number).await.remove(0);
        assert!(here.open(&name).await.must("read as erased").is_erased(), "{steps} steps");
    }
    assert_eq!(erased_events(store).await, []);
    let finished = keys.elsewhere().await.finish_erasures().await.must("finish");
    assert_eq!(finished, [subject(1), subject(2)]);
    assert_eq!(erased_events(store).await.len(), 2);
    assert_eq!(here.finish_erasures().await.must("finish"), []);
}

/// Appends under one key until it is over; the answer to the question for the key then.
async fn write_until(
    store: Store,
    writer: PersonalKeys,
    is_over: Arc<AtomicBool>,
) -> Result<(), PersonalError> {
    append(&store, 1, named(&writer, 1, NAME).await).await.must("append");
    let key = writer.subject(&subject(1)).await.must("get a key");
    while !is_over.load(Ordering::SeqCst) {
        let name = Personal::new(key.clone(), NAME.to_owned());
        let kept = CustomerEvent::from(CustomerNamed { name, email: None });
        append(&store, 1, NewEvent::new(&kept).must("encode")).await.must("append");
    }
    writer.subject(&subject(1)).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_that_race_with_an_erasure_leave_nothing_readable() {
    let keys = Keys::new("race").await;
    let store = keys.bed.store().clone();
    let writers = [keys.here(), keys.elsewhere().await];
    let is_over = Arc::new(AtomicBool::new(false));
    let writing = writers
        .clone()
        .map(|writer| tokio::spawn(write_until(store.clone(), writer, Arc::clone(&is_over))));
    until("events before the erasure", async || names(&store, 1).await.len() >= 20).await;
    let erased = keys.here().erase(&subject(1), "a request").await.must("erase");
    let before = names(&store, 1).await.len();
    let has_more = async || names(&store, 1).await.len() >= before + 5;
    until("events behind the erasure", has_more).await;
    is_over.store(true, Ordering::SeqCst);
    for writer in writing {
        let late = writer.await.must("end the writer");
        assert!(matches!(late, Err(PersonalError::Erased(_))), "{late:?}");
    }
    let all = names(&store, 1).await;
    assert!(all.len() > 20 && erased.key_id.is_some());
    for reader in writers.iter().chain([&keys.elsewhere().await]) {
        let ring = reader.ring(all.iter().filter_map(Personal::key_id)).await.must("find keys");
        let opened = all.iter().map(|name| name.open(&ring).must("read as erased"));
        assert_eq!(opened.filter(|name| !name.is_erased()).count(), 0);
    }
}

#[tokio::test]
async fn a_retry_gets_the_original_answer_and_another_value_is_refused() {
    let keys = Keys::new("retry").await;
    let (here, store) = (keys.here(), keys.bed.store());
    let id = EventId::generate();
    let first = named(&here, 1, NAME).await.with_id(id);
    assert!(!append(store, 1, first.clone()).await.must("append").repeated);
    assert!(append(store, 1, first).await.must("append again").repeated);
    // Made again from the request, in another process.
    let elsewhere = keys.elsewhere().await;
    let again = named(&elsewhere, 1, NAME).await.with_id(id);
    assert!(append(store, 1, again).await.must("append the same").repeated);
    let other = named(&here, 1, "Ann Loe of Lochaber").await.with_id(id);
    let refused = append(store, 1, other).await.unwrap_err();
    let AppendError::Refused(reasons) = &refused else { panic!("{refused}") };
    assert!(
        matches!(&reasons[..], [Refusal::IdTaken { differs, .. }] if differs == &["payload"]),
        "{refused}"
    );
    let opened = here.open(&names(store, 1).await[0]).await.must("open");
    assert_eq!(opened.value().must("be open"), NAME);
}

#[tokio::test]
async fn a_repeated_command_gets_the_original_answer_also_behind_the_erasure() {
    let keys = Keys::new("command").await;
    let (here, store) = (keys.here(), keys.bed.store());
    let key = here.subject(&subject(1)).await.must("get a key");
    let command = CommandId::from(Uuid::now_v7());
    let decide = || async {
        let on = Decide::on(&stream(1)).command(command);
        let decision = |_: &Customer| {
            let name = Personal::new(key.clone(), NAME.to_owned());
            Ok::<_, std::fmt::Error>(vec![CustomerNamed { name, email: None }.into()])
        };
        store.decide(on, decision).await.must("decide")
    };
    let decided = decide().await;
    assert!(!decided.appended.repeated);
    here.erase(&subject(1), "a request").await.must("erase");
    let again = decide().await;
    assert!(again.appended.repeated);
    assert_eq!(again.appended.events, decided.appended.events);
}

#[tokio::test]
async fn a_snapshot_has_ciphertext_and_its_state_opens_or_is_erased() {
    let keys = Keys::new("state").await;
    let (here, store) = (keys.here(), keys.bed.store());
    let key = here.subject(&subject(1)).await.must("get a key");
    let decision = |_: &Customer| {
        let name = Personal::new(key.clone(), NAME.to_owned());
        Ok::<_, std::fmt::Error>(vec![CustomerNamed { name, email: None }.into()])
    };
    let decided = store.decide(&stream(1), decision).await.must("decide");
    // As a load returns it.
    assert!(decided.state.name.is_some_and(|name| name.is_sealed()));
    until("a snapshot behind the decision", async || {
        let versions = sqlx::query_scalar(include_str!("sql/snapshots.sql"));
        let versions = versions.bind("customer-1").fetch_all(store.pool()).await;
        let versions: Vec<i64> = versions.must("read the snapshots");
        versions == [0]
    })
    .await;
    assert!(!keys.has_text("Lochaber").await);
    let name = store.load::<Customer>(&stream(1)).await.must("load").state.name.must("be named");
    assert_eq!(here.open(&name).await.must("open").value().must("be open"), NAME);
    here.erase(&subject(1), "a request").await.must("erase");
    assert!(here.open(&name).await.must("read as erased").is_erased());
}

#[tokio::test]
async fn a_key_of_another_store_is_an_error_and_not_erased() {
    let (keys, other) = (Keys::new("unknown").await, Keys::new("unknown_other").await);
    append(keys.bed.store(), 1, named(&other.here(), 1, NAME).await).await.must("append");
    let name = names(keys.bed.store(), 1).await.remove(0);
    let unknown = keys.here().open(&name).await.unwrap_err();
    let id = name.key_id().must("have a key");
    assert!(
        matches!(&unknown, PersonalError::Open(OpenError::UnknownKey(key)) if *key == id),
        "{unknown}"
    );
}

#[tokio::test]
async fn a_rotation_keeps_values_readable_and_makes_the_keys_of_old_backups_useless() {
    let keys = Keys::new("rotated").await;
    let (here, store) = (keys.here(), keys.bed.store());
    for number in 1..=3 {
        append(store, number, named(&here, number, NAME).await).await.must("append");
    }
    let backup = sqlx::query_scalar(include_str!("sql/personal_wrapped.sql")).bind("customer-1");
    let backup: Vec<u8> = backup.fetch_one(store.pool()).await.must("back up a key");
    here.erase(&subject(1), "a request").await.must("erase");
    keys.provider().unwrap(&backup).await.must("decrypt the key in the backup");

    // A rotation that ends before its second step.
    let stopped = sqlx::query(include_str!("sql/personal_new_epoch.sql"));
    stopped.execute(store.pool()).await.must("rotate in part");
    let early = here.destroy_earlier_wrapping_keys().await.unwrap_err();
    assert!(matches!(early, PersonalError::NotRewrapped(2)), "{early}");
    assert_eq!(here.rotate().await.must("rotate"), 2);
    here.destroy_earlier_wrapping_keys().await.must("destroy the earlier wrapping key");
    let lost = keys.provider().unwrap(&backup).await.unwrap_err();
    assert!(!lost.is_retryable, "{lost}");
    // A key that was wrapped before the rotation and is stored behind it is refused.
    let late = sqlx::query(include_str!("sql/personal_late_key.sql"));
    let late = late.bind(subject(5).to_string()).bind([5_u8; 16].to_vec());
    assert_eq!(late.fetch_all(store.pool()).await.must("be answered").len(), 0);
    here.subject(&subject(5)).await.must("get a key of the new epoch");
    let elsewhere = keys.elsewhere().await;
    for number in [2, 3] {
        let opened = elsewhere.open(&names(store, number).await[0]).await.must("open");
        assert_eq!(opened.value().must("be open"), NAME);
    }
    append(store, 4, named(&elsewhere, 4, NAME).await).await.must("append under the new key");
}

#[tokio::test]
async fn a_blind_index_is_the_same_in_each_process() {
    let keys = Keys::new("blind").await;
    let index = Subject::new("email").must("name an index");
    let here = keys.here().blind_index(&index).await.must("make an index");
    let elsewhere = keys.elsewhere().await.blind_index(&index).await.must("find the index");
    assert_eq!(here.tag("ann@example.org"), elsewhere.tag("ann@example.org"));
    let other = Subject::new("phone").must("name an index");
    let other = keys.here().blind_index(&other).await.must("make an index");
    assert_ne!(here.tag("ann@example.org"), other.tag("ann@example.org"));
}

#[tokio::test]
async fn kafka_has_ciphertext_and_consumers_open_it_or_read_it_as_erased() {
    let keys = Keys::new("erased_kafka").await;
    let (here, store) = (keys.here(), keys.bed.store());
    append(store, 1, named(&here, 1, NAME).await).await.must("append");
    here.erase(&subject(2), "a request").await.must("erase");
    let topics = ["customer", "personal_data"].map(|category| keys.bed.topic(category));
    let follower = Follower::start(&keys.bed.environment().kafka, &topics.each_ref().map(|t| &**t));
    let _relay = RelayProcess::start(&keys.bed.relay());
    follower.until_count(2).await;
    let mut seen = follower.seen();
    seen.sort_by_key(|event| event.position);
    let has = |event: &Delivered, text: &[u8]| {
        event.payload.windows(text.len()).any(|bytes| bytes == text)
    };
    assert!(!has(&seen[0], b"Lochaber") && !has(&seen[0], b"ann@example.org"));
    assert!(has(&seen[1], b"customer-2"));

    let registry = SchemaRegistry::new(&keys.bed.environment().registry_url);
    let registry = registry.must("use the registry");
    let decoded: CustomerEvent = seen[0].decode(&registry).await.must("decode");
    let CustomerEvent::CustomerNamed(named) = decoded;
    let mut ring = here.ring(named.name.key_id()).await.must("find the key");
    assert_eq!(named.name.open(&ring).must("open").value().must("be open"), NAME);
    ring.destroy(named.name.key_id().must("have a key"));
    assert!(named.name.open(&ring).must("read as erased").is_erased());
}

/// The names of customers, by their keys: an erased one disappears.
struct Customers(PersonalKeys);

impl Projection for Customers {
    fn name(&self) -> &'static str {
        "customers"
    }

    fn version(&self) -> u32 {
        1
    }

    fn events(&self) -> Follow {
        Follow::all().of_types(["CustomerNamed", "SubjectErased"])
    }

    fn tables(&self) -> &'static str {
        include_str!("sql/customers.sql")
    }

    async fn apply(
        &self,
        events: &[RecordedEvent],
        connection: &mut PgConnection,
    ) -> Result<(), Box<dyn StdError + Send + Sync>> {
        for event in events {
            if event.event_type == "SubjectErased" {
                let PersonalDataEvent::SubjectErased(erased) = event.decode()?;
                let delete = sqlx::query(include_str!("sql/customers_delete.sql"));
                delete.bind(erased.key_id).execute(&mut *connection).await?;
                continue;
            }
            let CustomerEvent::CustomerNamed(named) = event.decode()?;
            let key_id = named.name.key_id().map(|id| id.as_bytes().to_vec());
            if let Some(name) = self.0.open(&named.name).await?.value() {
                let insert = sqlx::query(include_str!("sql/customers_insert.sql"));
                insert.bind(key_id).bind(name).execute(&mut *connection).await?;
            }
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_projection_deletes_what_it_derived_from_an_erased_person() {
    let keys = Keys::new("erased_projection").await;
    let (here, store) = (keys.here(), keys.bed.store());
    let runner = store.project(Customers(here.clone()));
    let running = tokio::spawn(async move { runner.run(std::future::pending()).await });
    let seen = |appended: Appended| async move {
        let positions: Vec<_> = appended.positions().collect();
        store.wait_for("customers", positions, DEADLINE).await.must("wait for the projection");
        let names = sqlx::query_scalar(include_str!("sql/customer_names.sql"));
        let names: Vec<String> = names.fetch_all(store.pool()).await.must("read the read model");
        names
    };
    append(store, 1, named(&here, 1, "Ann").await).await.must("append");
    let appended = append(store, 2, named(&here, 2, "Bob").await).await.must("append");
    assert_eq!(seen(appended).await, ["Ann", "Bob"]);
    let erased = here.erase(&subject(1), "a request").await.must("erase");
    assert_eq!(seen(erased.appended).await, ["Bob"]);
    running.abort();
}
