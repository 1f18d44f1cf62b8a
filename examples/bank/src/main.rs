//! The tutorial: a bank on the event store. `make bank` runs it on the development stack.
//!
//! Read it in this order: `account.rs` (events, state and decisions: plain Rust), `bank.rs`
//! (decisions on the store), `owner.rs` (personal data and its erasure), `first_release.rs` (events
//! of an earlier release), and this file, which runs them. docs/guide explains each step.

mod account;
mod bank;
mod first_release;
mod owner;

use std::io::{Write, stdout};

use annals_store::{
    CommandId, Context, DecideError, EventStore, FileKeyProvider, Store, StreamName,
};
use anyhow::{Context as _, Result};
use jiff::{Timestamp, ToSpan};
use uuid::Uuid;

use crate::account::{Account, Declined};
use crate::bank::Bank;

const ROUNDS: usize = 25;

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::var("ANNALS_DATABASE_URL")
        .context("ANNALS_DATABASE_URL says which database to use; `make bank` sets it")?;
    let store = Store::connect(&url).await?;
    store.migrate().await?;
    // As another process of the bank has it.
    let elsewhere = Store::connect(&url).await?;
    // Each event that is made in this scope carries the actor and the correlation id.
    let run = Context::new().correlation_id(Uuid::now_v7()).actor("tutorial");
    let played = run.scope(play_all(&store, &elsewhere, &mut stdout())).await;
    elsewhere.close().await;
    store.close().await;
    played
}

/// The keys of owners are encrypted with a key in a file, which lasts for this run.
async fn play_all<S: EventStore>(store: &S, elsewhere: &S, out: &mut impl Write) -> Result<()> {
    let anna = play(store, elsewhere, out).await?;
    let file = std::env::temp_dir().join(format!("{anna}.keys"));
    let played =
        owner::play(store, FileKeyProvider::open_or_create(&file)?, &anna, &mut *out).await;
    std::fs::remove_file(&file)?;
    played
}

/// An account of its own for each run.
fn account(owner: &str) -> Result<StreamName> {
    Ok(StreamName::new(format!("bank_account-{owner}-{}", Uuid::now_v7().simple()))?)
}

/// Returns Anna's account.
async fn play<S: EventStore>(store: &S, elsewhere: &S, out: &mut impl Write) -> Result<StreamName> {
    let bank = Bank::new(store.clone());
    let (anna, ben) = (account("anna")?, account("ben")?);
    let begin = Timestamp::now();
    operate(&bank, (&anna, &ben), out).await?;
    ask_again(&bank, &anna, out).await?;
    race([&bank, &Bank::new(elsewhere.clone())], (&anna, &ben), out).await?;
    look_back(&bank, &anna, begin, out).await?;
    correct(&bank, &anna, out).await?;
    upcast(store, &bank, &anna, out).await?;
    load_fast(store, &anna, out).await?;
    Ok(anna)
}

/// An operation that the bank declines is an answer, other errors end the tutorial.
fn answer<T>(done: Result<T, DecideError<Declined>>) -> Result<Result<T, Declined>> {
    match done {
        Ok(done) => Ok(Ok(done)),
        Err(DecideError::Refused(declined)) => Ok(Err(declined)),
        Err(error) => Err(error.into()),
    }
}

/// Opens, pays in, withdraws, transfers; an overdraft is declined.
async fn operate<S: EventStore>(
    bank: &Bank<S>,
    (anna, ben): (&StreamName, &StreamName),
    out: &mut impl Write,
) -> Result<()> {
    for (stream, owner) in [(anna, "Anna"), (ben, "Ben")] {
        bank.open(stream, owner).await?;
        writeln!(out, "{owner} opens {stream}")?;
    }
    let again = answer(bank.open(anna, "Anna").await)?.map(|done| done.state);
    writeln!(out, "Anna opens it again: {again:?}")?;
    let paid = bank.pay_in(anna, 10_000).await?;
    writeln!(out, "Anna pays in 100.00: {:?}", paid.state)?;
    let too_much = bank.withdraw(Uuid::now_v7().into(), anna, 50_000).await;
    writeln!(out, "Anna withdraws 500.00: {:?}", answer(too_much)?.map(|done| done.state))?;
    let (from, to) = bank.transfer(anna, ben, 2_000).await?.state;
    writeln!(out, "Anna sends Ben 20.00, in one append to both: {from:?}, {to:?}")?;
    Ok(())
}

/// The answer to a withdrawal is lost, and Anna sends the request again.
async fn ask_again<S: EventStore>(
    bank: &Bank<S>,
    anna: &StreamName,
    out: &mut impl Write,
) -> Result<()> {
    let request = CommandId::from(Uuid::now_v7());
    for attempt in ["", " again, with the same request id"] {
        let done = bank.withdraw(request, anna, 3_000).await?;
        let (state, repeated) = (done.state, done.appended.repeated);
        writeln!(out, "Anna withdraws 30.00{attempt}: {state:?}, repeated: {repeated}")?;
    }
    Ok(())
}

