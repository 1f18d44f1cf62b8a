//! A watchdog on progress: every part has deadlines of its own, and this is for what they do not cover. A relay is never
//! alive and idle while there is something to be published.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use annals_relay_core::{Order, Work};

use crate::config::Config;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Moving,
    /// End the session and begin another one: nothing has moved for too long.
    BeginAgain,
    /// End the process: beginning again has not helped.
    End,
}

/// Knows what is under way, and since when.
#[derive(Debug)]
pub(crate) struct Watchdog {
    limit: Duration,
    doing: BTreeMap<Work, Instant>,
    /// When something was last ordered or answered, but for the leases: those are always looked at.
    moved: Instant,
    /// When it was last looked.
    looked: Instant,
    /// Whether it has begun again, and nothing was published since.
    has_begun_again: bool,
}

impl Watchdog {
    pub(crate) fn new(config: &Config) -> Self {
        // What has a deadline by another setting may take that long.
        let deadlines = config.kafka.transaction_timeout * 2 + config.relay.lease;
        let limit = config.relay.stall_max + deadlines;
        let now = Instant::now();
        Self { limit, doing: BTreeMap::new(), moved: now, looked: now, has_begun_again: false }
    }

    /// Something is begun.
    pub(crate) fn ordered<P, B>(&mut self, order: &Order<P, B>) {
        let now = Instant::now();
        let work = work(order);
        self.doing.extend(work.map(|work| (work, now)));
        if work.is_none_or(|work| !is_on_leases(work)) {
            self.moved = now;
        }
    }

    /// Something has come to an end, and not well. Of work with producers only that of the present ones counts.
    pub(crate) fn failed(&mut self, work: Work, is_current: bool) {
        if is_on_leases(work) {
            self.leases_answered();
        } else if is_current {
            self.answered(work);
        }
    }

    /// Something has come to an end.
    pub(crate) fn answered(&mut self, work: Work) {
        self.moved = Instant::now();
        self.doing.remove(&work);
    }

    /// Work on the leases has: there is one at a time.
    pub(crate) fn leases_answered(&mut self) {
        self.doing.retain(|work, _| !is_on_leases(*work));
    }

    /// Producers of another generation: what was under way with the last ones is not waited for.
    pub(crate) fn forget(&mut self) {
        self.doing.retain(|work, _| is_on_leases(*work));
    }

    /// Something is published, or there is nothing left to be.
    pub(crate) fn published(&mut self) {
        self.has_begun_again = false;
    }

    /// Looks whether everything moves. `rests`: nothing is to be done for the moment, or there is no shard to do it for.
    pub(crate) fn look(&mut self, rests: bool) -> Verdict {
        self.wake_up();
        let is_stuck = self.doing.values().any(|since| since.elapsed() >= self.limit);
        let is_busy = self.doing.keys().any(|work| !is_on_leases(*work));
        let is_forgotten = !is_busy && !rests && self.moved.elapsed() >= self.limit;
        if !is_stuck && !is_forgotten {
            return Verdict::Moving;
        }
        let (doing, limit_ms) = (self.tell(), self.limit.as_millis());
        self.doing.clear();
        self.moved = Instant::now();
        if std::mem::replace(&mut self.has_begun_again, true) {
            tracing::error!(
                event = "stalled_again",
                doing,
                limit_ms,
                "nothing moves, and beginning again has not helped: ending"
            );
            return Verdict::End;
        }
        tracing::error!(
            event = "stalled",
            doing,
            limit_ms,
            "nothing moves: beginning again with another session"
        );
        Verdict::BeginAgain
    }

    /// While the process itself was frozen, nothing could move.
    fn wake_up(&mut self) {
        let slept = self.looked.elapsed();
        self.looked = Instant::now();
        if slept > self.limit / 2 {
            self.moved += slept;
            self.doing.values_mut().for_each(|since| *since += slept);
        }
    }

    /// What each part does, and for how long.
    fn tell(&self) -> String {
        if self.doing.is_empty() {
            return "nothing".to_owned();
        }
        let part = |(work, since): (&Work, &Instant)| {
            format!("{} for {} ms", name(*work), since.elapsed().as_millis())
        };
        self.doing.iter().map(part).collect::<Vec<_>>().join(", ")
    }
}

