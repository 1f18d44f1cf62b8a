//! The machine: told what happened, it says what to do.

use std::collections::{BTreeMap, BTreeSet};

use crate::lease::{Lease, Leases, Shard};
use crate::slots::{Producers, Slot, Slots};

/// What to do. `P` is a place in the outbox, a checkpoint; `B` the records of one Kafka transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Command<P, B> {
    /// Replies name it again: those of an earlier generation of producers are not listened to.
    pub generation: u64,
    /// What.
    pub order: Order<P, B>,
}

/// What a command orders. Each is answered by one [`Input`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Order<P, B> {
    /// Begin a new session: its transactional ids stand in PostgreSQL before anything is published.
    Join,
    /// Prolong the session's lease, end those that are over, and read all. `ready`: it can take shards.
    Look {
        /// Whether the session has producers, and Kafka is not out of its reach.
        ready: bool,
    },
    /// Take these shards, those that are still free.
    Take(Vec<Shard>),
    /// Give these back; everything published of them is committed.
    Release(Vec<Lease>),
    /// Give back everything and end the session. Unless it is `clean`, the next owners must fence it.
    Leave {
        /// Whether everything sent is committed.
        clean: bool,
    },
    /// Destroy both producers, if there are any, and make them again under the session's transactional ids.
    Open,
    /// Fence the transactional ids that earlier owners of these shards left, then forget them.
    Fence(Vec<Lease>),
    /// Read the checkpoints of these shards, with everything that was committed before.
    ReadCheckpoints(Vec<Lease>),
    /// Read what follows these places, at most one transaction's worth.
    Read(Vec<(Shard, P)>),
    /// Begin a transaction and send these records.
    Send(Slot, B),
    /// Commit the transaction.
    Commit(Slot),
    /// Answer [`Input::Resume`] after a while: when there may be something new, or after a failure later each
    /// time.
    Rest {
        /// What failed; `None` when there is nothing to do.
        after: Option<(Work, Trouble)>,
    },
    /// End the process.
    End {
        /// Why, unless it was told to stop.
        halted: Option<(Work, Trouble)>,
    },
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Input<P, B> {
    /// It is time to prolong the lease; several times in its length.
    Tick,
    /// It is time to prolong the lease, and for as long as one lasts nothing could be done.
    Overdue,
    /// Work is under way that is not answered any more.
    Stalled,
    /// The last rest is over.
    Resume,
    /// The process is to end.
    Stop,
    /// The session has begun.
    Joined,
    /// The leases, after looking.
    Looked(Leases),
    /// There is no such session any more: its lease was over.
    Gone,
    /// Those that were taken.
    Taken(Vec<Lease>),
    /// They were given back.
    Released,
    /// The session has ended.
    Left,
    /// An answer that belongs to one generation of producers.
    Done {
        /// The generation of the command.
        generation: u64,
        /// The answer.
        done: Done<P, B>,
    },
    /// It did not succeed.
    Failed {
        /// The generation of the command.
        generation: u64,
        /// What was to be done.
        work: Work,
        /// What came of it.
        trouble: Trouble,
    },
}

/// What has succeeded, in one generation of producers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Done<P, B> {
    /// The producers are there, and nothing of their predecessors is open.
    Opened,
    /// Nothing of the earlier owners is open, and they can publish no more.
    Fenced(Vec<Lease>),
    /// Where the shards go on.
    Checkpoints(Vec<(Lease, P)>),
    /// What there is to publish.
    Page(Page<P, B>),
    /// Every record of the transaction is acknowledged.
    Acked(Slot),
    /// The transaction is committed.
    Committed(Slot),
}

/// What was read at once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Page<P, B> {
    /// The records, with the checkpoints that go with them; `None` when there is nothing to publish.
    pub batch: Option<B>,
    /// Where the shards stand after it.
    pub places: Vec<(Shard, P)>,
    /// Whether there is more.
    pub more: bool,
}

