//! The commands and the statements of the documentation are accepted by the programs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use annals_store::{Append, EventId, ExpectedVersion};
use annals_testkit::{Must, RelaySettings, Testbed, account, deposited};
use futures_util::future::join_all;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::audit_log::annals;
use crate::projections::{self, LONG, Running, Script, balances, failure};

/// Processes at once.
const PROCESSES: usize = 8;
const WRONG_ARGUMENTS: i32 = 2;
/// The commands whose help has examples.
const EXPLAINED: [&str; 8] =
    ["run", "status", "quarantine", "check", "topics", "audit", "replay", "schemas"];

/// The pages for operators and developers.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages = vec![root.join("README.md"), root.join("ops/runbook.md")];
    for folder in ["docs", "docs/guide", "docs/consumers"] {
        let files = fs::read_dir(root.join(folder)).must("list pages");
        let files = files.map(|file| file.must("list pages").path());
        pages.extend(files.filter(|file| file.extension().is_some_and(|of| of == "md")));
    }
    pages
}

/// The blocks of code of a page, with their languages, and its code within the text.
fn code(page: &str) -> (Vec<(&str, &str)>, Vec<&str>) {
    let (mut blocks, mut inline) = (Vec::new(), Vec::new());
    for (number, part) in page.split("```").enumerate() {
        if number % 2 == 1 {
            blocks.push(part.split_once('\n').must("have a line"));
        } else {
            inline.extend(part.split('`').skip(1).step_by(2));
        }
    }
    (blocks, inline)
}

/// The arguments of a program in a line of a shell; None if the program is not called, or
/// something is left out.
fn arguments(line: &str, program: &str) -> Option<Vec<String>> {
    let (before, words) = line.split_once(&format!("{program} "))?;
    // Variables of its environment can be before it.
    let is_called = before.is_empty() || before.ends_with(' ') && before.contains('=');
    let end = words.find(['#', '|', '>']).unwrap_or(words.len());
    let mut found = Vec::new();
    for (number, part) in words[..end].split('"').enumerate() {
        if number % 2 == 1 {
            found.push(part.to_owned());
        } else {
            found.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    // The test gives its own configuration.
    if let Some(place) = found.iter().position(|word| word == "--config") {
        found.drain(place..(place + 2).min(found.len()));
    }
    let is_whole = !found.iter().any(|word| word.contains("..."));
    (is_called && is_whole && !found.is_empty()).then_some(found)
}

/// All calls of a program in the pages. Two words without an option can be the name of a
/// subcommand, whose arguments are explained elsewhere.
fn calls(program: &str) -> BTreeSet<Vec<String>> {
    let mut calls = BTreeSet::new();
    for page in pages() {
        let page = fs::read_to_string(page).must("read a page");
        let (blocks, inline) = code(&page);
        let shell = blocks.into_iter().filter(|(language, _)| *language == "sh");
        let lines = shell.flat_map(|(_, block)| block.lines()).chain(inline);
        calls.extend(lines.filter_map(|line| arguments(line, program)));
    }
    let has_option = |words: &[String]| words.iter().any(|word| word.starts_with('-'));
    calls.retain(|words| has_option(words) || words.len() > 2);
    calls
}

/// The examples in the help of a command.
async fn examples(settings: &RelaySettings, command: &str) -> Vec<Vec<String>> {
    let help = settings.must_run(&[command, "--help"]).await;
    let (_, examples) = help.split_once("\nExamples:\n").must("find the examples");
    examples.lines().filter_map(|line| arguments(line.trim(), "annals-relay")).collect()
}

/// The calls that the relay's parser refuses. All others end at the wrong configuration.
async fn refused(settings: &RelaySettings, calls: &[Vec<String>]) -> Vec<String> {
    let run = calls.iter().enumerate().map(async |(number, words)| {
        let settings = settings.clone().in_directory(&format!("call-{number}"));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (code, said) = settings.run_for_code(&words).await;
        (code == WRONG_ARGUMENTS).then(|| format!("{}: {said}", words.join(" ")))
    });
    join_all(run).await.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_documented_call_of_the_relay_has_arguments_that_it_takes() {
    let bed = Testbed::new("documented_relay").await;
    let settings = bed.relay().variable("ANNALS_RELAY__RELAY__LEASE_MS", "soon");
    let mut calls: Vec<_> = calls("annals-relay").into_iter().collect();
    for command in EXPLAINED {
        let examples = examples(&settings, command).await;
        assert!(examples.iter().all(|words| words[0] == command), "{examples:?}");
        assert!(examples.len() > 1, "{command}: {examples:?}");
        calls.extend(examples);
    }
    // It writes where the documentation says.
    calls.retain(|words| words[0] != "man");
    assert!(calls.len() > 20, "{calls:?}");
    for calls in calls.chunks(PROCESSES) {
        assert_eq!(refused(&settings, calls).await, [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_documented_call_of_annals_has_arguments_that_it_takes() {
    let bed = Testbed::new("documented_annals").await;
    let calls = calls("annals");
    assert!(calls.len() > 2, "{calls:?}");
    for words in calls {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ended = annals(&bed, &words);
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_ne!(ended.status.code(), Some(WRONG_ARGUMENTS), "annals {words:?}: {said}");
    }
}

/// The statements of the guide, in their order.
fn statements_of_guide() -> Vec<String> {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide");
    let files = fs::read_dir(guide).must("list pages");
    let mut files: Vec<_> = files.map(|file| file.must("list pages").path()).collect();
    files.sort();
    let mut statements = Vec::new();
    for page in files {
        let page = fs::read_to_string(page).must("read a page");
        let (blocks, inline) = code(&page);
        let blocks = blocks.into_iter().filter(|(language, _)| *language == "sql");
        let is_statement =
            |text: &&str| ["delete from ", "alter "].iter().any(|begin| text.starts_with(begin));
        let inline = inline.into_iter().filter(is_statement);
        statements.extend(blocks.map(|(_, block)| block).chain(inline).map(str::to_owned));
    }
    statements
}

/// Stops the guide's projection at the guide's event.
async fn stop_projection(bed: &Testbed) -> Running {
    let id: Uuid = "0192f0c1-2b3c-7d4e-8f50-617283940a5b".parse().must("be a UUID");
    let event = deposited(3).with_id(EventId::from(id));
    let append = Append::to(&account("a"), ExpectedVersion::Any, [event]);
    bed.store().append(&append).await.must("append");
    let running = Running::start(bed.store(), balances(&Script::refusing(3)), LONG);
    failure(bed.store()).await;
    running
}

#[tokio::test]
async fn the_statements_of_the_guide_are_executed() {
    let bed = Testbed::new("documented_sql").await;
    let running = stop_projection(&bed).await;
    let statements = statements_of_guide();
    assert_eq!(statements.len(), 5, "{statements:?}");
    for statements in statements {
        // The login of the guide's readers: one that exists here.
        let statements = statements.replace("to reporter", "to public");
        // Each in a transaction of its own, as a person enters them.
        for statement in statements.split_inclusive(';') {
            let executed = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()));
            executed.execute(bed.store().pool()).await.must("execute a statement of the guide");
        }
    }
    projections::until(bed.store(), 1, |status| status.failure.is_none()).await;
    drop(running);
}
