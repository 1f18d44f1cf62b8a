//! One writer of a load.

use std::sync::Arc;

use annals_store::{
    Append, AppendError, Appended, ExpectedVersion, NewEvent, Refusal, Store, StreamName, Version,
};
use sqlx::{Postgres, Transaction};

use crate::account::{account, deposited_for};
use crate::cancel::dropped_after;
use crate::dice::Dice;
use crate::history::{Attempt, AttemptedEvent, Outcome};
use crate::must::Must;

/// One writer, with a memory of the store's answers.
pub(crate) struct Writer {
    store: Store,
    number: usize,
    streams: Arc<[StreamName]>,
    /// This writer's assumption about each stream's version.
    expected: Vec<ExpectedVersion>,
    dice: Dice,
    /// Events acknowledged in the current step.
    acknowledged_events: usize,
    attempts: Vec<Attempt>,
    open: Option<OpenTransaction>,
    sequence: i64,
}

/// A transaction that stays open for so many further steps.
struct OpenTransaction {
    transaction: Transaction<'static, Postgres>,
    plan: Plan,
    versions: Vec<i64>,
    steps_left: usize,
}

/// Events for some of the streams.
#[derive(Clone)]
struct Plan {
    append: Append,
    /// The stream of each event.
    streams: Vec<StreamName>,
    /// The shared streams of these events, by number.
    places: Vec<usize>,
}

impl Writer {
    pub(crate) fn new(
        store: &Store,
        streams: &Arc<[StreamName]>,
        number: usize,
        dice: Dice,
    ) -> Self {
        Self {
            store: store.clone(),
            number,
            streams: Arc::clone(streams),
            expected: vec![ExpectedVersion::NoStream; streams.len()],
            dice,
            acknowledged_events: 0,
            attempts: Vec::new(),
            open: None,
            sequence: 0,
        }
    }

    /// Takes one random step of a writer; returns the number of acknowledged events.
    pub(crate) async fn step(&mut self) -> usize {
        self.age_open_transaction().await;
        match self.dice.below(100) {
            0..70 => self.append_until_settled(1).await,
            70..80 => self.append_until_settled(2).await,
            80..87 => self.roll_back().await,
            87..92 => self.leave_open().await,
            92..96 => self.give_up(true).await,
            _ => self.give_up(false).await,
        }
        std::mem::take(&mut self.acknowledged_events)
    }

    /// Ends open transactions; returns all attempts.
    pub(crate) async fn finish(mut self) -> Vec<Attempt> {
        if let Some(open) = self.open.take() {
            self.end_transaction(open).await;
        }
        self.attempts
    }

    async fn append_until_settled(&mut self, streams: usize) {
        let plan = self.plan(streams);
        self.settle(plan).await;
    }

    /// Appends, and appends the same again after each answer with an unknown outcome.
    async fn settle(&mut self, plan: Plan) {
        loop {
            match self.store.append(&plan.append).await {
                Ok(appended) => return self.note_acknowledged(&plan, &appended),
                Err(AppendError::Refused(refusals)) => return self.note_refused(&plan, &refusals),
                Err(error) if error.is_retryable() => {}
                Err(error) => Err(error).must("append under load"),
            }
        }
    }

    /// Drops an append halfway. Then repeats it, or leaves its outcome unknown for ever.
    async fn give_up(&mut self, repeats: bool) {
        let plan = self.plan(1);
        let polls = 1 + self.dice.below(6);
        match dropped_after(polls, self.store.append(&plan.append)).await {
            None if repeats => self.settle(plan).await,
            None => self.note(&plan, Outcome::Unknown, &[]),
            Some(Ok(appended)) => self.note_acknowledged(&plan, &appended),
            Some(Err(AppendError::Refused(refusals))) => self.note_refused(&plan, &refusals),
            Some(Err(_)) => self.settle(plan).await,
        }
    }

    async fn roll_back(&mut self) {
        let plan = self.plan(1);
        if let Ok(mut transaction) = self.store.pool().begin().await {
            let appended = self.store.append_in(&mut transaction, &plan.append).await;
            drop(appended);
            drop(transaction.rollback().await);
        }
        self.note(&plan, Outcome::RolledBack, &[]);
    }