/// A counter in this process and one in another, and a transfer, at the same time, again and again.
/// The decisions of one process on an account take turns. Those of two processes do not know of
/// each other: the slower one gets a conflict, with the new events, and is made again on them.
async fn race<S: EventStore>(
    [bank, elsewhere]: [&Bank<S>; 2],
    (anna, ben): (&StreamName, &StreamName),
    out: &mut impl Write,
) -> Result<()> {
    let before = (bank.balance(anna).await?, bank.balance(ben).await?);
    let mut decided_again = 0;
    for _ in 0..ROUNDS {
        let (one, other, sent) = tokio::join!(
            bank.pay_in(anna, 100),
            elsewhere.pay_in(anna, 100),
            bank.transfer(anna, ben, 100)
        );
        decided_again += one?.tries + other?.tries + sent?.tries - 3;
    }
    let after = (bank.balance(anna).await?, bank.balance(ben).await?);
    writeln!(
        out,
        "{ROUNDS} times each, at once, Anna pays in 1.00 at two counters and sends Ben 1.00: \
         {decided_again} times another append was faster and the decision was made again"
    )?;
    writeln!(out, "balances: Anna {}, Ben {} cents", after.0, after.1)?;
    let rounds = i64::try_from(ROUNDS)?;
    let expected = (before.0 + 100 * rounds, before.1 + 100 * rounds);
    anyhow::ensure!(after == expected, "the balances should be {expected:?}");
    Ok(())
}

/// A statement for a period, and the balance as of yesterday.
async fn look_back<S: EventStore>(
    bank: &Bank<S>,
    anna: &StreamName,
    begin: Timestamp,
    out: &mut impl Write,
) -> Result<()> {
    writeln!(out, "the first lines of Anna's statement of the last hour:")?;
    let (since, until) = (begin.checked_sub(1.hour())?, begin.checked_add(1.hour())?);
    for line in bank.statement(anna, since, until).await?.iter().take(4) {
        writeln!(out, "  {:.0} {:?}: {} cents", line.at, line.event, line.cents)?;
    }
    let yesterday = begin.checked_sub(24.hours())?;
    writeln!(
        out,
        "her balance as of yesterday: {} cents",
        bank.balance_at(anna, yesterday).await?
    )?;
    Ok(())
}

/// A clerk types 50.00 for 5.00. The wrong event stays; a corrective event follows.
async fn correct<S: EventStore>(
    bank: &Bank<S>,
    anna: &StreamName,
    out: &mut impl Write,
) -> Result<()> {
    let typed = bank.pay_in(anna, 5_000).await?;
    writeln!(out, "Anna pays in 5.00, typed as 50.00: {:?}", typed.state)?;
    let corrected = bank.correct_last(anna, -4_500, "5.00 were paid in, not 50.00").await??;
    writeln!(out, "corrected by an event of its own: {:?}", corrected.state)?;
    Ok(())
}

/// Events of the first release are read as those of today.
async fn upcast<S: EventStore>(
    store: &S,
    bank: &Bank<S>,
    anna: &StreamName,
    out: &mut impl Write,
) -> Result<()> {
    let begin = Timestamp::now();
    first_release::book(store, anna, [700, -700]).await?;
    writeln!(out, "the bank's first release booked 7.00 and -7.00, which today's reads as:")?;
    let lines = bank.statement(anna, begin.checked_sub(1.hour())?, begin.checked_add(1.hour())?);
    let lines = lines.await?;
    for line in lines.iter().skip(lines.len().saturating_sub(2)) {
        writeln!(out, "  {:?}: {} cents", line.event, line.cents)?;
    }
    Ok(())
}

/// After 50 events the state was saved: a load reads only the events behind the snapshot.
async fn load_fast(store: &impl EventStore, anna: &StreamName, out: &mut impl Write) -> Result<()> {
    let saved = store.save_snapshot::<Account>(anna).await?.context("an account has snapshots")?;
    let loaded = store.load::<Account>(anna).await?;
    writeln!(out, "a snapshot has events 0 to {saved}; with it, {anna} is {:?}", loaded.state)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use annals_store::MemoryStore;
    use annals_testkit::{Must, Testbed};

    /// Returns what it said.
    async fn check<S: annals_store::EventStore>(store: &S, elsewhere: &S) -> String {
        let mut out = Vec::new();
        super::play_all(store, elsewhere, &mut out).await.must("play the tutorial");
        let out = String::from_utf8(out).must("read what it said");
        for expected in [
            "Anna opens it again: Err(OpenAlready)",
            "Anna withdraws 500.00: Err(Overdraft { cents: 10000, wanted: 50000 })",
            "cents: 5000 }, repeated: false",
            "cents: 5000 }, repeated: true",
            "balances: Anna 7500, Ben 4500 cents",
            "her balance as of yesterday: 0 cents",
            "corrected by an event of its own: Account { is_open: true, cents: 8000 }",
            "MoneyPaidIn(MoneyPaidIn { cents: 700 }): 8700 cents",
            "MoneyWithdrawn(MoneyWithdrawn { cents: 700 }): 8000 cents",
            "is Account { is_open: true, cents: 8000 }",
            r#"recorded is OwnerNamed {"address":"sealed","name":"sealed"}"#,
            "a letter goes to Anna Arden, 1 Mill Lane\n",
            "after the erasure a letter goes to no one: the owner is erased\n",
            "the bookings stay: 8000 cents",
        ] {
            assert!(out.contains(expected), "no {expected:?} in:\n{out}");
        }
        out
    }

    /// How often a decision was made again.
    fn decided_again(out: &str) -> u32 {
        let (before, _) = out.split_once(" times another append").must("tell the number");
        let number = before.rsplit(' ').next().map(str::parse::<u32>);
        number.must("have a number").must("be a number")
    }

    #[tokio::test]
    async fn the_bank_does_what_the_tutorial_says() {
        let bed = Testbed::new("bank").await;
        let out = check(bed.store(), &bed.another_store().await).await;
        assert!(decided_again(&out) > 0, "no conflict in:\n{out}");
    }

    #[tokio::test]
    async fn it_does_the_same_without_a_database() {
        let store = MemoryStore::new();
        // Its operations complete at once: nothing comes first.
        assert_eq!(decided_again(&check(&store, &store).await), 0);
    }
}