/// The kinds of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    /// [`Order::Join`].
    Join,
    /// [`Order::Look`].
    Look,
    /// [`Order::Take`].
    Take,
    /// [`Order::Release`].
    Release,
    /// [`Order::Leave`].
    Leave,
    /// [`Order::Open`].
    Open,
    /// [`Order::Fence`].
    Fence,
    /// [`Order::ReadCheckpoints`].
    ReadCheckpoints,
    /// [`Order::Read`].
    Read,
    /// [`Order::Send`].
    Send,
    /// [`Order::Commit`].
    Commit,
}

/// What came of work that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trouble {
    /// A component is away, or refuses: time mends it.
    Away,
    /// An event, a topic or a schema is not as it must be. What it concerns is held once the checkpoints are read
    /// again, and the rest goes on.
    Held,
    /// Another session fenced the producer.
    Fenced,
    /// It may have been done or not.
    Unknown,
    /// The database's history is not the one that was published from.
    Fork,
    /// It cannot succeed.
    Fault,
}

impl Trouble {
    /// Whether going on would lose or repeat something, or cannot succeed.
    #[must_use]
    pub const fn halts(self) -> bool {
        match self {
            Self::Fork | Self::Fault => true,
            Self::Away | Self::Held | Self::Fenced | Self::Unknown => false,
        }
    }
}

/// How far the session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    /// There is none.
    Out,
    /// It has no producers that could be used.
    Closed,
    /// It has producers.
    Open,
    /// The process ends.
    Ended,
}

/// A shard that is held.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Held<P> {
    epoch: u64,
    is_leaving: bool,
    step: Step<P>,
}

/// What is still to be done before a shard can be published.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Step<P> {
    /// The leases were not looked at since the producers were made.
    Unlooked,
    /// It is owned; earlier owners are not fenced.
    Owned,
    /// Its checkpoint is not read.
    Fenced,
    /// It is read from here.
    Live(P),
}

/// What is under way. Of each kind there is one at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct UnderWay {
    /// Work on the leases, and the generation in which it was ordered, where producers were there.
    lease: Option<(Work, Option<u64>)>,
    /// Beside transactions, of which the slots know.
    work: BTreeSet<Work>,
    is_resting: bool,
}

/// Decides for one relay process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Machine<P, B> {
    /// How many shards the installation has.
    shards: usize,
    generation: u64,
    phase: Phase,
    is_stopping: bool,
    halted: Option<(Work, Trouble)>,
    held: BTreeMap<Shard, Held<P>>,
    under_way: UnderWay,
    is_look_due: bool,
    is_release_due: bool,
    /// Kafka could not be reached when it was last tried, other than to publish.
    is_cut: bool,
    /// Other sessions can take shards.
    has_company: bool,
    /// The session is ended, and another one begun.
    is_giving_up: bool,
    /// The failure after which nothing new is begun until the rest is over.
    paused: Option<(Work, Trouble)>,
    /// A shard has become live during a rest.
    is_fresh: bool,
    /// The last page did not hold everything.
    is_behind: bool,
    /// The last page held nothing.
    is_idle: bool,
    /// Free shards that this session should take.
    to_take: Vec<Shard>,
    waiting: Option<B>,
    producers: Producers,
    slots: Slots,
}

type Commands<P, B> = Vec<Command<P, B>>;

impl<P: Clone, B> Machine<P, B> {
    /// A process that has just started.
    #[must_use]
    pub const fn new(shards: u16, producers: Producers) -> Self {
        Self {
            shards: shards as usize,
            generation: 0,
            phase: Phase::Out,
            is_stopping: false,
            halted: None,
            held: BTreeMap::new(),
            under_way: UnderWay { lease: None, work: BTreeSet::new(), is_resting: false },
            is_look_due: true,
            is_release_due: false,
            is_cut: false,
            has_company: false,
            is_giving_up: false,
            paused: None,
            is_fresh: false,
            is_behind: false,
            is_idle: false,
            to_take: Vec::new(),
            waiting: None,
            producers,
            slots: Slots::new(producers),
        }
    }

