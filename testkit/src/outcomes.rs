//! Appends whose outcomes are compared with the tables in the end.

use std::collections::{BTreeMap, HashSet};

use annals_store::{Append, AppendError, ExpectedVersion, Store};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::account::{account, deposited_large};
use crate::follow::DEADLINE;
use crate::must::Must;

/// The outcome of an append, as the application was told.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// These events are recorded.
    pub acknowledged: HashSet<Uuid>,
    /// Nothing was written of these: the append failed before it committed.
    pub failed: HashSet<Uuid>,
    /// The number of appends with an unknown outcome; each was repeated until it was known.
    pub unknown: usize,
    /// The number of errors by the server's code; an empty code if there was no answer.
    pub codes: BTreeMap<String, usize>,
}

/// An application that appends one event after the other, until it is stopped.
#[derive(Debug)]
pub struct Outcomes {
    stop: watch::Sender<bool>,
    told: watch::Sender<Told>,
    task: JoinHandle<()>,
}

impl Outcomes {
    /// Begins to append.
    #[must_use]
    pub fn start(store: &Store) -> Self {
        let (stop, told) = (watch::Sender::new(false), watch::Sender::new(Told::default()));
        let task = tokio::spawn(append(store.clone(), stop.subscribe(), told.clone()));
        Self { stop, told, task }
    }

    /// Waits until the application was told enough.
    ///
    /// # Panics
    /// If it is not, within [`DEADLINE`].
    pub async fn until(&self, enough: impl FnMut(&Told) -> bool) {
        let mut told = self.told.subscribe();
        let reached = tokio::time::timeout(DEADLINE, told.wait_for(enough)).await;
        assert!(reached.is_ok(), "it was told {:?}", self.told.borrow().codes);
    }

    /// Waits until so many more events are acknowledged.
    ///
    /// # Panics
    /// If they are not, within [`DEADLINE`].
    pub async fn until_more(&self, events: usize) {
        let goal = self.told.borrow().acknowledged.len() + events;
        self.until(|told| told.acknowledged.len() >= goal).await;
    }

    /// Stops the application; returns the outcomes that it was told.
    ///
    /// # Panics
    /// If it had panicked.
    pub async fn stop(self) -> Told {
        self.stop.send_replace(true);
        self.task.await.must("stop an application");
        self.told.borrow().clone()
    }
}

async fn append(store: Store, stop: watch::Receiver<bool>, told: watch::Sender<Told>) {
    for number in 0.. {
        if *stop.borrow() {
            return;
        }
        let stream = account(format!("told-{}", number % 7));
        let append = Append::to(&stream, ExpectedVersion::Any, [deposited_large(number)]);
        let id = append.events().map(|event| event.id().get()).next().must("find the event's id");
        let mut answer = store.append(&append).await;
        if let Err(AppendError::Failed(error)) = &answer {
            let code = code(error);
            told.send_modify(|told| {
                told.failed.insert(id);
                *told.codes.entry(code).or_default() += 1;
            });
            continue;
        }
        // An unknown outcome is settled by the same append.
        while let Err(error) = answer {
            let (AppendError::Unknown(source) | AppendError::Failed(source)) = &error else {
                panic!("append: {error}")
            };
            let (code, is_unknown) = (code(source), matches!(error, AppendError::Unknown(_)));
            told.send_modify(|told| {
                told.unknown += usize::from(is_unknown);
                *told.codes.entry(code).or_default() += 1;
            });
            answer = store.append(&append).await;
        }
        told.send_modify(|told| {
            told.acknowledged.insert(id);
        });
    }
}

fn code(error: &sqlx::Error) -> String {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.unwrap_or_default().into_owned()
}
