//! The rights of users on a Kafka with access lists, their passwords, and limits of what clients
//! write: requests that no client library for Rust has.

use openssl::hash::MessageDigest;
use openssl::pkcs5::pbkdf2_hmac;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::must::Must;
use crate::until::until;

/// Properties of a broker with access lists. They allow everything until something is denied; a
/// client without a login has all rights.
pub const ACCESS_LISTS: &str = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
    allow.everyone.if.no.acl.found=true\nsuper.users=User:ANONYMOUS\n";

const DESCRIBE_ACLS: i16 = 29;
const CREATE_ACLS: i16 = 30;
const DELETE_ACLS: i16 = 31;
const ALTER_CLIENT_QUOTAS: i16 = 49;
/// The API version of the requests about access lists.
const VERSION: i16 = 1;
const ALTER_SCRAM_USERS: i16 = 51;
const TOPIC: u8 = 2;
const GROUP: u8 = 3;
const CLUSTER: u8 = 4;
const TRANSACTIONAL_ID: u8 = 5;
const LITERAL: u8 = 3;
const PREFIXED: u8 = 4;
const READ: u8 = 3;
const WRITE: u8 = 4;
const DESCRIBE: u8 = 8;
const DENY: u8 = 2;
const ALLOW: u8 = 3;

/// Mechanism 2 of the protocol.
const SCRAM_SHA_512: u8 = 2;
const SCRAM_ITERATIONS: u32 = 4_096;
const SHA_512_BYTES: usize = 64;

/// What a right is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource<'a> {
    /// Topics whose names begin so.
    Topics(&'a str),
    /// Transactional ids that begin so.
    TransactionalIds(&'a str),
    /// One consumer group.
    Group(&'a str),
    /// The cluster.
    Cluster,
}

impl Resource<'_> {
    const fn fields(&self) -> (u8, &str, u8) {
        match self {
            Self::Topics(prefix) => (TOPIC, prefix, PREFIXED),
            Self::TransactionalIds(prefix) => (TRANSACTIONAL_ID, prefix, PREFIXED),
            Self::Group(name) => (GROUP, name, LITERAL),
            Self::Cluster => (CLUSTER, "kafka-cluster", LITERAL),
        }
    }
}

/// What a user may do with a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    /// Read.
    Read = 3,
    /// Write.
    Write = 4,
    /// Create.
    Create = 5,
    /// Describe.
    Describe = 8,
    /// Describe the settings.
    DescribeConfigs = 10,
    /// Change the settings.
    AlterConfigs = 11,
}

/// Gives a user a right, and waits until the broker knows it.
///
/// # Panics
/// If the broker refuses.
pub async fn grant(broker: &str, user: &str, of: Resource<'_>, operations: &[Operation]) {
    create(broker, &grants(user, of, operations)).await;
}

/// Takes a granted right from a user, and waits until the broker knows it.
///
/// # Panics
/// If the broker refuses.
pub async fn withdraw(broker: &str, user: &str, of: Resource<'_>, operations: &[Operation]) {
    delete(broker, &grants(user, of, operations)).await;
}

/// Entries of access lists: all requests about them have the same layout.
fn grants(user: &str, of: Resource<'_>, operations: &[Operation]) -> Vec<Vec<u8>> {
    let (kind, name, pattern) = of.fields();
    let entry = |operation: &Operation| {
        let resource = [vec![kind], string(name), vec![pattern]].concat();
        let who = [string(&format!("User:{user}")), string("*")].concat();
        [resource, who, vec![*operation as u8, ALLOW]].concat()
    };
    operations.iter().map(entry).collect()
}

async fn create(broker: &str, entries: &[Vec<u8>]) {
    ask(broker, (CREATE_ACLS, VERSION), &array(entries)).await;
    for entry in entries {
        until("the broker knows a right", async || is_known(broker, entry).await).await;
    }
}

async fn delete(broker: &str, entries: &[Vec<u8>]) {
    ask(broker, (DELETE_ACLS, VERSION), &array(entries)).await;
    for entry in entries {
        until("the broker has lost a right", async || !is_known(broker, entry).await).await;
    }
}

fn array(entries: &[Vec<u8>]) -> Vec<u8> {
    let count = u32::try_from(entries.len()).must("count rights");
    [count.to_be_bytes().to_vec(), entries.concat()].concat()
}

/// Whether an entry is in force: a broker learns of a change after the controller has acknowledged
/// it.
async fn is_known(broker: &str, entry: &[u8]) -> bool {
    let answer = exchange(broker, (DESCRIBE_ACLS, VERSION), Fields::Plain, entry).await;
    // Correlation id, throttle time, error, message of the error, number of resources.
    assert_eq!(answer.get(8..10), Some(&[0, 0][..]), "the broker refuses: {answer:?}");
    let length = answer.get(10..12).and_then(|length| length.try_into().ok());
    let length = i16::from_be_bytes(length.must("read the broker's answer"));
    let count = 12 + usize::try_from(length).unwrap_or(0);
    answer.get(count..count + 4).must("read the broker's answer") != [0; 4]
}

