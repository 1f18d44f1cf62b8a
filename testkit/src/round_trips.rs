//! Counts the round trips to PostgreSQL over all connections of a link.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::follow::DEADLINE;
use crate::must::Must;

/// Round trips: a client has sent something after the server had answered.
#[derive(Debug, Clone)]
pub(crate) struct RoundTrips(watch::Sender<Observed>);

#[derive(Debug, Default)]
struct Observed {
    /// The types of the protocol messages that began each round trip.
    round_trips: Vec<String>,
    /// Connections whose client sent last.
    unanswered: usize,
}

impl Default for RoundTrips {
    fn default() -> Self {
        Self(watch::Sender::new(Observed::default()))
    }
}

impl RoundTrips {
    /// The turn of a new connection.
    pub(crate) fn turn(&self) -> Turn {
        Turn { is_clients: Arc::default(), observed: self.0.clone() }
    }

    pub(crate) async fn quiet(&self) -> usize {
        // Lets every task that is ready run, so that its requests are observed.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let mut observed = self.0.subscribe();
        let answered = observed.wait_for(|observed| observed.unanswered == 0);
        let answered = tokio::time::timeout(DEADLINE, answered).await;
        answered.must("wait for the server").must("wait for the server").round_trips.len()
    }

    pub(crate) fn after(&self, skip: usize) -> Vec<String> {
        self.0.borrow().round_trips.iter().skip(skip).cloned().collect()
    }
}

/// Which side of one connection sent last.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    is_clients: Arc<AtomicBool>,
    observed: watch::Sender<Observed>,
}

impl Turn {
    pub(crate) fn request(&self, bytes: &[u8]) {
        if !self.is_clients.swap(true, Ordering::SeqCst) {
            self.observed.send_modify(|observed| {
                observed.round_trips.push(message_types(bytes));
                observed.unanswered += 1;
            });
        }
    }

    pub(crate) fn answer(&self) {
        if self.is_clients.swap(false, Ordering::SeqCst) {
            self.observed.send_modify(|observed| observed.unanswered -= 1);
        }
    }
}

/// The one-letter types of the messages that begin in these bytes; `^` for a message without a
/// type, at the start of a connection.
fn message_types(mut bytes: &[u8]) -> String {
    let mut types = String::new();
    while let [kind, a, b, c, d, ..] = *bytes {
        if kind == 0 {
            return "^".to_owned();
        }
        types.push(char::from(kind));
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        bytes = bytes.get(length.saturating_add(1)..).unwrap_or_default();
    }
    types
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_by_their_types() {
        assert_eq!(message_types(b"B\0\0\0\x05xE\0\0\0\x04S\0\0\0\x04"), "BES");
        assert_eq!(message_types(&[0, 0, 0, 8, 4, 210, 22, 47]), "^");
        assert_eq!(message_types(b"B\0\0\xff\xff cut off"), "B");
    }
}
