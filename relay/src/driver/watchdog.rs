//! A watchdog on progress, beyond the deadlines of the stages: a relay is never alive and idle
//! while events wait to be published.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use annals_relay_machine::{Action, Operation};

use crate::config::Config;

/// The response to a stall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StallAction {
    /// Nothing: there is none.
    None,
    /// End the session and begin another one: there was no progress for too long.
    RestartSession,
    /// End the process: there was no progress in the new session either.
    EndProcess,
}

/// Whether the relay may be without an operation under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rests {
    /// It waits, or owns no shard.
    Yes,
    /// It does not.
    No,
}

/// Knows which operations are under way, and since when.
#[derive(Debug)]
pub(crate) struct Watchdog {
    limit: Duration,
    under_way: BTreeMap<Operation, Instant>,
    /// When an operation was last ordered or answered, those on leases excepted: they never cease.
    progressed: Instant,
    /// When it was last checked.
    checked: Instant,
    /// Whether the session was restarted, and nothing was published since.
    has_restarted: bool,
}

impl Watchdog {
    pub(crate) fn new(config: &Config) -> Self {
        // Operations with deadlines of their own may take that long.
        let deadlines = config.kafka.transaction_timeout * 2 + config.relay.lease;
        let limit = config.relay.stall_max + deadlines;
        let now = Instant::now();
        Self {
            limit,
            under_way: BTreeMap::new(),
            progressed: now,
            checked: now,
            has_restarted: false,
        }
    }

    /// An action was ordered.
    pub(crate) fn ordered<P, B>(&mut self, action: &Action<P, B>) {
        let now = Instant::now();
        let operation = action.operation();
        self.under_way.extend(operation.map(|operation| (operation, now)));
        if operation.is_none_or(|operation| !operation.is_on_leases()) {
            self.progressed = now;
        }
    }

    /// An operation with the present producers has succeeded or failed.
    pub(crate) fn answered(&mut self, operation: Operation) {
        self.progressed = Instant::now();
        self.under_way.remove(&operation);
    }

    /// An operation that is under way has made progress.
    pub(crate) fn advanced(&mut self, operation: Operation) {
        self.progressed = Instant::now();
        self.under_way.entry(operation).and_modify(|since| *since = Instant::now());
    }

    /// The operation on leases has succeeded or failed: there is one at a time.
    pub(crate) fn leases_answered(&mut self) {
        self.under_way.retain(|operation, _| !operation.is_on_leases());
    }

    /// Operations with earlier producers are not awaited.
    pub(crate) fn forget_producers(&mut self) {
        self.under_way.retain(|operation, _| operation.is_on_leases());
    }

    /// Events were published, or none are left.
    pub(crate) fn published(&mut self) {
        self.has_restarted = false;
    }

    /// Checks whether there is progress.
    pub(crate) fn check(&mut self, rests: Rests) -> StallAction {
        self.discount_suspension();
        let is_stuck = self.under_way.values().any(|since| since.elapsed() >= self.limit);
        let is_busy = self.under_way.keys().any(|operation| !operation.is_on_leases());
        let is_forgotten =
            !is_busy && rests == Rests::No && self.progressed.elapsed() >= self.limit;
        if !is_stuck && !is_forgotten {
            return StallAction::None;
        }
        let (doing, limit_ms) = (self.describe(), self.limit.as_millis());
        self.under_way.clear();
        self.progressed = Instant::now();
        if std::mem::replace(&mut self.has_restarted, true) {
            tracing::error!(
                event = "stalled_again",
                doing,
                limit_ms,
                "no progress in the new session either: ending the process"
            );
            return StallAction::EndProcess;
        }
        tracing::error!(
            event = "stalled",
            doing,
            limit_ms,
            "no progress: restarting with a new session"
        );
        StallAction::RestartSession
    }

    /// A process that was suspended has made no progress meanwhile.
    fn discount_suspension(&mut self) {
        let suspended = self.checked.elapsed();
        self.checked = Instant::now();
        if suspended > self.limit / 2 {
            self.progressed += suspended;
            self.under_way.values_mut().for_each(|since| *since += suspended);
        }
    }

    /// The operations under way, and for how long.
    fn describe(&self) -> String {
        if self.under_way.is_empty() {
            return "nothing".to_owned();
        }
        let part = |(operation, since): (&Operation, &Instant)| {
            format!("{} for {} ms", name(*operation), since.elapsed().as_millis())
        };
        self.under_way.iter().map(part).collect::<Vec<_>>().join(", ")
    }
}

