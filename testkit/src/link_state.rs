//! The state of a faulty link.

use std::time::Duration;

/// How the link treats bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// It forwards them.
    Open,
    /// It breaks all connections, and new ones.
    Cut,
    /// It keeps connections open, and forwards nothing.
    Silent,
}

/// How a link works at the moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct State {
    pub(crate) flow: Flow,
    /// The API key of the Kafka requests that it holds.
    pub(crate) holds: Option<i16>,
    /// Connections made before the last cut end, although the link is mended meanwhile.
    pub(crate) cuts: usize,
    /// The bytes that each direction of a connection forwards in a second.
    pub(crate) bytes_per_second: Option<u32>,
    /// How much later than the server sends them answers arrive.
    pub(crate) delay: Duration,
}

impl State {
    /// Waits for the time that these bytes take.
    pub(crate) async fn pause(self, bytes: usize) {
        let Some(rate) = self.bytes_per_second else { return };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let seconds = f64::from(bytes) / f64::from(rate.max(1));
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    }
}
