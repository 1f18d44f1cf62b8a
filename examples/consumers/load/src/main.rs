//! The load of the consumers' test: money that is paid into accounts, withdrawn and transferred, by
//! concurrent writers.
//!
//! Five event types in one category, many streams, some of them long. What the totals must be is
//! not computed here but asked from the store, by SQL over its events (`check/totals.sql`).

mod events;

use std::io::{Write, stdout};

use annals_store::{Append, ExpectedVersion, NewEvent, Store, StreamName};
use anyhow::{Context, Result};
use clap::Parser;
use tokio::task::JoinSet;

use crate::events::{
    AccountEvent, BankAccountOpened, MoneyPaidIn, MoneyWithdrawn, TransferReceived, TransferSent,
};

/// Opens accounts and moves money, in the store at `ANNALS_DATABASE_URL`, which it migrates.
#[derive(Debug, Clone, Parser)]
#[command(name = "annals-consumers-load", version)]
struct Arguments {
    /// Where the store is
    #[arg(long, env = "ANNALS_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// Which round this is, from 1 on: a round opens accounts of its own, and moves money of all
    /// accounts so far
    #[arg(long)]
    round: u64,
    /// How many accounts a round opens
    #[arg(long, default_value = "200")]
    accounts: u64,
    /// How many appends follow; each has one to four events
    #[arg(long, default_value = "8000")]
    appends: u64,
    /// How many append at the same time
    #[arg(long, default_value = "8")]
    writers: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let store = Store::connect(&arguments.database_url).await?;
    store.migrate().await?;
    for number in accounts_before(&arguments)..accounts_until(&arguments) {
        let opened = event(BankAccountOpened { owner: format!("Owner {number}") })?;
        store.append(&Append::to(&account(number)?, ExpectedVersion::NoStream, [opened])).await?;
    }
    let mut writers = JoinSet::new();
    for writer in 0..arguments.writers {
        writers.spawn(write(store.clone(), arguments.clone(), writer));
    }
    while let Some(ended) = writers.join_next().await {
        ended.context("a writer broke")??;
    }
    Ok(())
}

/// One writer's share of the appends. Each line that is printed is an append that the store has
/// acknowledged.
async fn write(store: Store, arguments: Arguments, writer: u64) -> Result<()> {
    for number in (writer..arguments.appends).step_by(usize::try_from(arguments.writers)?) {
        let append = movement(&arguments, number)?;
        store.append(&append).await?;
        writeln!(stdout(), "{number}")?;
    }
    Ok(())
}

/// What happens at a number is the same in each run.
fn movement(arguments: &Arguments, number: u64) -> Result<Append> {
    let mut dice = Dice((arguments.round << 32) | number);
    let accounts = accounts_until(arguments);
    let chosen = dice.below(accounts);
    let cents = i64::try_from(1 + dice.below(10_000))?;
    let stream = account(chosen)?;
    Ok(match dice.below(4) {
        0 => {
            let withdrawn = MoneyWithdrawn { cents };
            Append::to(&stream, ExpectedVersion::Any, [event(withdrawn)?])
        }
        1 => {
            let other = account((chosen + 1 + dice.below(accounts - 1)) % accounts)?;
            let sent = TransferSent { cents, to: other.to_string() };
            let received = TransferReceived { cents, from: stream.to_string() };
            Append::to(&stream, ExpectedVersion::Any, [event(sent)?]).and_to(
                &other,
                ExpectedVersion::Any,
                [event(received)?],
            )
        }
        _ => {
            let paid = (1..=1 + i64::try_from(dice.below(4))?)
                .map(|coins| event(MoneyPaidIn { cents: cents * coins }))
                .collect::<Result<Vec<_>, _>>()?;
            Append::to(&stream, ExpectedVersion::Any, paid)
        }
    })
}

fn event(event: impl Into<AccountEvent>) -> Result<NewEvent> {
    Ok(NewEvent::new(&event.into())?)
}

const fn accounts_before(arguments: &Arguments) -> u64 {
    (arguments.round - 1) * arguments.accounts
}

const fn accounts_until(arguments: &Arguments) -> u64 {
    arguments.round * arguments.accounts
}

fn account(number: u64) -> Result<StreamName> {
    Ok(StreamName::new(format!("bank_account-{number:05}"))?)
}

/// SplitMix64: numbers that look random, and are the same for the same seed.
struct Dice(u64);

impl Dice {
    const fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}
