//! Reading ahead: the next pages of the log are read while a batch is applied.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use crate::error::Error;
use crate::event::RecordedEvent;
use crate::follow::{Checkpoint, FollowedPage, Follower};

/// Maximum number of pages that wait to be applied.
const PAGES_MAX: usize = 4;

/// The pause until progress is stored again over events that the projection does not get.
const PASSED_PAUSE: Duration = Duration::from_secs(1);

/// A follower in a task of its own.
pub(super) struct ReadAhead {
    pages: mpsc::Receiver<Result<FollowedPage, Error>>,
    /// The end of the log for this reader.
    error: Option<Error>,
    /// Progress over events that the projection does not get, and when it is to be stored.
    passed: Option<(Instant, CheckpointedBatch)>,
    returned_at: Option<Instant>,
    /// Aborted when the reader is dropped.
    _task: JoinSet<()>,
}

/// Consecutive events, and the checkpoints after them.
#[derive(Debug)]
pub(super) struct CheckpointedBatch {
    pub(super) events: Vec<RecordedEvent>,
    /// One for each event.
    pub(super) checkpoints: Vec<Checkpoint>,
    /// After all events of the batch, and events that the projection does not get.
    pub(super) reached: Checkpoint,
}

impl ReadAhead {
    pub(super) fn start(follower: Follower) -> Self {
        let (sender, pages) = mpsc::channel(PAGES_MAX);
        let mut task = JoinSet::new();
        task.spawn(read(follower, sender));
        Self { pages, error: None, passed: None, returned_at: None, _task: task }
    }

    /// The next events; once in [`PASSED_PAUSE`], also progress over events that the projection
    /// does not get. No effect if it is dropped.
    pub(super) async fn next(&mut self, events_max: usize) -> Result<CheckpointedBatch, Error> {
        loop {
            let batch = match &self.passed {
                None => self.read(events_max).await?,
                Some((due, _)) => match timeout_at((*due).into(), self.read(events_max)).await {
                    Ok(batch) => batch?,
                    Err(_due) => match self.passed.take() {
                        Some((_, passed)) => return Ok(self.returned(passed)),
                        None => continue,
                    },
                },
            };
            let due = self.returned_at.map(|returned_at| returned_at + PASSED_PAUSE);
            match due.filter(|due| batch.events.is_empty() && *due > Instant::now()) {
                Some(due) => self.passed = Some((due, batch)),
                None => return Ok(self.returned(batch)),
            }
        }
    }

    fn returned(&mut self, batch: CheckpointedBatch) -> CheckpointedBatch {
        self.passed = None;
        self.returned_at = Some(Instant::now());
        batch
    }

    /// The pages that are read already, up to `events_max`, or the next page.
    async fn read(&mut self, events_max: usize) -> Result<CheckpointedBatch, Error> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let page = self.pages.recv().await.unwrap_or(Err(ended()))?;
        let FollowedPage { events, checkpoints, reached } = page;
        let mut batch = CheckpointedBatch { events, checkpoints, reached };
        while batch.events.len() < events_max {
            match self.pages.try_recv() {
                Ok(Ok(page)) => batch.add(page),
                Ok(Err(error)) => {
                    self.error = Some(error);
                    break;
                }
                Err(_none_is_read) => break,
            }
        }
        Ok(batch)
    }
}

impl CheckpointedBatch {
    fn add(&mut self, page: FollowedPage) {
        self.events.extend(page.events);
        self.checkpoints.extend(page.checkpoints);
        self.reached = page.reached;
    }
}

async fn read(mut follower: Follower, pages: mpsc::Sender<Result<FollowedPage, Error>>) {
    loop {
        let page = follower.next_page().await;
        let is_end = page.is_err();
        if pages.send(page).await.is_err() || is_end {
            break;
        }
    }
}

/// The reading task ended without an error: its runtime shuts down.
fn ended() -> Error {
    Error::Database { action: "read the log", source: sqlx::Error::WorkerCrashed }
}
