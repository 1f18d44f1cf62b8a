//! What a process wrote, line by line: kept in a file, and waited for as a signal.

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::watch;

use crate::follow::DEADLINE;
use crate::must::Must;

const LAST_LINES: usize = 20;

/// The lines of one process, all its starts included.
#[derive(Debug, Clone)]
pub(crate) struct ProcessLog {
    path: PathBuf,
    lines: Arc<Mutex<Vec<String>>>,
    count: watch::Sender<usize>,
}

impl ProcessLog {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, lines: Arc::default(), count: watch::Sender::new(0) }
    }

    /// Takes in what the process writes to a pipe, until it closes it.
    pub(crate) fn capture(&self, pipe: impl AsyncRead + Unpin + Send + 'static) {
        let log = self.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(pipe).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                log.push(line);
            }
        });
    }

    pub(crate) fn push(&self, line: String) {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&self.path);
        writeln!(file.must("open a log"), "{line}").must("write a log");
        self.lock().push(line);
        // Without the lock: whoever waits for the count takes it while looking.
        self.count.send_modify(|count| *count += 1);
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Waits for a line after the first `from` ones that contains `wanted`, and returns it.
    #[track_caller]
    pub(crate) fn line(&self, from: usize, wanted: &str) -> impl Future<Output = String> {
        let log = self.clone();
        let wanted = wanted.to_owned();
        async move {
            let mut count = log.count.subscribe();
            let come = count.wait_for(|_| log.find(from, &wanted).is_some());
            let come = tokio::time::timeout(DEADLINE, come).await.is_ok();
            assert!(come, "no line with {wanted:?} within {DEADLINE:?}\n{}", log.tail());
            log.find(from, &wanted).must("find the line again")
        }
    }

    pub(crate) fn find(&self, from: usize, wanted: &str) -> Option<String> {
        self.lock().iter().skip(from).find(|line| line.contains(wanted)).cloned()
    }

    pub(crate) fn count(&self, from: usize, wanted: &str) -> usize {
        self.lock().iter().skip(from).filter(|line| line.contains(wanted)).count()
    }

    pub(crate) fn text(&self) -> String {
        self.lock().join("\n")
    }

    /// The last lines, and where all of them are.
    pub(crate) fn tail(&self) -> String {
        let lines = self.lock();
        let first = lines.len().saturating_sub(LAST_LINES);
        format!("log: {}\n{}", self.path.display(), lines[first..].join("\n"))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
