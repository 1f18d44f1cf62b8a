//! The tutorial: a bank on the event store. `make bank` runs it on the development stack.
//!
//! Read it in this order: `account.rs` (events, state and decisions: plain Rust), `bank.rs` (load,
//! decide, append), and this file, which runs it.

mod account;
mod bank;

use std::io::{Write, stdout};
use std::pin::pin;

use annals_store::{Store, StreamName, Version};
use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use uuid::Uuid;

use crate::account::{AccountEvent, Declined};
use crate::bank::Bank;

const ROUNDS: usize = 25;

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::var("ANNALS_DATABASE_URL")
        .context("ANNALS_DATABASE_URL says which database to use; `make bank` sets it")?;
    let store = Store::connect(&url).await?;
    store.migrate().await?;
    play(&store, &mut stdout()).await
}

/// An account of its own for each run.
fn account(owner: &str) -> Result<StreamName> {
    Ok(StreamName::new(format!("bank_account-{owner}-{}", Uuid::now_v7().simple()))?)
}

async fn play(store: &Store, out: &mut impl Write) -> Result<()> {
    let bank = Bank::new(store.clone());
    let (anna, ben) = (account("anna")?, account("ben")?);
    for (stream, owner) in [(&anna, "Anna"), (&ben, "Ben")] {
        let done = bank.open(stream, owner).await?;
        writeln!(out, "{owner} opens {stream}: {done:?}")?;
    }
    writeln!(out, "Anna opens it again: {:?}", bank.open(&anna, "Anna").await?)?;
    writeln!(out, "Anna pays in 100.00: {:?}", bank.pay_in(&anna, 10_000).await?)?;
    writeln!(out, "Anna withdraws 30.00: {:?}", bank.withdraw(&anna, 3_000).await?)?;
    writeln!(out, "Anna withdraws 500.00: {:?}", bank.withdraw(&anna, 50_000).await?)?;
    let sent = bank.transfer(&anna, &ben, 2_000).await?;
    writeln!(out, "Anna sends Ben 20.00, in one append to both accounts: {sent:?}")?;
    let balances = (bank.balance(&anna).await?, bank.balance(&ben).await?);
    writeln!(out, "balances: Anna {}, Ben {} cents", balances.0, balances.1)?;

    let conflicts = race(&bank, &anna, &ben).await?;
    let (now_anna, now_ben) = (bank.balance(&anna).await?, bank.balance(&ben).await?);
    writeln!(
        out,
        "{ROUNDS} times each, at once, Anna pays in 1.00 at two counters and sends Ben 1.00: \
         {conflicts} times somebody was faster and the decision was made again"
    )?;
    writeln!(out, "balances: Anna {now_anna}, Ben {now_ben} cents")?;
    let rounds = i64::try_from(ROUNDS)?;
    let expected = (balances.0 + 100 * rounds, balances.1 + 100 * rounds);
    anyhow::ensure!((now_anna, now_ben) == expected, "the balances should be {expected:?}");

    writeln!(out, "the first events of {anna}:")?;
    let mut events = pin!(store.read_events::<AccountEvent>(&anna, Version::FIRST));
    while let Some((version, event)) = events.try_next().await?
        && version.get() < 4
    {
        writeln!(out, "  {version} {event:?}")?;
    }
    Ok(())
}

/// Two counters and a transfer at the same time, again and again: none of them waits for a lock
/// while it decides.
async fn race(bank: &Bank, anna: &StreamName, ben: &StreamName) -> Result<u32> {
    let mut conflicts = 0;
    for _ in 0..ROUNDS {
        let (one, other, sent) = tokio::join!(
            bank.pay_in(anna, 100),
            bank.pay_in(anna, 100),
            bank.transfer(anna, ben, 100)
        );
        for decision in [one?, other?, sent?] {
            conflicts +=
                decision.map_err(|declined: Declined| anyhow::anyhow!("{declined:?}"))?.conflicts;
        }
    }
    Ok(conflicts)
}

#[cfg(test)]
mod tests {
    use annals_testkit::{Must, Testbed};

    #[tokio::test]
    async fn the_bank_does_what_the_tutorial_says() {
        let bed = Testbed::new("bank").await;
        let mut out = Vec::new();
        super::play(bed.store(), &mut out).await.must("play the tutorial");
        let out = String::from_utf8(out).must("read what it said");
        for expected in [
            "Anna opens it again: Err(OpenAlready)",
            "Anna withdraws 500.00: Err(Overdraft { cents: 7000, wanted: 50000 })",
            "balances: Anna 5000, Ben 2000 cents",
            "balances: Anna 7500, Ben 4500 cents",
        ] {
            assert!(out.contains(expected), "no {expected:?} in:\n{out}");
        }
    }
}