    /// Appends in a transaction that stays open for a while, to a stream that no other writer uses.
    async fn leave_open(&mut self) {
        if self.open.is_some() {
            return;
        }
        let stream = account(format!("open-{}-{}", self.number, self.sequence));
        let events = self.events(3);
        let streams = vec![stream.clone(); events.len()];
        let append = Append::to(&stream, ExpectedVersion::NoStream, events);
        let plan = Plan { append, streams, places: Vec::new() };
        let Ok(mut transaction) = self.store.pool().begin().await else { return };
        match self.store.append_in(&mut transaction, &plan.append).await {
            Ok(appended) => {
                let steps_left = 1 + self.dice.below(40);
                let versions = versions(&appended);
                self.open = Some(OpenTransaction { transaction, plan, versions, steps_left });
            }
            Err(_) => self.note(&plan, Outcome::RolledBack, &[]),
        }
    }

    async fn age_open_transaction(&mut self) {
        if let Some(open) = &mut self.open {
            open.steps_left -= 1;
        }
        if let Some(open) = self.open.take_if(|open| open.steps_left == 0) {
            self.end_transaction(open).await;
        }
    }

    async fn end_transaction(&mut self, open: OpenTransaction) {
        if self.dice.below(10) == 0 {
            drop(open.transaction.rollback().await);
            return self.note(&open.plan, Outcome::RolledBack, &[]);
        }
        match open.transaction.commit().await {
            Ok(()) => self.note(&open.plan, Outcome::Acknowledged, &open.versions),
            Err(_) => self.note(&open.plan, Outcome::Unknown, &[]),
        }
    }

    /// One to four events for each of so many shared streams, with this writer's expected versions.
    fn plan(&mut self, streams: usize) -> Plan {
        let first = self.dice.below(self.streams.len());
        let mut plan = Plan { append: Append::default(), streams: Vec::new(), places: Vec::new() };
        for number in 0..streams.min(self.streams.len()) {
            let place = (first + number) % self.streams.len();
            let stream = self.streams[place].clone();
            let events = self.events(4);
            plan.streams.extend(std::iter::repeat_n(stream.clone(), events.len()));
            plan.append = plan.append.and_to(&stream, self.expected[place], events);
            plan.places.push(place);
        }
        plan
    }

    fn events(&mut self, events_max: usize) -> Vec<NewEvent> {
        let count = 1 + self.dice.below(events_max);
        let note = format!("of writer {}", self.number);
        let events = (0..count).map(|_| {
            self.sequence += 1;
            deposited_for(self.sequence, &note)
        });
        events.collect()
    }

    fn note_acknowledged(&mut self, plan: &Plan, appended: &Appended) {
        let versions = versions(appended);
        for (stream, version) in plan.streams.iter().zip(&versions) {
            let place = plan.places.iter().find(|place| self.streams[**place] == *stream);
            if let (Some(place), Some(version)) = (place, Version::new(*version)) {
                self.expected[*place] = ExpectedVersion::Exactly(version);
            }
        }
        self.note(plan, Outcome::Acknowledged, &versions);
    }

    fn note_refused(&mut self, plan: &Plan, refusals: &[Refusal]) {
        for refusal in refusals {
            let Refusal::Conflict(conflict) = refusal else {
                panic!("refused under load: {refusal}")
            };
            let place = plan.places.iter().find(|place| self.streams[**place] == conflict.stream);
            self.expected[*place.must("find the stream of a conflict")] = conflict.actual.into();
        }
        self.note(plan, Outcome::Refused, &[]);
    }

    fn note(&mut self, plan: &Plan, outcome: Outcome, versions: &[i64]) {
        let events = plan.append.events().zip(&plan.streams).enumerate();
        let events = events.map(|(place, (event, stream))| AttemptedEvent {
            id: event.id().get(),
            stream: stream.to_string(),
            version: versions.get(place).copied(),
        });
        let events: Vec<_> = events.collect();
        if outcome == Outcome::Acknowledged {
            self.acknowledged_events += events.len();
        }
        self.attempts.push(Attempt { outcome, events });
    }
}

fn versions(appended: &Appended) -> Vec<i64> {
    appended.events.iter().map(|(version, _)| version.get()).collect()
}