    /// Takes what happened, and says what to do.
    pub fn step(&mut self, input: Input<P, B>) -> Commands<P, B> {
        let mut commands = Vec::new();
        if self.phase != Phase::Ended {
            self.take_in(input);
            self.decide(&mut commands);
        }
        commands
    }

    /// The shards that are published now.
    pub fn live(&self) -> impl Iterator<Item = Shard> {
        self.held
            .iter()
            .filter(|(_, held)| matches!(held.step, Step::Live(_)))
            .map(|(shard, _)| *shard)
    }

    /// Whether nothing that was read is still to be committed.
    pub fn is_done(&self) -> bool {
        self.waiting.is_none() && self.slots.are_idle()
    }

    /// Whether it holds no shard.
    pub fn is_free(&self) -> bool {
        self.held.is_empty()
    }

    fn take_in(&mut self, input: Input<P, B>) {
        match input {
            Input::Tick => self.is_look_due = true,
            Input::Overdue => {
                self.is_look_due = true;
                self.is_giving_up |= self.should_give_up();
            }
            Input::Stalled => self.is_giving_up = self.phase != Phase::Out,
            Input::Resume => {
                self.under_way.is_resting = false;
                self.paused = None;
            }
            Input::Stop => self.is_stopping = true,
            Input::Joined => {
                self.under_way.lease = None;
                self.phase = Phase::Closed;
            }
            Input::Looked(leases) => self.looked(&leases),
            Input::Gone => self.gone(),
            Input::Taken(leases) => self.taken(&leases),
            Input::Released => {
                self.under_way.lease = None;
                self.held.retain(|_, held| !held.is_leaving);
                // Others may have joined in the meantime, or taken it.
                self.is_look_due = true;
            }
            Input::Left => self.gone(),
            Input::Done { generation, done } if generation == self.generation => self.done(done),
            Input::Done { .. } => {}
            Input::Failed { generation, work, trouble } => self.failed(generation, work, trouble),
        }
    }

    /// Compares what is held with the leases as they are.
    fn looked(&mut self, leases: &Leases) {
        let confirms = self.lease_work_done();
        let mine: BTreeMap<Shard, u64> =
            leases.mine.iter().map(|lease| (lease.shard, lease.epoch)).collect();
        // Given back by a command whose answer was lost.
        self.held.retain(|shard, held| !held.is_leaving || mine.contains_key(shard));
        let is_same = |(shard, held): (&Shard, &Held<P>)| mine.get(shard) == Some(&held.epoch);
        if !self.held.iter().all(is_same) {
            // No rule allows it. What is in flight is fenced, and everything begins again.
            self.held.retain(|shard, _| mine.contains_key(shard));
            self.reset();
        }
        self.own(&leases.mine, confirms && self.phase == Phase::Open);
        self.has_company = leases.members > 1;
        if self.is_ready() {
            self.is_release_due = true;
            self.balance(leases);
        }
    }

    /// Leases that this session has, by a look or a taking. They are `confirmed` when the producers were there
    /// before.
    fn own(&mut self, leases: &[Lease], confirmed: bool) {
        for Lease { shard, epoch } in leases {
            let fresh = Held { epoch: *epoch, is_leaving: false, step: Step::Unlooked };
            let held = self.held.entry(*shard).or_insert(fresh);
            held.epoch = *epoch;
            if confirmed && matches!(held.step, Step::Unlooked) {
                held.step = Step::Owned;
            }
        }
    }

    /// Ends the work on the leases; whether it began in this generation, with producers.
    fn lease_work_done(&mut self) -> bool {
        let ordered = self.under_way.lease.take();
        ordered.is_some_and(|(_, generation)| generation == Some(self.generation))
    }

