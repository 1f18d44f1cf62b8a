//! The parts of the delay between an append and its consumer, from the relay's log of each
//! transaction.

use serde::Serialize;
use serde_json::Value;

/// The log's names of the parts of a transaction's time, in their order, in milliseconds.
const FIELDS: [(&str, f64); 5] = [
    ("age_ms", 1.0),
    ("queued_us", 1e-3),
    ("sent_us", 1e-3),
    ("waited_us", 1e-3),
    ("committed_us", 1e-3),
];

/// Means over all events, in milliseconds, in the order of [`FIELDS`]: means add up, percentiles do
/// not.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Hops {
    means_ms: [f64; 5],
    events_per_transaction: f64,
}

impl Hops {
    /// The means of the logged transactions; `None` without a transaction.
    pub(crate) fn of(lines: &[Value]) -> Option<Self> {
        let (mut sums, mut all, mut transactions) = ([0.0; 5], 0.0, 0.0);
        for line in lines {
            let Some(events) = line["events"].as_f64() else { continue };
            for (sum, (field, ms)) in sums.iter_mut().zip(FIELDS) {
                *sum += line[field].as_f64()? * ms * events;
            }
            all += events;
            transactions += 1.0;
        }
        (transactions > 0.0).then(|| Self {
            means_ms: sums.map(|sum| sum / all),
            events_per_transaction: all / transactions,
        })
    }

    /// For people; the rest of the mean from the recorded time to the consumer is the time from the
    /// broker.
    pub(crate) fn describe(&self, recorded_to_received_ms: f64) -> String {
        let [read, queued, sent, waited, committed] = self.means_ms;
        let rest = recorded_to_received_ms - self.means_ms.iter().sum::<f64>();
        format!(
            "means, ms: recorded → read {read:.1} → a producer is free {queued:.1} → acknowledged {sent:.1} \
             → the one before is committed {waited:.1} → committed {committed:.1} → received {rest:.1}; \
             {:.0} events a transaction",
            self.events_per_transaction
        )
    }
}
