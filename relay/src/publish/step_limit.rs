//! How many positions one statement of the reader goes through.

use std::time::{Duration, Instant};

/// The most positions of one statement, if few of them have events for the page.
const STEP_MAX: i64 = 1 << 20;
/// So many times the positions are gone through next, where there was room for more than so many
/// times the events.
const WIDER: i64 = 4;
/// After a page without a statement that took longer than this, the next ones may go through more
/// positions again.
const FAST: Duration = Duration::from_millis(500);

/// Limits the number of positions. A statement that failed is not tried again at the same size: its
/// deadline is the same. What a failed page had read is read again, so that the limit stays until a
/// page has ended.
#[derive(Debug)]
pub(crate) struct StepLimit {
    max: i64,
    under_way: Option<(i64, Instant)>,
    /// Whether a statement of this page was slow.
    is_slow: bool,
}

impl Default for StepLimit {
    fn default() -> Self {
        Self { max: STEP_MAX, under_way: None, is_slow: false }
    }
}

impl StepLimit {
    /// A statement begins; returns the number of its positions, at most as many as wanted.
    pub(crate) fn begin(&mut self, wanted: i64) -> i64 {
        let step = wanted.clamp(1, self.max);
        self.under_way = Some((step, Instant::now()));
        step
    }

    /// The statement has ended.
    pub(crate) fn ended(&mut self) {
        let began = self.under_way.take();
        self.is_slow |= began.is_some_and(|(_, began)| began.elapsed() >= FAST);
    }

    /// A page is read: the next one continues behind it.
    pub(crate) fn page_read(&mut self) {
        if !std::mem::take(&mut self.is_slow) {
            self.max = (self.max * 2).min(STEP_MAX);
        }
    }

    /// The database has failed, or did not answer in time.
    pub(crate) fn failed(&mut self) {
        if let Some((step, _)) = self.under_way.take() {
            self.max = (step / 2).max(1);
        }
    }

    /// The number of positions that the next statement wants, if this one had no events.
    pub(crate) fn wider(step: i64) -> i64 {
        step.saturating_mul(WIDER).min(STEP_MAX)
    }

    /// The same if this one had few events of those that there was room for, else its own number.
    /// The statement must have a limit of its own for where they are dense.
    pub(crate) fn next(step: i64, events: usize, room: i64) -> i64 {
        let events = i64::try_from(events).unwrap_or(i64::MAX);
        let are_few = events.saturating_mul(WIDER) < room;
        if are_few { Self::wider(step) } else { step }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_that_failed_is_not_tried_again_at_the_same_size() {
        let mut limit = StepLimit::default();
        let mut failed = limit.begin(i64::MAX);
        assert_eq!(failed, STEP_MAX);
        while failed > 1 {
            limit.failed();
            // The next page begins with the statements that the failed one began with.
            assert_eq!(limit.begin(1), 1);
            limit.ended();
            let next = limit.begin(i64::MAX);
            assert_eq!(next, failed / 2);
            failed = next;
        }
        limit.failed();
        assert_eq!(limit.begin(i64::MAX), 1, "each statement makes progress");
    }

    #[test]
    fn the_size_grows_back_with_pages_that_were_read_without_a_slow_statement() {
        let mut limit = StepLimit::default();
        limit.begin(8);
        limit.failed();
        assert_eq!(limit.begin(i64::MAX), 4);
        limit.under_way = Instant::now().checked_sub(FAST).map(|began| (4, began));
        limit.ended();
        limit.page_read();
        assert_eq!(limit.begin(i64::MAX), 4);
        limit.ended();
        limit.page_read();
        assert_eq!(limit.begin(i64::MAX), 8);
    }

    #[test]
    fn a_statement_goes_through_more_positions_where_few_have_events() {
        assert_eq!(StepLimit::next(3_500, 0, 3_500), 14_000);
        assert_eq!(StepLimit::next(14_000, 874, 3_500), 56_000);
        assert_eq!(StepLimit::next(56_000, 875, 3_500), 56_000);
        assert_eq!(StepLimit::next(STEP_MAX, 0, 3_500), STEP_MAX);
    }

    #[test]
    fn what_fails_between_two_statements_leaves_the_size_as_it_is() {
        let mut limit = StepLimit::default();
        assert_eq!(limit.begin(3_500), 3_500);
        limit.ended();
        limit.failed();
        assert_eq!(limit.begin(i64::MAX), STEP_MAX);
    }
}