/// Gives a user a password for SCRAM-SHA-512.
///
/// # Panics
/// If the broker refuses.
pub async fn set_password(broker: &str, user: &str, password: &str) {
    let salt = uuid::Uuid::new_v4();
    let mut salted = [0; SHA_512_BYTES];
    let iterations = usize::try_from(SCRAM_ITERATIONS).must("count iterations");
    let (password, digest) = (password.as_bytes(), MessageDigest::sha512());
    pbkdf2_hmac(password, salt.as_bytes(), iterations, digest, &mut salted).must("salt a password");
    let change = [
        compact(user.as_bytes()),
        vec![SCRAM_SHA_512],
        SCRAM_ITERATIONS.to_be_bytes().to_vec(),
        compact(salt.as_bytes()),
        compact(&salted),
    ];
    // No user is removed; one is changed; none of the three parts has tagged fields.
    let body = [vec![1, 2], change.concat(), vec![0, 0]].concat();
    let answer = exchange(broker, (ALTER_SCRAM_USERS, 0), Fields::Tagged, &body).await;
    // Correlation id, tags, throttle time, number of results, the name of the user.
    let error = 4 + 1 + 4 + 1 + 1 + user.len();
    assert_eq!(answer.get(error..error + 2), Some(&[0, 0][..]), "the broker refuses: {answer:?}");
}

/// Bytes with their length, as the newer requests have it.
fn compact(bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len() + 1).must("write a short field");
    [&[length], bytes].concat()
}

/// A right that can be denied to a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right<'a> {
    /// To write to topics. The user may still describe them.
    Topics,
    /// The same for one topic.
    Topic(&'a str),
    /// To use transactional ids.
    TransactionalIds,
}

impl Right<'_> {
    const fn resource(self) -> u8 {
        match self {
            Self::Topics | Self::Topic(_) => TOPIC,
            Self::TransactionalIds => TRANSACTIONAL_ID,
        }
    }

    const fn name(&self) -> &str {
        match self {
            Self::Topic(topic) => topic,
            Self::Topics | Self::TransactionalIds => "*",
        }
    }
}

/// Denies a user a right on every resource, or on one, and waits until the broker knows it.
///
/// # Panics
/// If the broker refuses.
pub async fn deny(broker: &str, user: &str, right: Right<'_>) {
    create(broker, &denial(user, right)).await;
}

/// Restores a denied right, and waits until the broker knows it.
///
/// # Panics
/// If the broker refuses.
pub async fn allow(broker: &str, user: &str, right: Right<'_>) {
    delete(broker, &denial(user, right)).await;
}

/// Limits the bytes that each client without a quota of its own may write in a second; none: as
/// many as it likes.
///
/// # Panics
/// If the broker refuses.
pub async fn limit_writing(broker: &str, bytes_per_second: Option<f64>) {
    // One entity, the default of clients' ids, with one quota.
    let entity = [&1_u32.to_be_bytes()[..], &string("client-id"), &(-1_i16).to_be_bytes()].concat();
    let rate = bytes_per_second.unwrap_or_default().to_be_bytes();
    let is_removed = u8::from(bytes_per_second.is_none());
    let quota = [&string("producer_byte_rate")[..], &rate, &[is_removed]].concat();
    let one = 1_u32.to_be_bytes();
    let body = [&one[..], &entity, &one, &quota, &[0]].concat();
    ask(broker, (ALTER_CLIENT_QUOTAS, 0), &body).await;
}

/// A resource with any entry also denies everything that no entry allows.
fn denial(user: &str, right: Right<'_>) -> Vec<Vec<u8>> {
    let entries = [(WRITE, DENY), (READ, ALLOW), (DESCRIBE, ALLOW)];
    let entry = |(operation, permission)| {
        let resource = [vec![right.resource()], string(right.name()), vec![LITERAL]].concat();
        let who = [string(&format!("User:{user}")), string("*")].concat();
        [resource, who, vec![operation, permission]].concat()
    };
    entries.map(entry).into()
}

fn string(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).must("write a short string");
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}

/// Sends one request and checks that it succeeded.
async fn ask(broker: &str, request: (i16, i16), body: &[u8]) {
    let answer = exchange(broker, request, Fields::Plain, body).await;
    // Correlation id, throttle time, number of results, and the error of the first.
    assert_eq!(answer.get(12..14), Some(&[0, 0][..]), "the broker refuses: {answer:?}");
}

/// How the fields of a request are written: newer versions of requests have tagged ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fields {
    Plain,
    Tagged,
}

/// Sends one request and returns the answer.
async fn exchange(
    broker: &str,
    (key, version): (i16, i16),
    fields: Fields,
    body: &[u8],
) -> Vec<u8> {
    let mut connection = TcpStream::connect(broker).await.must("connect to the broker");
    let header = [key.to_be_bytes(), version.to_be_bytes()].concat();
    let no_tags: &[u8] = if fields == Fields::Tagged { &[0] } else { &[] };
    let client = string("testkit");
    let request = [&header[..], &1_u32.to_be_bytes(), &client, no_tags, body].concat();
    let size = u32::try_from(request.len()).must("write a short request");
    connection.write_u32(size).await.must("ask the broker");
    connection.write_all(&request).await.must("ask the broker");
    let size = connection.read_u32().await.must("read the broker's answer");
    let mut answer = vec![0; usize::try_from(size).must("read the broker's answer")];
    connection.read_exact(&mut answer).await.must("read the broker's answer");
    answer
}