    /// Every session owns as many shards as the others.
    fn balance(&mut self, leases: &Leases) {
        self.to_take = leases.to_take(self.shards);
        // What is free is given to those who lack before anybody gives up more.
        if leases.free.is_empty() {
            let given: BTreeSet<Shard> = leases.to_give(self.shards).into_iter().collect();
            for (_, held) in self.held.iter_mut().filter(|(shard, _)| given.contains(shard)) {
                held.is_leaving = true;
            }
        }
    }

    fn gone(&mut self) {
        self.under_way.lease = None;
        self.is_giving_up = false;
        self.held.clear();
        self.reset();
        self.phase = Phase::Out;
        self.is_look_due = true;
    }

    fn taken(&mut self, leases: &[Lease]) {
        let confirmed = self.lease_work_done() && self.phase == Phase::Open;
        self.own(leases, confirmed);
    }

    /// Whether it can take shards.
    fn is_ready(&self) -> bool {
        self.phase == Phase::Open && !self.is_out_of_reach()
    }

    /// Whether Kafka is out of reach, as far as it is known: what failed is tried again until it succeeds.
    fn is_out_of_reach(&self) -> bool {
        let is_tried = |held: &Held<P>| matches!(held.step, Step::Owned | Step::Fenced);
        self.is_cut && (self.phase == Phase::Closed || self.held.values().any(is_tried))
    }

    /// Whether others may do better with the shards. Where none of them can reach Kafka none is ready, and all stay.
    fn should_give_up(&self) -> bool {
        self.is_out_of_reach() && self.has_company && !self.held.is_empty()
    }

    fn done(&mut self, done: Done<P, B>) {
        match done {
            Done::Opened => {
                self.under_way.work.remove(&Work::Open);
                self.is_cut = false;
                self.phase = Phase::Open;
                self.is_look_due = true;
            }
            Done::Fenced(leases) => {
                self.under_way.work.remove(&Work::Fence);
                self.is_cut = false;
                for lease in leases {
                    self.advance(lease, |step| matches!(step, Step::Owned), Step::Fenced);
                }
            }
            Done::Checkpoints(places) => {
                self.under_way.work.remove(&Work::ReadCheckpoints);
                self.is_cut = false;
                for (lease, place) in places {
                    self.advance(lease, |step| matches!(step, Step::Fenced), Step::Live(place));
                }
                self.is_fresh = true;
            }
            Done::Page(page) => self.page(page),
            Done::Acked(slot) => self.slots.acked(slot),
            Done::Committed(slot) => self.slots.committed(slot),
        }
    }

    /// A shard goes a step on, if it is where it was, in the same epoch.
    fn advance(&mut self, lease: Lease, is_before: impl Fn(&Step<P>) -> bool, step: Step<P>) {
        if let Some(held) = self.held.get_mut(&lease.shard)
            && held.epoch == lease.epoch
            && is_before(&held.step)
        {
            held.step = step;
        }
    }

    fn page(&mut self, page: Page<P, B>) {
        self.under_way.work.remove(&Work::Read);
        for (shard, place) in page.places {
            if let Some(held) = self.held.get_mut(&shard) {
                held.step = Step::Live(place);
            }
        }
        self.is_behind = page.more;
        self.is_idle = page.batch.is_none() && !page.more;
        self.waiting = page.batch;
    }

    fn failed(&mut self, generation: u64, work: Work, trouble: Trouble) {
        match work {
            Work::Join | Work::Look | Work::Take | Work::Release => self.under_way.lease = None,
            // The lease ends by itself.
            Work::Leave => self.gone(),
            _ if generation != self.generation => return,
            // A hold begins where its shard stands for certain: what is in flight must be out of doubt.
            _ if trouble == Trouble::Held => self.reset(),
            Work::Open | Work::Fence | Work::ReadCheckpoints | Work::Read => {
                self.under_way.work.remove(&work);
                let is_away = matches!(trouble, Trouble::Away | Trouble::Unknown);
                self.is_cut |= is_away && work != Work::Read;
                self.pause(work, trouble);
            }
            Work::Send | Work::Commit => {
                self.reset();
                self.pause(work, trouble);
            }
        }
        if trouble.halts() {
            self.halted = Some((work, trouble));
            self.is_stopping = true;
            self.reset();
        }
    }