fn work<P, B>(order: &Order<P, B>) -> Option<Work> {
    match order {
        Order::Join => Some(Work::Join),
        Order::Look { .. } => Some(Work::Look),
        Order::Take(_) => Some(Work::Take),
        Order::Release(_) => Some(Work::Release),
        Order::Leave { .. } => Some(Work::Leave),
        Order::Open => Some(Work::Open),
        Order::Fence(_) => Some(Work::Fence),
        Order::ReadCheckpoints(_) => Some(Work::ReadCheckpoints),
        Order::Read(_) => Some(Work::Read),
        Order::Send(..) => Some(Work::Send),
        Order::Commit(_) => Some(Work::Commit),
        Order::Rest { .. } | Order::End { .. } => None,
    }
}

fn is_on_leases(work: Work) -> bool {
    match work {
        Work::Join | Work::Look | Work::Take | Work::Release | Work::Leave => true,
        Work::Open
        | Work::Fence
        | Work::ReadCheckpoints
        | Work::Read
        | Work::Send
        | Work::Commit => false,
    }
}

fn name(work: Work) -> &'static str {
    match work {
        Work::Join => "joining the deployment",
        Work::Look => "looking at the leases",
        Work::Take => "taking shards",
        Work::Release => "giving shards back",
        Work::Leave => "leaving the deployment",
        Work::Open => "making producers",
        Work::Fence => "fencing earlier owners",
        Work::ReadCheckpoints => "reading checkpoints",
        Work::Read => "reading the outbox",
        Work::Send => "sending records",
        Work::Commit => "committing a transaction",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watchdog() -> Watchdog {
        Watchdog::new(&Config::example())
    }

    /// Looks when everything has been under way for too long.
    fn look(watchdog: &mut Watchdog, rests: bool) -> Verdict {
        watchdog.limit = Duration::ZERO;
        watchdog.looked = Instant::now() + Duration::from_secs(1);
        watchdog.look(rests)
    }

    #[test]
    fn work_that_is_not_answered_is_begun_again_once_and_then_is_the_end() {
        let mut watchdog = watchdog();
        let read = Order::<(), ()>::Read(Vec::new());
        watchdog.ordered(&read);
        assert_eq!(watchdog.tell(), "reading the outbox for 0 ms");
        assert_eq!(look(&mut watchdog, true), Verdict::BeginAgain);
        watchdog.ordered(&read);
        assert_eq!(look(&mut watchdog, true), Verdict::End);
    }

    #[test]
    fn after_something_was_published_it_may_begin_again_once_more() {
        let mut watchdog = watchdog();
        for _ in 0..2 {
            watchdog.ordered(&Order::<(), ()>::Open);
            assert_eq!(look(&mut watchdog, true), Verdict::BeginAgain);
            watchdog.published();
        }
    }

    #[test]
    fn nothing_under_way_is_well_while_there_is_nothing_to_do() {
        let mut watchdog = watchdog();
        watchdog.ordered(&Order::<(), ()>::Open);
        watchdog.answered(Work::Open);
        let moved = watchdog.moved;
        watchdog.ordered(&Order::<(), ()>::Join);
        assert_eq!(watchdog.moved, moved, "work on the leases is always done");
        watchdog.leases_answered();
        assert_eq!(look(&mut watchdog, true), Verdict::Moving);
        assert_eq!(look(&mut watchdog, false), Verdict::BeginAgain);
    }

    #[test]
    fn a_process_that_was_frozen_has_not_hung() {
        let mut watchdog = watchdog();
        watchdog.ordered(&Order::<(), ()>::Open);
        let hour = Duration::from_secs(3_600);
        let Some(before) = Instant::now().checked_sub(hour) else { return };
        watchdog.doing.insert(Work::Open, before);
        watchdog.looked = before;
        assert_eq!(watchdog.look(true), Verdict::Moving);
    }

    #[test]
    fn what_was_under_way_with_earlier_producers_is_forgotten_but_for_the_leases() {
        let mut watchdog = watchdog();
        watchdog.ordered(&Order::<(), ()>::Open);
        watchdog.ordered(&Order::<(), ()>::Join);
        watchdog.forget();
        assert_eq!(watchdog.tell(), "joining the deployment for 0 ms");
        watchdog.leases_answered();
        assert_eq!(look(&mut watchdog, true), Verdict::Moving);
    }
}
