//! The same events from ten processes at once are recorded once, for any expected version, and each
//! process gets the same answer.

use std::io::Write;
use std::process::Stdio;

use annals_store::{
    Append, Coalescing, EventId, ExpectedVersion, StoreOptions, StreamName, Version, telemetry,
};
use annals_testkit::{DEADLINE, Must, Testbed, account, deposited, opened};
use metrics_util::debugging::DebuggingRecorder;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use uuid::Uuid;

use crate::telemetry::histograms;

const PROCESSES: usize = 10;
const ROUNDS: usize = 20;
const MODES: [ExpectedVersion; 4] = [
    ExpectedVersion::Any,
    ExpectedVersion::NoStream,
    ExpectedVersion::StreamExists,
    ExpectedVersion::Exactly(Version::FIRST),
];
/// The database's URL for a process of this test.
const DATABASE_URL: &str = "ANNALS_TEST_PROCESS_DATABASE_URL";
/// Prefix of a process's lines for this test: other lines come from the test harness.
const ANSWER: &str = "answer: ";

/// The append of a process.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    stream: StreamName,
    /// The index in [`MODES`].
    mode: usize,
    ids: [Uuid; 2],
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Answer {
    repeated: bool,
    /// How many of the appends were in the queue.
    queued: usize,
    events: Vec<(i64, i64)>,
}

impl Order {
    fn append(&self) -> Append {
        let [first, second] = self.ids.map(EventId::from);
        let events = [deposited(1).with_id(first), deposited(2).with_id(second)];
        Append::to(&self.stream, MODES[self.mode], events)
    }
}

/// A process of the test below: this program, running only this. One order per line in, one answer
/// per line out.
#[tokio::test]
#[ignore = "is run by the test beside it, ten times at once"]
async fn one_process() {
    let Ok(url) = std::env::var(DATABASE_URL) else { return };
    let options = StoreOptions::default().coalescing(Coalescing::default().direct_max(1));
    let store = options.connect(&url).await.must("connect");
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    // When the race begins, all work but the schema's registration is done.
    let version = store.stream_version(&account("none")).await.must("read a version");
    assert_eq!(version, None);
    say("ready");
    for line in std::io::stdin().lines() {
        let order: Order = serde_json::from_str(&line.must("read an order")).must("read an order");
        // Three times at once: one goes directly; one that comes meanwhile, through the queue.
        let append = order.append();
        let all = (0..3).map(|_| store.append(&append));
        let all = futures_util::future::try_join_all(all).await.must("append");
        assert!(all.iter().all(|appended| appended.events == all[0].events), "{all:?}");
        let times = &histograms(&snapshotter)[telemetry::APPEND_QUEUE_DURATION];
        let queued = times.iter().filter(|&&time| time > 0.0).count();
        let events = all[0].events.iter().map(|(version, at)| (version.get(), at.get()));
        let first = all.iter().filter(|appended| !appended.repeated).count();
        assert!(first <= 1, "{all:?}");
        let answer = Answer { repeated: first == 0, queued, events: events.collect() };
        say(&serde_json::to_string(&answer).must("write an answer"));
    }
}

/// On a line of its own, after any incomplete line of the test harness.
fn say(answer: &str) {
    writeln!(std::io::stdout(), "\n{ANSWER}{answer}").must("answer");
}

struct Process {
    _child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(bed: &Testbed) -> Self {
        let program = std::env::current_exe().must("find this program");
        let mut child = Command::new(program)
            .args(["ten_processes::one_process", "--exact", "--ignored", "--nocapture"])
            .env(DATABASE_URL, bed.database_url())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .must("start a process");
        let orders = child.stdin.take().must("reach a process");
        let answers = BufReader::new(child.stdout.take().must("reach a process")).lines();
        Self { _child: child, orders, answers }
    }

    async fn answer(&mut self) -> String {
        loop {
            let line = tokio::time::timeout(DEADLINE, self.answers.next_line()).await;
            let line = line.must("wait for a process").must("read from a process");
            let line = line.must("read a line of a process before it ends");
            if let Some(answer) = line.strip_prefix(ANSWER) {
                return answer.to_owned();
            }
        }
    }
}

#[tokio::test]
async fn ten_processes_with_the_same_events_record_them_once_and_get_one_answer() {
    let bed = Testbed::new("ten_processes").await;
    let mut processes: Vec<_> = (0..PROCESSES).map(|_| Process::start(&bed)).collect();
    for process in &mut processes {
        assert_eq!(process.answer().await, "ready");
    }
    let mut queued = 0;
    for round in 0..ROUNDS {
        let mode = round % MODES.len();
        let stream = account(round);
        let is_new = matches!(MODES[mode], ExpectedVersion::Any | ExpectedVersion::NoStream);
        if !is_new {
            let create = Append::to(&stream, ExpectedVersion::NoStream, [opened("ann")]);
            bed.store().append(&create).await.must("append");
        }
        let ids = [(); 2].map(|()| EventId::generate().get());
        let order = serde_json::to_string(&Order { stream: stream.clone(), mode, ids });
        let order = format!("{}\n", order.must("write an order"));
        for process in &mut processes {
            process.orders.write_all(order.as_bytes()).await.must("order");
        }
        let mut answers = Vec::new();
        for process in &mut processes {
            let answer: Answer = serde_json::from_str(&process.answer().await).must("read");
            queued += answer.queued;
            answers.push(answer);
        }
        assert_eq!(answers.iter().filter(|answer| !answer.repeated).count(), 1, "{answers:?}");
        assert!(answers.iter().all(|answer| answer.events == answers[0].events), "{answers:?}");
        let version = bed.store().stream_version(&stream).await.must("read a version");
        assert_eq!(version, Version::new(if is_new { 1 } else { 2 }));
    }
    assert!(queued > 0, "no append was in the queue");
}