    /// Begins nothing new until a rest is over, which takes the place of one that is on.
    fn pause(&mut self, work: Work, trouble: Trouble) {
        self.paused = Some((work, trouble));
        self.under_way.is_resting = false;
    }

    /// Begins again without producers: what is under way with them is in doubt, and no longer listened to.
    fn reset(&mut self) {
        self.generation += 1;
        self.slots = Slots::new(self.producers);
        self.waiting = None;
        self.under_way.work.clear();
        self.under_way.is_resting = false;
        self.paused = None;
        self.is_fresh = false;
        self.is_behind = false;
        self.is_idle = false;
        self.to_take.clear();
        if self.phase == Phase::Open {
            self.phase = Phase::Closed;
        }
        for held in self.held.values_mut() {
            held.step = Step::Unlooked;
        }
    }

    /// Says whatever is to be done now and is not under way.
    fn decide(&mut self, commands: &mut Commands<P, B>) {
        if self.is_stopping {
            return self.wind_down(commands);
        }
        if self.is_giving_up {
            return self.give_up(commands);
        }
        self.keep_leases(commands);
        match self.phase {
            Phase::Out | Phase::Ended => {}
            Phase::Closed => self.open(commands),
            Phase::Open => self.publish(commands),
        }
        self.rest(commands);
    }

    /// Joins, and looks at the leases. One thing at a time: an answer must not be overtaken by a later one.
    fn keep_leases(&mut self, commands: &mut Commands<P, B>) {
        if self.under_way.lease.is_some() {
            return;
        }
        if !self.to_take.is_empty() {
            let shards = std::mem::take(&mut self.to_take);
            return self.order_lease(commands, Work::Take, Order::Take(shards));
        }
        if !self.is_look_due {
            return;
        }
        self.is_look_due = false;
        let ready = self.is_ready();
        if self.phase == Phase::Out {
            self.order_lease(commands, Work::Join, Order::Join);
        } else {
            self.order_lease(commands, Work::Look, Order::Look { ready });
        }
    }

    /// Ends the session, whatever is under way: whoever takes the shards fences it.
    fn give_up(&mut self, commands: &mut Commands<P, B>) {
        if self.under_way.lease.is_none() {
            self.order_lease(commands, Work::Leave, Order::Leave { clean: false });
        }
    }

    fn open(&mut self, commands: &mut Commands<P, B>) {
        if self.paused.is_none() {
            self.order_once(commands, Work::Open, |_| Some(Order::Open));
        }
    }

    fn publish(&mut self, commands: &mut Commands<P, B>) {
        self.commit(commands);
        if let Some(slot) = self.slots.free()
            && let Some(batch) = self.waiting.take()
        {
            self.slots.sending(slot);
            self.order(commands, Order::Send(slot, batch));
        }
        self.give(commands);
        if self.paused.is_some() {
            return;
        }
        self.order_once(commands, Work::Fence, |machine| {
            let owned = machine.at(|step| matches!(step, Step::Owned));
            (!owned.is_empty()).then_some(Order::Fence(owned))
        });
        self.order_once(commands, Work::ReadCheckpoints, |machine| {
            let fenced = machine.at(|step| matches!(step, Step::Fenced));
            (!fenced.is_empty()).then_some(Order::ReadCheckpoints(fenced))
        });
        if self.can_read() {
            self.is_fresh = false;
            self.order_once(commands, Work::Read, |machine| Some(Order::Read(machine.places())));
        }
    }

