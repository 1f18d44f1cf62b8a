//! Denies a user's rights on a Kafka with access lists, and restores them; limits what clients
//! write: requests that no client library for Rust has.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::must::Must;

/// Properties of a broker with access lists. They allow everything until something is denied; a
/// client without a login has all rights.
pub const ACCESS_LISTS: &str = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
    allow.everyone.if.no.acl.found=true\nsuper.users=User:ANONYMOUS\n";

const CREATE_ACLS: i16 = 30;
const DELETE_ACLS: i16 = 31;
const ALTER_CLIENT_QUOTAS: i16 = 49;
/// The API version of the requests about access lists.
const VERSION: i16 = 1;
const TOPIC: u8 = 2;
const TRANSACTIONAL_ID: u8 = 5;
const LITERAL: u8 = 3;
const READ: u8 = 3;
const WRITE: u8 = 4;
const DESCRIBE: u8 = 8;
const DENY: u8 = 2;
const ALLOW: u8 = 3;

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

/// Denies a user a right on every resource, or on one.
///
/// # Panics
/// If the broker refuses.
pub async fn deny(broker: &str, user: &str, right: Right<'_>) {
    ask(broker, (CREATE_ACLS, VERSION), &denial(user, right)).await;
}

/// Restores a denied right.
///
/// # Panics
/// If the broker refuses.
pub async fn allow(broker: &str, user: &str, right: Right<'_>) {
    ask(broker, (DELETE_ACLS, VERSION), &denial(user, right)).await;
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

/// The entries of access lists in a request: both kinds of requests have the same layout. A
/// resource with any entry also denies everything that no entry allows.
fn denial(user: &str, right: Right<'_>) -> Vec<u8> {
    let entries = [(WRITE, DENY), (READ, ALLOW), (DESCRIBE, ALLOW)];
    let entry = |(operation, permission)| {
        let resource = [vec![right.resource()], string(right.name()), vec![LITERAL]].concat();
        let who = [string(&format!("User:{user}")), string("*")].concat();
        [resource, who, vec![operation, permission]].concat()
    };
    let count = u32::try_from(entries.len()).must("count entries");
    [count.to_be_bytes().to_vec(), entries.map(entry).concat()].concat()
}

fn string(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).must("write a short string");
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}

/// Sends one request and checks that it succeeded.
async fn ask(broker: &str, (key, version): (i16, i16), body: &[u8]) {
    let mut connection = TcpStream::connect(broker).await.must("connect to the broker");
    let header = [key.to_be_bytes(), version.to_be_bytes()].concat();
    let request = [&header[..], &1_u32.to_be_bytes(), &string("testkit"), body].concat();
    let size = u32::try_from(request.len()).must("write a short request");
    connection.write_u32(size).await.must("ask the broker");
    connection.write_all(&request).await.must("ask the broker");
    let size = connection.read_u32().await.must("read the broker's answer");
    let mut answer = vec![0; usize::try_from(size).must("read the broker's answer")];
    connection.read_exact(&mut answer).await.must("read the broker's answer");
    // Correlation id, throttle time, number of results, and the error of the first.
    assert_eq!(answer.get(12..14), Some(&[0, 0][..]), "the broker refuses: {answer:?}");
}
