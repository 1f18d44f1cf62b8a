//! The outbox: rows with positions and transaction ids, bounds of windows, and the state after a
//! crash.

use crate::database::SHARDS;

/// The number of streams of a shard. The last of them can be quarantined.
pub(crate) const STREAMS: u8 = 2;

/// An event. Its number determines its stream in the shard and its version. Two events with the
/// same number were appended in different branches of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Event {
    pub(crate) number: u8,
    pub(crate) branch: u8,
}

impl Event {
    /// A shard's streams alternate.
    pub(crate) fn stream(self) -> u8 {
        self.number % STREAMS
    }

    pub(crate) fn can_be_held(self) -> bool {
        self.stream() == STREAMS - 1
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) event: Event,
    pub(crate) position: u8,
    xid: u8,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum State {
    /// Its transaction is running.
    Open,
    /// Committed, and lost in a crash: the write-ahead log is not flushed.
    Visible,
    Flushed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Outbox {
    /// In position order.
    rows: [Vec<Row>; SHARDS as usize],
    /// Changes whenever the database goes back: later events are new, for any number.
    branch: u8,
    position_next: u8,
    xid_next: u8,
    /// After a crash transaction ids are issued again from here.
    xid_flushed: u8,
    /// Up to this position every event counts as visible.
    settled: u8,
}

/// The end of a window: a snapshot, and the highest position that was visible in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Bound {
    xmax: u8,
    /// The transaction that was running; 0 if none was.
    running: u8,
    position: u8,
    /// Of the event at that position.
    branch: u8,
    settled: u8,
}

/// The parts of a bound that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    PositionAndTransactionId,
    /// Planted bugs.
    TransactionIdAlone,
    NothingIsSettled,
}

impl Bound {
    fn saw(&self, row: &Row, rule: Rule) -> bool {
        let is_visible = row.xid < self.xmax && row.xid != self.running;
        let is_below = row.position <= self.position;
        let is_settled = row.position <= self.settled;
        match rule {
            Rule::PositionAndTransactionId => is_below && (is_settled || is_visible),
            Rule::TransactionIdAlone => is_settled || is_visible,
            Rule::NothingIsSettled => is_below && is_visible,
        }
    }
}

/// A cursor in the log: a window, and the last position passed in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Mark {
    since: Bound,
    until: Bound,
    at: u8,
}

impl Mark {
    /// Everything up to this bound is passed.
    const fn done(until: Bound) -> Self {
        Self { since: until, until, at: 0 }
    }

    fn passed(&self, row: &Row, rule: Rule) -> bool {
        self.since.saw(row, rule) || row.position <= self.at && self.until.saw(row, rule)
    }
}

impl Outbox {
    pub(crate) fn new(events: [u8; SHARDS as usize]) -> Self {
        let mut outbox = Self {
            rows: Default::default(),
            branch: 1,
            position_next: 1,
            xid_next: 1,
            xid_flushed: 1,
            settled: 0,
        };
        for (shard, events) in events.into_iter().enumerate() {
            (0..events).for_each(|_| outbox.append(shard));
        }
        outbox
    }

    /// Appends the next event of a stream that no running transaction has locked. It is on disk at
    /// once.
    pub(crate) fn append(&mut self, shard: usize) {
        self.insert(shard, State::Flushed);
        self.flush();
    }

    /// The same with an asynchronous commit.
    pub(crate) fn append_asynchronously(&mut self, shard: usize) {
        self.insert(shard, State::Visible);
    }

    /// The same in a transaction that stays open.
    pub(crate) fn begin(&mut self, shard: usize) {
        self.insert(shard, State::Open);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.rows().any(|row| row.state == State::Open)
    }

    /// Whether a crash would lose no event, running transactions included.
    pub(crate) fn is_flushed(&self) -> bool {
        self.rows().all(|row| row.state == State::Flushed)
    }

    pub(crate) fn commit(&mut self) {
        let rows = self.rows.iter_mut().flatten();
        rows.filter(|row| row.state == State::Open).for_each(|row| row.state = State::Flushed);
        self.flush();
    }

    pub(crate) fn roll_back(&mut self) {
        self.rows.iter_mut().for_each(|rows| rows.retain(|row| row.state != State::Open));
    }

    /// A transaction that leaves no event: rolled back, or with an asynchronous commit.
    pub(crate) const fn use_transaction_id(&mut self) {
        self.xid_next += 1;
    }

    /// Writes the write-ahead log to disk, as each synchronous commit does.
    pub(crate) fn flush(&mut self) {
        self.xid_flushed = self.xid_next;
        let rows = self.rows.iter_mut().flatten();
        rows.filter(|row| row.state == State::Visible).for_each(|row| row.state = State::Flushed);
    }

