//! What this crate logs, to be waited for and counted.

use std::io;
use std::sync::{LazyLock, OnceLock};

use tokio::sync::watch;

static LINES: LazyLock<watch::Sender<Vec<String>>> =
    LazyLock::new(|| watch::Sender::new(Vec::new()));
static STARTED: OnceLock<()> = OnceLock::new();

/// Collects the lines of all tests of this process from now on.
pub(crate) fn collect() {
    STARTED.get_or_init(|| {
        tracing_subscriber::fmt()
            .with_env_filter("annals_consumer=info")
            .with_ansi(false)
            .with_writer(|| Line(Vec::new()))
            .init();
    });
}

/// How many lines so far hold all of these texts. One of them should be the test's own.
pub(crate) fn count(texts: &[&str]) -> usize {
    let lines = LINES.borrow();
    lines.iter().filter(|line| texts.iter().all(|text| line.contains(text))).count()
}

/// Waits for a line that holds all of these texts.
pub(crate) async fn wait_for(texts: &[&str]) {
    let holds_all = |line: &String| texts.iter().all(|text| line.contains(text));
    LINES.subscribe().wait_for(|lines| lines.iter().any(holds_all)).await.unwrap();
}

/// One line while it is written.
struct Line(Vec<u8>);

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let line = String::from_utf8_lossy(&self.0).into_owned();
        LINES.send_modify(|lines| lines.push(line));
    }
}
