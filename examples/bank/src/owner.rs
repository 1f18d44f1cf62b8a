//! Step 3: the owner's name and address are encrypted with a key of the owner. When the owner asks
//! for erasure, the key is destroyed; the account and its bookings stay.

use std::io::Write;

use annals_store::{
    EventStore, FileKeyProvider, Personal, PersonalKeys, Read, Store, StreamName, Subject,
};
use anyhow::{Context as _, Result};
use futures_util::TryStreamExt;

use crate::account::{Account, AccountEvent, OwnerNamed};

/// Names the owner, prints a letter's address, erases the owner, and prints it again.
pub(crate) async fn play(
    store: &Store,
    provider: FileKeyProvider,
    account: &StreamName,
    out: &mut impl Write,
) -> Result<()> {
    let keys = PersonalKeys::new(store, provider);
    // An opaque id: it stays in the store for ever.
    let owner = Subject::new(account.as_str())?;
    let key = keys.subject(&owner).await?;
    let named = OwnerNamed {
        name: Personal::new(key.clone(), "Anna Arden".to_owned()),
        address: Personal::new(key, "1 Mill Lane".to_owned()),
    };
    store.decide(account, |state: &Account| state.name_owner(named.clone())).await?;
    writeln!(out, "recorded is {}", recorded(store, account).await?)?;
    writeln!(out, "a letter goes to {}", letter(store, &keys, account).await?)?;
    keys.erase(&owner, "the owner asked for it").await?;
    writeln!(out, "after the erasure a letter goes to {}", letter(store, &keys, account).await?)?;
    let balance = store.load::<Account>(account).await?.state.cents;
    writeln!(out, "the bookings stay: {balance} cents")?;
    Ok(())
}

/// The last event of an account as JSON, as it is stored and published.
async fn recorded(store: &Store, account: &StreamName) -> Result<String> {
    let mut last = std::pin::pin!(store.read(Read::stream(account).backwards().events_max(1)));
    let last = last.try_next().await?.context("the account has events")?;
    Ok(format!("{} {}", last.event_type, last.to_json()?))
}

/// Name and address, or that they are erased.
async fn letter(store: &Store, keys: &PersonalKeys, account: &StreamName) -> Result<String> {
    let named = Read::stream(account).of_types(["OwnerNamed"]).backwards().events_max(1);
    let mut named = std::pin::pin!(store.read(named));
    let named = named.try_next().await?.context("the owner has a name")?;
    let AccountEvent::OwnerNamed(named) = named.decode()? else {
        anyhow::bail!("only OwnerNamed was read");
    };
    let (name, address) = (keys.open(&named.name).await?, keys.open(&named.address).await?);
    Ok(match (name.value(), address.value()) {
        (Some(name), Some(address)) => format!("{name}, {address}"),
        _ => "no one: the owner is erased".to_owned(),
    })
}
