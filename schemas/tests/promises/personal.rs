//! Personal values are sealed in events, open for their key and place only, and erased without it.

use annals_schemas::personal::{
    BlindIndex, Draft, KeyId, KeyRing, OpenError, Personal, RingKey, Subject, SubjectKey, placed,
};
use annals_schemas::{EncodeError, EventSet, events, verify};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PersonMet {
    met_at: i64,
    name: Personal<String>,
    email: Option<Personal<String>>,
    phones: Vec<Personal<String>>,
    badge: Badge,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Badge {
    number: i32,
    title: Personal<Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PersonSeen {
    name: Personal<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PersonTagged {
    name: String,
}

events! {
    #[derive(Debug, Clone, PartialEq)]
    pub(crate) enum PersonEvent in "person" {
        PersonMet = "../avro/person/PersonMet.v1.avsc",
    }
}

events! {
    #[derive(Debug, Clone, PartialEq)]
    pub(crate) enum Unmarked in "person" {
        PersonSeen = "../avro/person/PersonSeen.v1.avsc",
    }
}

mod wrong {
    use super::PersonTagged;

    annals_schemas::__events! {
        pub(crate) enum Tagged in "person" {
            PersonTagged = "../avro/person/PersonTagged.v1.avsc"
        }
    }
}

mod measured {
    use super::{Deserialize, Personal, Serialize, Value};

    #[derive(Debug, Clone, Serialize, Deserialize)]
    pub(crate) enum Reading {
        Of(f32),
        Between { low: f64, high: Option<f64> },
    }

    /// Numbers in place of texts.
    #[derive(Debug, Clone, Serialize, Deserialize)]
    pub(crate) struct PersonMet {
        pub(super) met_at: i64,
        pub(super) name: Personal<f64>,
        pub(super) email: Option<Personal<Vec<(u8, Reading)>>>,
        pub(super) phones: Vec<Personal<Option<f32>>>,
        pub(super) badge: Badge,
    }

    #[derive(Debug, Clone, Serialize, Deserialize)]
    pub(crate) struct Badge {
        pub(super) number: i32,
        pub(super) title: Personal<Value>,
    }

    annals_schemas::__events! {
        pub(crate) enum Measured in "person" {
            PersonMet = "../avro/person/PersonMet.v1.avsc"
        }
    }
}

/// A vector of schemas/tests/personal/vectors.json, which the Python example checks, too.
#[derive(Debug, Deserialize)]
struct Vector {
    subject: String,
    secret: String,
    key_id: String,
    path: String,
    value: String,
    sealed: String,
}

fn vectors() -> (Uuid, Vec<Vector>) {
    let file: Value = serde_json::from_str(include_str!("../personal/vectors.json")).expect("JSON");
    let id = file["event"]["id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
    (id, serde_json::from_value(file["sealed"].clone()).expect("vectors"))
}

fn hex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}

impl Vector {
    fn key(&self) -> SubjectKey {
        let subject = Subject::new(&*self.subject).expect("a subject");
        SubjectKey::from_secret(&subject, &hex(&self.secret)).expect("32 bytes")
    }

    fn personal<T: serde::de::DeserializeOwned>(&self) -> Personal<T> {
        Personal::new(self.key(), serde_json::from_str(&self.value).expect("JSON"))
    }
}

/// The event of the vectors, with open values.
fn met(vectors: &[Vector]) -> PersonEvent {
    let at = |path: &str| vectors.iter().find(|v| v.path == path).expect("a vector");
    PersonEvent::from(PersonMet {
        met_at: 7,
        name: at("name").personal(),
        email: Some(at("email").personal()),
        phones: vec![at("phones.0").personal(), at("phones.1").personal()],
        badge: Badge { number: 1, title: at("badge.title").personal() },
    })
}

fn ring(vectors: &[Vector]) -> KeyRing {
    vectors.iter().map(|vector| (vector.key().id(), RingKey::Present(vector.key()))).collect()
}

/// The event as a reader decodes it.
fn decode(event_id: Uuid, event_type: &str, payload: &[u8]) -> PersonMet {
    let (_, schema) = PersonEvent::schemas().expect("schemas")[0];
    let payload = placed(&schema, *event_id.as_bytes(), event_type, payload);
    let PersonEvent::PersonMet(met) =
        PersonEvent::decode("PersonMet", &schema, &payload).expect("decode");
    met
}

#[test]
fn sealed_values_are_those_of_the_test_vectors_and_open_again() {
    let (id, vectors) = vectors();
    let payload = Draft::of(&met(&vectors)).expect("encode").seal(*id.as_bytes()).expect("seal");
    for vector in &vectors {
        assert_eq!(vector.key().id().to_string(), vector.key_id);
        let sealed = hex(&vector.sealed);
        let found = payload.windows(sealed.len()).any(|bytes| bytes == sealed);
        assert!(found, "{} is sealed in another way", vector.path);
    }
    let read = decode(id, "PersonMet", &payload);
    assert!(read.name.is_sealed() && read.badge.title.is_sealed());
    let ring = ring(&vectors);
    assert_eq!(read.name.open(&ring).expect("open").value(), Some(&"Ann Lee".to_owned()));
    let phone = read.phones[1].open(&ring).expect("open");
    assert_eq!(phone.value(), Some(&"+49 30 2".to_owned()));
    let title = read.badge.title.open(&ring).expect("open");
    assert_eq!(title.value(), Some(&serde_json::json!({"title": "Prüferin"})));
}

#[test]
fn a_personal_number_that_json_lacks_is_refused_with_its_field_instead_of_null() {
    use measured::{Badge, Measured, PersonMet, Reading};

    let key = vectors().1.first().expect("a vector").key();
    let draft = |name: f64, reading: Option<Reading>, phone: Option<f32>| {
        let of = || Personal::new(key.clone(), Value::Null);
        let event = PersonMet {
            met_at: 7,
            name: Personal::new(key.clone(), name),
            email: reading.map(|reading| Personal::new(key.clone(), vec![(1, reading)])),
            phones: vec![Personal::new(key.clone(), None), Personal::new(key.clone(), phone)],
            badge: Badge { number: 1, title: of() },
        };
        Draft::of(&Measured::from(event))
    };
    draft(f64::MIN, Some(Reading::Between { low: -0.0, high: None }), Some(1.5)).expect("finite");
    let cases = [
        (draft(f64::NAN, None, None), "name"),
        (draft(1.0, Some(Reading::Of(f32::NAN)), None), "email"),
        (draft(1.0, Some(Reading::Between { low: 1.0, high: Some(f64::INFINITY) }), None), "email"),
        (draft(1.0, None, Some(f32::NEG_INFINITY)), "phones.1"),
    ];
    for (refused, path) in cases {
        match refused.expect_err("not finite") {
            EncodeError::NotFinite { record, field } => {
                assert!(record.ends_with("PersonMet"), "{record}");
                assert_eq!(field, path);
            }
            other => panic!("another kind of error: {other}"),
        }
    }
}

#[test]
fn the_same_values_of_an_event_are_sealed_to_the_same_bytes_and_others_never() {
    let (id, vectors) = vectors();
    let seal =
        |id: Uuid| Draft::of(&met(&vectors)).expect("encode").seal(*id.as_bytes()).expect("seal");
    assert_eq!(seal(id), seal(id));
    let nonces = |payload: &[u8]| -> Vec<Vec<u8>> {
        let read = decode(id, "PersonMet", payload);
        let key = read.name.key_id().expect("a key");
        let of_key = payload.windows(16).enumerate().filter(|(_, bytes)| *bytes == key.as_bytes());
        of_key.map(|(at, _)| payload[at + 16..at + 28].to_vec()).collect()
    };
    let mut all = nonces(&seal(id));
    all.extend(nonces(&seal(Uuid::from_u128(5))));
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!((all.len(), count), (8, 8));
}

#[test]
fn neither_payload_nor_json_nor_debug_contain_a_value() {
    let (id, vectors) = vectors();
    let event = met(&vectors);
    let draft = Draft::of(&event).expect("encode");
    let payload = draft.seal(*id.as_bytes()).expect("seal");
    for part in [payload, draft.encoded().payload.clone()] {
        assert!(!part.windows(3).any(|bytes| bytes == b"Ann" || bytes == b"ann"));
    }
    let data: Value = serde_json::from_str(draft.encoded().data.get()).expect("JSON");
    assert_eq!(data["name"], "sealed");
    assert_eq!(data["phones"], serde_json::json!(["sealed", "sealed"]));
    let shown = format!("{event:?} {draft:?} {:?}", vectors[0].key());
    assert!(!shown.contains("Ann") && !shown.contains("000102"), "{shown}");
}

#[test]
fn a_value_without_its_key_is_an_error_and_with_a_destroyed_key_erased() {
    let (id, vectors) = vectors();
    let payload = Draft::of(&met(&vectors)).expect("encode").seal(*id.as_bytes()).expect("seal");
    let name = decode(id, "PersonMet", &payload).name;
    let key = vectors[0].key().id();
    assert_eq!(name.open(&KeyRing::default()), Err(OpenError::UnknownKey(key)));
    let mut ring = ring(&vectors);
    ring.destroy(key);
    let erased = name.open(&ring).expect("read as erased");
    assert!(erased.is_erased() && erased.value().is_none());
}

#[test]
fn a_value_that_was_changed_or_moved_does_not_open() {
    let (id, vectors) = vectors();
    let payload = Draft::of(&met(&vectors)).expect("encode").seal(*id.as_bytes()).expect("seal");
    let ring = ring(&vectors);
    let is_forged = |name: &Personal<String>| matches!(name.open(&ring), Err(OpenError::Forged { path, .. }) if path == "name");
    assert!(is_forged(&decode(Uuid::from_u128(1), "PersonMet", &payload).name));
    assert!(is_forged(&decode(id, "PersonLost", &payload).name));
    let sealed = hex(&vectors[0].sealed);
    let at = payload.windows(sealed.len()).position(|bytes| bytes == sealed).expect("sealed");
    for place in [17, 29, sealed.len() - 1] {
        let mut changed = payload.clone();
        changed[at + place] ^= 1;
        assert!(is_forged(&decode(id, "PersonMet", &changed).name), "byte {place}");
    }
    // The two phones are equally long: one in the place of the other.
    let [first, second] = ["phones.0", "phones.1"].map(|path| {
        hex(&vectors.iter().find(|vector| vector.path == path).expect("a vector").sealed)
    });
    let place = |sealed: &[u8]| {
        payload.windows(sealed.len()).position(|bytes| bytes == sealed).expect("sealed")
    };
    let mut swapped = payload.clone();
    let (at_first, at_second) = (place(&first), place(&second));
    swapped[at_first..at_first + first.len()].copy_from_slice(&second);
    swapped[at_second..at_second + second.len()].copy_from_slice(&first);
    for phone in decode(id, "PersonMet", &swapped).phones {
        assert!(matches!(phone.open(&ring), Err(OpenError::Forged { .. })));
    }
}

#[test]
fn an_open_value_is_serialized_in_an_event_only() {
    let (_, vectors) = vectors();
    let name: Personal<String> = vectors[0].personal();
    assert!(serde_json::to_string(&name).is_err());
    assert!(met(&vectors).encode().is_err(), "outside a draft");
    // A field that the schema does not mark.
    let unmarked = Draft::of(&Unmarked::from(PersonSeen { name })).unwrap_err();
    assert!(matches!(unmarked, EncodeError::Personal { .. }), "{unmarked}");
}

#[test]
fn a_sealed_value_of_one_event_does_not_get_into_another_one() {
    let (id, vectors) = vectors();
    let payload = Draft::of(&met(&vectors)).expect("encode").seal(*id.as_bytes()).expect("seal");
    let read = decode(id, "PersonMet", &payload);
    let again = Draft::of(&PersonEvent::from(read.clone())).unwrap_err();
    assert!(matches!(again, EncodeError::Personal { ref field, .. } if field == "name"), "{again}");
    // State keeps it, with its place.
    let bytes = serde_json::to_string(&read.name).expect("serialize");
    assert_eq!(bytes, r#""sealed""#);
}

#[test]
fn an_erased_value_stays_erased_in_another_event() {
    let (id, vectors) = vectors();
    let mut ring = ring(&vectors);
    let PersonEvent::PersonMet(mut event) = met(&vectors);
    let payload = Draft::of(&met(&vectors)).expect("encode").seal(*id.as_bytes()).expect("seal");
    ring.destroy(vectors[0].key().id());
    event.name = decode(id, "PersonMet", &payload).name.open(&ring).expect("erased");
    let draft = Draft::of(&PersonEvent::from(event)).expect("encode");
    let read = decode(id, "PersonMet", &draft.seal(*id.as_bytes()).expect("seal"));
    assert!(read.name.is_erased());
}

#[test]
fn a_mark_on_another_type_than_bytes_is_refused() {
    let report = verify::<wrong::Tagged>().unwrap_err();
    assert!(report.problems.iter().any(|problem| problem.contains("name")), "{report}");
    let tagged = wrong::Tagged::from(PersonTagged { name: "Ann".to_owned() });
    let refused = Draft::of(&tagged).unwrap_err();
    assert!(matches!(refused, EncodeError::Personal { ref field, .. } if field == "name"));
}

#[test]
fn a_blind_index_finds_equal_values_under_one_key_only() {
    let (_, vectors) = vectors();
    let (index, other) = (BlindIndex::new(vectors[0].key()), BlindIndex::new(vectors[2].key()));
    assert_eq!(index.tag("ann@example.org"), index.tag("ann@example.org"));
    assert_ne!(index.tag("ann@example.org"), index.tag("bob@example.org"));
    assert_ne!(index.tag("ann@example.org"), other.tag("ann@example.org"));
    assert_eq!(index.tag("").len(), 32);
}

#[test]
fn a_subject_is_an_id_and_its_key_belongs_to_it() {
    for wrong in ["", "ann@example.org", "Ann Lee", "ü", &"x".repeat(151)] {
        assert!(Subject::new(wrong).is_err(), "{wrong}");
        let text = serde_json::json!(wrong);
        assert!(serde_json::from_value::<Subject>(text).is_err(), "{wrong}");
    }
    let subject: Subject = "customer-17".parse().expect("a subject");
    assert_eq!(serde_json::json!(subject), "customer-17");
    let key = SubjectKey::generate(&subject);
    assert_ne!(key, SubjectKey::generate(&subject));
    let other = Subject::new("customer-18").expect("a subject");
    assert_ne!(SubjectKey::from_secret(&other, key.secret()).expect("32 bytes").id(), key.id());
    assert_eq!(SubjectKey::from_secret(&subject, b"short"), None);
    assert_eq!(KeyId::from_slice(key.id().as_bytes()), Some(key.id()));
}