    fn insert(&mut self, shard: usize, state: State) {
        let number = self.number_next(shard);
        let event = Event { number, branch: self.branch };
        let (position, xid) = (self.position_next, self.xid_next);
        self.rows[shard].push(Row { event, position, xid, state });
        self.position_next += 1;
        self.xid_next += 1;
    }

    fn number_next(&self, shard: usize) -> u8 {
        let rows = &self.rows[shard];
        let next = (0..STREAMS).filter_map(|stream| {
            let own = rows.iter().filter(|row| row.event.stream() == stream);
            let is_locked = own.clone().any(|row| row.state == State::Open);
            let version = u8::try_from(own.count()).unwrap();
            (!is_locked).then_some(version * STREAMS + stream)
        });
        next.min().unwrap()
    }

    /// The server crashes and starts again.
    pub(crate) fn crash(&mut self, branch: u8) {
        self.rows.iter_mut().for_each(|rows| rows.retain(|row| row.state == State::Flushed));
        self.xid_next = self.xid_flushed;
        self.start(branch);
    }

    /// The server starts from the committed rows.
    pub(crate) fn start(&mut self, branch: u8) {
        self.roll_back();
        self.branch = branch;
        // A sequence goes back to its value at the last flush of the log.
        self.position_next = self.position_max() + 1;
        self.flush();
    }

    /// The rows are copied into a cluster that has issued fewer transaction ids.
    pub(crate) fn move_to_younger_cluster(&mut self) {
        self.xid_next = 1;
        self.settled = self.position_max();
        self.flush();
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().flatten()
    }

    fn committed(&self, shard: usize) -> impl Iterator<Item = &Row> {
        self.rows[shard].iter().filter(|row| row.state != State::Open)
    }

    fn position_max(&self) -> u8 {
        let committed = self.rows().filter(|row| row.state != State::Open);
        committed.map(|row| row.position).max().unwrap_or_default()
    }

    /// The committed events of a shard, in position order.
    pub(crate) fn events(&self, shard: usize) -> impl Iterator<Item = Event> {
        self.committed(shard).map(|row| row.event)
    }

    pub(crate) fn has(&self, shard: usize, event: Event) -> bool {
        self.events(shard).any(|other| other == event)
    }

    /// Whether the events at the ends of a cursor's windows exist: then later positions are above
    /// them.
    pub(crate) fn has_ends_of(&self, mark: &Mark) -> bool {
        [mark.since, mark.until].iter().all(|bound| {
            let is_top =
                |row: &Row| row.position == bound.position && row.event.branch == bound.branch;
            bound.position == 0 || self.rows().any(is_top)
        })
    }

    pub(crate) fn bound(&self) -> Bound {
        let open = self.rows().find(|row| row.state == State::Open);
        let committed = self.rows().filter(|row| row.state != State::Open);
        let top = committed.max_by_key(|row| row.position);
        Bound {
            xmax: self.xid_next,
            running: open.map_or(0, |row| row.xid),
            position: top.map_or(0, |row| row.position),
            branch: top.map_or(0, |row| row.event.branch),
            settled: self.settled,
        }
    }

    /// The next event of a shard, and the cursor after it. Without an event, the cursor's end is
    /// the present.
    pub(crate) fn next(&self, shard: usize, mark: Mark, rule: Rule) -> (Option<Event>, Mark) {
        let mark = self.in_window(shard, mark, rule);
        match self.first(shard, &mark, rule) {
            Some(row) => {
                let after = Mark { at: row.position, ..mark };
                (Some(row.event), self.closed(shard, after, rule))
            }
            None => (None, Mark::done(mark.until)),
        }
    }

    /// After a fully read window comes one that ends now.
    fn in_window(&self, shard: usize, mark: Mark, rule: Rule) -> Mark {
        let closed = self.closed(shard, mark, rule);
        if closed.since == closed.until { Mark { until: self.bound(), ..closed } } else { closed }
    }

    fn closed(&self, shard: usize, mark: Mark, rule: Rule) -> Mark {
        let is_closed = self.first(shard, &mark, rule).is_none();
        if is_closed { Mark::done(mark.until) } else { mark }
    }

    fn first(&self, shard: usize, mark: &Mark, rule: Rule) -> Option<&Row> {
        self.committed(shard).find(|row| mark.until.saw(row, rule) && !mark.passed(row, rule))
    }

    /// The next event that can be quarantined and that one cursor has passed and the other has not,
    /// with the cursor after it.
    pub(crate) fn next_between(
        &self,
        shard: usize,
        (behind, ahead): (Mark, Mark),
        rule: Rule,
    ) -> (Option<Event>, Mark) {
        let mut rows = self.committed(shard).filter(|row| row.event.can_be_held());
        let row = rows.find(|row| ahead.passed(row, rule) && !behind.passed(row, rule));
        match row {
            Some(row) => {
                let mark = Mark { until: ahead.until, at: row.position, ..behind };
                (Some(row.event), mark)
            }
            None => (None, ahead),
        }
    }
}
