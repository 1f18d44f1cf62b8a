//! The events of one Kafka client: errors of brokers, statistics, logs. librdkafka sends them from
//! threads of its own.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::kafka::tail_scan::{self, Fetched};
use crate::report::threads::locked;

/// The age up to which an error of a broker explains a failure.
const BROKER_ERROR_AGE_MAX: Duration = Duration::from_secs(60);
/// The age up to which a connection is new, as for librdkafka.
const NEW_CONNECTION_MS_MAX: u64 = 2_000;

/// The events of one client.
#[derive(Default)]
pub(crate) struct ClientEvents {
    count: AtomicU64,
    broker_error: Mutex<Option<(Instant, String)>>,
    statistics: Mutex<Vec<u8>>,
}

impl ClientEvents {
    /// The number of events.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Polls until no event comes; `poll` takes one.
    pub(crate) fn poll_until_quiet(&self, poll: impl Fn()) {
        loop {
            let before = self.count();
            poll();
            if self.count() == before {
                return;
            }
        }
    }

    /// Counts an event without content.
    pub(crate) fn record(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Records an error of a broker.
    pub(crate) fn broker_error(&self, text: &str) {
        self.record();
        *locked(&self.broker_error) = Some((Instant::now(), text.to_owned()));
    }

    /// Takes a log entry about a failed connection. It comes as an error as well, unless the broker
    /// closed the connection.
    pub(crate) fn connection_failed(&self, entry: &str) {
        if is_closed_while_new(entry) {
            self.broker_error(&format!(
                "{entry}: security.protocol may not be that of the broker's listener"
            ));
        } else {
            self.record();
        }
    }

    /// Takes the client's statistics, as JSON. They are parsed when they are used: for many
    /// partitions they arrive faster than they can be parsed.
    pub(crate) fn statistics(&self, json: &[u8]) {
        self.record();
        let mut statistics = locked(&self.statistics);
        statistics.clear();
        statistics.extend_from_slice(json);
    }

    /// The next offsets to fetch, by the last statistics.
    pub(crate) fn fetched(&self) -> Fetched {
        let statistics = locked(&self.statistics).clone();
        tail_scan::fetched(&statistics).unwrap_or_default()
    }

    /// A reason, with the last error of a broker if that is recent.
    pub(crate) fn explain(&self, reason: String) -> String {
        match &*locked(&self.broker_error) {
            Some((at, error)) if at.elapsed() < BROKER_ERROR_AGE_MAX => {
                format!("{reason}; last error of a broker: {error}")
            }
            Some(_) | None => reason,
        }
    }
}

/// Whether a broker closed a connection that was new: a listener that expects TLS closes it at the
/// first request, and one that expects a login at the second one. librdkafka 2.12 has a sentence
/// for each, and prints neither: it searches the format of its entry instead of the text.
fn is_closed_while_new(entry: &str) -> bool {
    let age_and_state = || entry.split_once("(after ")?.1.split_once("ms in state ");
    entry.contains("Disconnected")
        && age_and_state().is_some_and(|(age, state)| {
            let is_new = age.parse().is_ok_and(|age: u64| age < NEW_CONNECTION_MS_MAX);
            state.starts_with("APIVERSION_QUERY") || (state.starts_with("UP") && is_new)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polling_ends_when_no_event_comes() {
        let events = ClientEvents::default();
        events.poll_until_quiet(|| {
            if events.count() < 3 {
                events.record();
            }
        });
        assert_eq!(events.count(), 3);
    }

    #[test]
    fn a_new_connection_that_a_broker_closes_names_the_security_protocol() {
        let of_state = |state: &str| {
            let events = ClientEvents::default();
            events.connection_failed(&format!("127.0.0.1:9092/1: Disconnected (after {state})"));
            assert_eq!(events.count(), 1);
            events.explain("timed out".to_owned())
        };
        for state in ["1ms in state APIVERSION_QUERY", "6ms in state UP, 1 identical error(s)"] {
            let explained = of_state(state);
            assert!(explained.contains("security.protocol"), "{explained}");
        }
        assert_eq!(of_state("2000ms in state UP"), "timed out");
        assert_eq!(of_state("1ms in state SSL_HANDSHAKE"), "timed out");
    }

    #[test]
    fn the_last_error_of_a_broker_explains_a_failure() {
        let events = ClientEvents::default();
        assert_eq!(events.explain("timed out".to_owned()), "timed out");
        events.broker_error("connection refused");
        assert_eq!(
            events.explain("timed out".to_owned()),
            "timed out; last error of a broker: connection refused"
        );
        assert_eq!(events.count(), 1);
    }
}
