//! A key's partition is the one that Java's producer computes, so that topics can be joined by
//! partition.

use annals_relay::model::message::Message;
use annals_testkit::{Isolation, Testbed, read_topic};

use crate::{config, message, producer, publish, topic};

const PARTITIONS: u32 = 12;

/// `org.apache.kafka.common.utils.Utils.murmur2`, line by line.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let mut h = 0x9747_b28c ^ u32::try_from(data.len()).unwrap();
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (place, byte) in rest.iter().enumerate().rev() {
            h ^= u32::from(*byte) << (8 * place);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

/// `BuiltInPartitioner.partitionForKey`.
fn partition(key: &str) -> i32 {
    i32::try_from((murmur2(key.as_bytes()) & 0x7fff_ffff) % PARTITIONS).unwrap()
}

#[test]
fn the_algorithm_here_is_the_one_of_kafkas_own_tests() {
    // UtilsTest.testMurmur2
    let vectors = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ];
    for (text, hash) in vectors {
        assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
    }
}

#[tokio::test]
async fn keys_lie_where_java_would_put_them() {
    let bed = Testbed::new("keys_lie_where_java").await;
    let config = config(&bed, &format!("topics.partitions = {PARTITIONS}"));
    let topic = topic(&config, "flight");
    let keys = (0..200).map(|number| format!("flight-2013-01-{number:02}-\u{e4}{number}"));
    let keys = keys.chain(["f", "flight-1", "flight-UA-1545"].map(str::to_owned));
    let messages: Vec<Message> =
        (0..).zip(keys).map(|(number, key)| message(&topic, &key, number)).collect();
    publish(&producer(&config), &messages);

    let records = read_topic(&bed.environment().kafka, &topic, Isolation::Committed).await;
    assert_eq!(records.len(), messages.len());
    for record in &records {
        let key = String::from_utf8(record.key.clone().unwrap()).unwrap();
        assert_eq!(record.partition, partition(&key), "{key}");
    }
    let used: std::collections::BTreeSet<i32> =
        records.iter().map(|record| record.partition).collect();
    assert_eq!(used.len(), 12, "the keys of this test do not reach every partition: {used:?}");
}
