//! The output of a process, line by line: kept in a file, and awaited as a signal.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::follow::DEADLINE;
use crate::must::Must;

const LAST_LINES: usize = 20;

/// A condition on a line of a log.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    /// A line with this text.
    Text(String),
    /// A line with all these fields, as name and value.
    Fields(Vec<(String, String)>),
}

impl Wanted {
    /// A log event, by its id and further fields.
    pub(crate) fn event(id: &str, fields: &[(&str, &str)]) -> Self {
        let fields = [("event", id)].into_iter().chain(fields.iter().copied());
        Self::Fields(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    fn matches(&self, line: &str) -> bool {
        match self {
            Self::Text(text) => line.contains(text),
            Self::Fields(fields) => fields.iter().all(|(name, value)| has(line, name, value)),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Fields(fields) => {
                fields.iter().try_for_each(|(name, value)| write!(f, "{name}={value:?} "))
            }
        }
    }
}

/// Whether a line has a field; a text value is quoted.
fn has(line: &str, name: &str, value: &str) -> bool {
    let unquoted = format!(" {name}={value}");
    line.contains(&format!(" {name}={value:?}"))
        || line.ends_with(&unquoted)
        || line.contains(&format!("{unquoted} "))
}

/// The lines of one process, over all its starts.
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

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the process's output from a pipe, until the pipe closes: then the task ends.
    pub(crate) fn capture(&self, pipe: impl AsyncRead + Unpin + Send + 'static) -> JoinHandle<()> {
        let log = self.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(pipe).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                log.push(line);
            }
        })
    }

    pub(crate) fn push(&self, line: String) {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&self.path);
        writeln!(file.must("open a log"), "{line}").must("write a log");
        self.lock().push(line);
        // Without the lock: a waiter for the count takes it while it reads the lines.
        self.count.send_modify(|count| *count += 1);
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Waits for a matching line after the first `from` ones, and returns it.
    #[track_caller]
    pub(crate) fn line(&self, from: usize, wanted: Wanted) -> impl Future<Output = String> {
        let log = self.clone();
        async move {
            let mut count = log.count.subscribe();
            let come = count.wait_for(|_| log.find(from, &wanted).is_some());
            let come = tokio::time::timeout(DEADLINE, come).await.is_ok();
            assert!(come, "no line with {wanted} within {DEADLINE:?}\n{}", log.tail());
            log.find(from, &wanted).must("find the line again")
        }
    }

    pub(crate) fn find(&self, from: usize, wanted: &Wanted) -> Option<String> {
        self.lock().iter().skip(from).find(|line| wanted.matches(line)).cloned()
    }

    pub(crate) fn count(&self, from: usize, wanted: &Wanted) -> usize {
        self.lock().iter().skip(from).filter(|line| wanted.matches(line)).count()
    }

    pub(crate) fn text(&self) -> String {
        self.lock().join("\n")
    }

    /// The last lines, and the path of the whole log.
    pub(crate) fn tail(&self) -> String {
        let lines = self.lock();
        let first = lines.len().saturating_sub(LAST_LINES);
        format!("log: {}\n{}", self.path.display(), lines[first..].join("\n"))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
