//! The vital signs of the process: whether its event loop turns, its work, its wait.
//! The event loop writes them, the HTTP server reads them from a thread of its own.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::interval;

use crate::config::Config;
use crate::report::threads::locked;

/// The interval of the heartbeat while there is no event loop yet.
const BEAT_INTERVAL: Duration = Duration::from_millis(250);

/// The phase of a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Registers its deployment and claims its topics.
    Starting,
    /// Joins, acquires shards, fences earlier owners, reads checkpoints.
    Resuming,
    /// Publishes these shards.
    Publishing(Vec<u16>),
    /// Other relays own all shards; it takes over when one of them ends.
    Standby,
    /// Finishes its transactions and ends.
    Stopping,
}

/// The wait of a relay.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    /// An id that begins with the kind of thing.
    pub(crate) waiting_for: String,
    pub(crate) error: String,
    pub(crate) since: Moment,
}

/// A moment by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    at: Timestamp,
    instant: Instant,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self { at: Timestamp::now(), instant: Instant::now() }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.instant.elapsed()
    }
}

/// The vital signs of one process.
#[derive(Debug)]
pub(crate) struct Vitals {
    deployment: String,
    instance: String,
    hung_after: Duration,
    started: Instant,
    /// The time of the last turn of the event loop, in milliseconds after the start.
    beat_ms: AtomicU64,
    state: Mutex<VitalState>,
    changed: Notify,
}

#[derive(Debug)]
struct VitalState {
    phase: Phase,
    since: Moment,
    waiting: Option<Waiting>,
}

/// The answer to the question whether a relay publishes, or could.
#[derive(Debug, Serialize)]
pub(crate) struct ReadinessReport {
    /// `ready`, or why it is not: `starting`, `resuming`, `waiting`, `stopping`, `hung`.
    pub(crate) status: &'static str,
    pub(crate) deployment: String,
    pub(crate) instance: String,
    /// The shards that it publishes.
    pub(crate) shards: Vec<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) waiting_for: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// Since when it has this status.
    pub(crate) since: String,
    pub(crate) seconds: f64,
}

impl ReadinessReport {
    pub(crate) fn is_ready(&self) -> bool {
        self.status == "ready"
    }
}

impl Vitals {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            deployment: config.publication(),
            instance: config.relay.instance.clone(),
            hung_after: config.http.hung_after,
            started: Instant::now(),
            beat_ms: AtomicU64::new(0),
            state: Mutex::new(VitalState {
                phase: Phase::Starting,
                since: Moment::now(),
                waiting: None,
            }),
            changed: Notify::new(),
        }
    }

    /// The event loop turns.
    pub(crate) fn beat(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.beat_ms.store(now, Ordering::Relaxed);
    }

    /// Beats while the event loop has not begun: the thread of the future turns.
    pub(crate) async fn beating<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut beats = interval(BEAT_INTERVAL);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = beats.tick() => self.beat(),
            }
        }
    }

    /// The time since the last turn of the event loop.
    pub(crate) fn silence(&self) -> Duration {
        let beat = Duration::from_millis(self.beat_ms.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(beat)
    }

    /// Whether the event loop turns.
    pub(crate) fn is_alive(&self) -> bool {
        self.silence() < self.hung_after
    }

    pub(crate) fn enter(&self, phase: Phase) {
        let mut state = locked(&self.state);
        if state.phase != phase {
            (state.phase, state.since) = (phase, Moment::now());
            self.changed.notify_one();
        }
    }

    /// Sets the component that it waits for; none when it does not wait.
    pub(crate) fn wait(&self, waiting: Option<Waiting>) {
        let mut state = locked(&self.state);
        let what = |waiting: &Option<Waiting>| waiting.as_ref().map(|of| of.waiting_for.clone());
        let is_news = what(&state.waiting) != what(&waiting);
        state.waiting = waiting;
        if is_news {
            self.changed.notify_one();
        }
    }

    /// Waits for another phase, or for something else that it waits for. For one caller.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The component that it waits for, and for how long so far.
    pub(crate) fn waiting(&self) -> Option<(String, Duration)> {
        let state = locked(&self.state);
        let waiting = state.waiting.as_ref()?;
        Some((waiting.waiting_for.clone(), waiting.since.elapsed()))
    }

    pub(crate) fn readiness(&self) -> ReadinessReport {
        let VitalState { phase, since, waiting } = &*locked(&self.state);
        let silence = self.silence();
        let shards = if let Phase::Publishing(shards) = phase { shards.clone() } else { vec![] };
        let (status, since) = match (phase, waiting) {
            _ if silence >= self.hung_after => {
                let instant = Instant::now().checked_sub(silence).unwrap_or(self.started);
                let at = Timestamp::now().checked_sub(silence).unwrap_or(since.at);
                ("hung", Moment { at, instant })
            }
            (Phase::Stopping, _) => ("stopping", *since),
            (_, Some(waiting)) => ("waiting", waiting.since),
            (Phase::Starting, None) => ("starting", *since),
            (Phase::Resuming, None) => ("resuming", *since),
            (Phase::Publishing(_) | Phase::Standby, None) => ("ready", *since),
        };
        ReadinessReport {
            status,
            deployment: self.deployment.clone(),
            instance: self.instance.clone(),
            shards,
            waiting_for: waiting.as_ref().map(|waiting| waiting.waiting_for.clone()),
            error: waiting.as_ref().map(|waiting| waiting.error.clone()),
            since: format!("{:.3}", since.at),
            seconds: since.elapsed().as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vitals() -> Vitals {
        let vitals = Vitals::new(&Config::example());
        vitals.beat();
        vitals
    }

    #[test]
    fn it_is_ready_while_it_publishes_or_could_and_says_what_it_waits_for_otherwise() {
        let vitals = vitals();
        assert_eq!(vitals.readiness().status, "starting");
        vitals.enter(Phase::Resuming);
        assert_eq!(vitals.readiness().status, "resuming");
        for phase in [Phase::Standby, Phase::Publishing(vec![3])] {
            vitals.enter(phase);
            assert!(vitals.readiness().is_ready());
        }
        let (waiting_for, error) = ("kafka".to_owned(), "no broker answers".to_owned());
        vitals.wait(Some(Waiting { waiting_for, error, since: Moment::now() }));
        let readiness = vitals.readiness();
        assert_eq!((readiness.status, readiness.shards), ("waiting", vec![3]));
        assert_eq!(readiness.waiting_for.as_deref(), Some("kafka"));
        assert_eq!(readiness.error.as_deref(), Some("no broker answers"));
        vitals.wait(None);
        assert!(vitals.readiness().is_ready());
        vitals.enter(Phase::Stopping);
        assert_eq!(vitals.readiness().status, "stopping");
    }

    #[test]
    fn a_loop_that_does_not_turn_is_hung_in_any_phase() {
        let mut vitals = vitals();
        vitals.enter(Phase::Standby);
        assert!(vitals.is_alive());
        vitals.hung_after = Duration::ZERO;
        assert!(!vitals.is_alive());
        assert_eq!(vitals.readiness().status, "hung");
    }
}