    /// Commits the transaction that is next, if its records are acknowledged.
    fn commit(&mut self, commands: &mut Commands<P, B>) {
        if let Some(slot) = self.slots.due() {
            self.slots.committing(slot);
            self.order(commands, Order::Commit(slot));
        }
    }

    /// Gives shards back that others should have, once nothing of them is under way.
    fn give(&mut self, commands: &mut Commands<P, B>) {
        let is_quiet = self.is_done() && !self.under_way.work.contains(&Work::Read);
        if is_quiet && self.is_release_due && self.under_way.lease.is_none() && self.is_giving() {
            self.is_release_due = false;
            let leaving = self.leases(|held| held.is_leaving);
            self.order_lease(commands, Work::Release, Order::Release(leaving));
        }
    }

    /// While shards are given back nothing is read, so that what is under way comes to its end.
    fn can_read(&self) -> bool {
        let is_wanted = !self.under_way.is_resting || self.is_fresh;
        // A live window is fixed as late as possible: what commits until then is in it. When behind, one page
        // is read ahead.
        let is_time = self.waiting.is_none() && (self.is_behind || self.slots.free().is_some());
        is_wanted && is_time && !self.is_giving() && self.live().next().is_some()
    }

    fn is_giving(&self) -> bool {
        self.held.values().any(|held| held.is_leaving)
    }

    fn rest(&mut self, commands: &mut Commands<P, B>) {
        if !self.under_way.is_resting && (self.paused.is_some() || self.is_idle) {
            self.is_idle = false;
            self.under_way.is_resting = true;
            self.order(commands, Order::Rest { after: self.paused });
        }
    }

    /// What was sent is committed, if it can be; then the session ends.
    fn wind_down(&mut self, commands: &mut Commands<P, B>) {
        self.waiting = None;
        // Without producers there are no transactions.
        self.commit(commands);
        let is_open = self.phase == Phase::Open;
        if self.under_way.lease.is_some() || is_open && !self.slots.are_idle() {
            return;
        }
        match self.phase {
            Phase::Out => {
                self.phase = Phase::Ended;
                self.order(commands, Order::End { halted: self.halted });
            }
            Phase::Closed | Phase::Open => {
                self.order_lease(commands, Work::Leave, Order::Leave { clean: is_open });
            }
            Phase::Ended => {}
        }
    }

    fn order(&self, commands: &mut Commands<P, B>, order: Order<P, B>) {
        commands.push(Command { generation: self.generation, order });
    }

    fn order_lease(&mut self, commands: &mut Commands<P, B>, work: Work, order: Order<P, B>) {
        let generation = (self.phase == Phase::Open).then_some(self.generation);
        self.under_way.lease = Some((work, generation));
        self.order(commands, order);
    }

    /// Orders work of a kind, if there is some and none of it is under way.
    fn order_once(
        &mut self,
        commands: &mut Commands<P, B>,
        work: Work,
        order: impl FnOnce(&Self) -> Option<Order<P, B>>,
    ) {
        if !self.under_way.work.contains(&work)
            && let Some(order) = order(self)
        {
            self.under_way.work.insert(work);
            self.order(commands, order);
        }
    }

    fn at(&self, is: impl Fn(&Step<P>) -> bool) -> Vec<Lease> {
        self.leases(|held| is(&held.step))
    }

    fn leases(&self, is: impl Fn(&Held<P>) -> bool) -> Vec<Lease> {
        let held = self.held.iter().filter(|(_, held)| is(held));
        held.map(|(shard, held)| Lease { shard: *shard, epoch: held.epoch }).collect()
    }

    fn places(&self) -> Vec<(Shard, P)> {
        let place = |(shard, held): (&Shard, &Held<P>)| match &held.step {
            Step::Live(place) => Some((*shard, place.clone())),
            Step::Unlooked | Step::Owned | Step::Fenced => None,
        };
        self.held.iter().filter_map(place).collect()
    }
}