fn name(operation: Operation) -> &'static str {
    match operation {
        Operation::Join => "joining the deployment",
        Operation::RenewLease => "renewing the lease",
        Operation::AcquireShards => "acquiring shards",
        Operation::ReleaseShards => "releasing shards",
        Operation::Leave => "leaving the deployment",
        Operation::OpenProducers => "making producers",
        Operation::FencePredecessors => "fencing earlier owners",
        Operation::ReadCheckpoints => "reading checkpoints",
        Operation::ReadOutbox => "reading the outbox",
        Operation::Send => "sending records",
        Operation::Commit => "committing a transaction",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watchdog() -> Watchdog {
        Watchdog::new(&Config::example())
    }

    /// Checks when everything has been under way for too long.
    fn check(watchdog: &mut Watchdog, rests: Rests) -> StallAction {
        watchdog.limit = Duration::ZERO;
        watchdog.checked = Instant::now() + Duration::from_secs(1);
        watchdog.check(rests)
    }

    #[test]
    fn an_unanswered_operation_restarts_the_session_once_and_then_ends_the_process() {
        let mut watchdog = watchdog();
        let read = Action::<(), ()>::ReadOutbox(Vec::new());
        watchdog.ordered(&read);
        assert_eq!(watchdog.describe(), "reading the outbox for 0 ms");
        assert_eq!(check(&mut watchdog, Rests::Yes), StallAction::RestartSession);
        watchdog.ordered(&read);
        assert_eq!(check(&mut watchdog, Rests::Yes), StallAction::EndProcess);
    }

    #[test]
    fn an_operation_that_advances_is_not_stalled_and_one_that_is_not_under_way_does_not_begin() {
        let mut watchdog = watchdog();
        watchdog.ordered(&Action::<(), ()>::ReadCheckpoints(Vec::new()));
        let Some(before) = Instant::now().checked_sub(watchdog.limit) else { return };
        watchdog.under_way.insert(Operation::ReadCheckpoints, before);
        watchdog.advanced(Operation::ReadCheckpoints);
        assert_eq!(watchdog.check(Rests::Yes), StallAction::None);
        watchdog.answered(Operation::ReadCheckpoints);
        watchdog.advanced(Operation::ReadCheckpoints);
        assert_eq!(watchdog.describe(), "nothing");
    }

    #[test]
    fn after_something_was_published_the_session_may_be_restarted_again() {
        let mut watchdog = watchdog();
        for _ in 0..2 {
            watchdog.ordered(&Action::<(), ()>::OpenProducers);
            assert_eq!(check(&mut watchdog, Rests::Yes), StallAction::RestartSession);
            watchdog.published();
        }
    }

    #[test]
    fn a_relay_without_operations_is_stalled_only_if_it_does_not_rest() {
        let mut watchdog = watchdog();
        watchdog.ordered(&Action::<(), ()>::OpenProducers);
        watchdog.answered(Operation::OpenProducers);
        let progressed = watchdog.progressed;
        watchdog.ordered(&Action::<(), ()>::Join);
        assert_eq!(watchdog.progressed, progressed, "operations on leases never cease");
        watchdog.leases_answered();
        assert_eq!(check(&mut watchdog, Rests::Yes), StallAction::None);
        assert_eq!(check(&mut watchdog, Rests::No), StallAction::RestartSession);
    }

    #[test]
    fn a_suspended_process_is_not_stalled() {
        let mut watchdog = watchdog();
        watchdog.ordered(&Action::<(), ()>::OpenProducers);
        let hour = Duration::from_secs(3_600);
        let Some(before) = Instant::now().checked_sub(hour) else { return };
        watchdog.under_way.insert(Operation::OpenProducers, before);
        watchdog.checked = before;
        assert_eq!(watchdog.check(Rests::Yes), StallAction::None);
    }

    #[test]
    fn operations_with_earlier_producers_are_forgotten_and_those_on_leases_are_not() {
        let mut watchdog = watchdog();
        watchdog.ordered(&Action::<(), ()>::OpenProducers);
        watchdog.ordered(&Action::<(), ()>::Join);
        watchdog.forget_producers();
        assert_eq!(watchdog.describe(), "joining the deployment for 0 ms");
        watchdog.leases_answered();
        assert_eq!(check(&mut watchdog, Rests::Yes), StallAction::None);
    }
}
