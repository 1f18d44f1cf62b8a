//! Step 2: the bank. An operation is a decision on one account or on two; the store loads, appends
//! under the loaded versions, and decides again when another append was faster.

use annals_store::{
    AsOf, CommandId, Decide, DecideError, Decided, Error, EventStore, Read, StreamName,
};
use futures_util::TryStreamExt;
use jiff::Timestamp;

use crate::account::{Account, AccountEvent, Declined};

/// The bank: nothing but a store. `S` is the one on PostgreSQL, or one in memory for tests.
#[derive(Debug, Clone)]
pub(crate) struct Bank<S> {
    store: S,
}

/// What becomes of an operation.
pub(crate) type Outcome<S> = Result<Decided<S>, DecideError<Declined>>;

impl<S: EventStore> Bank<S> {
    pub(crate) const fn new(store: S) -> Self {
        Self { store }
    }

    pub(crate) async fn open(&self, account: &StreamName, owner: &str) -> Outcome<Account> {
        self.store.decide(account, |state: &Account| state.open(owner)).await
    }

    pub(crate) async fn pay_in(&self, account: &StreamName, cents: i64) -> Outcome<Account> {
        self.store.decide(account, |state: &Account| state.pay_in(cents)).await
    }

    /// The customer's request has an id: when the answer is lost and the request is sent again, the
    /// money is taken once, and the second answer is the first one.
    pub(crate) async fn withdraw(
        &self,
        request: CommandId,
        account: &StreamName,
        cents: i64,
    ) -> Outcome<Account> {
        let on = Decide::on(account).command(request);
        self.store.decide(on, |state: &Account| state.withdraw(cents)).await
    }

    /// Takes money from one account and gives it to another, in one append: both, or neither.
    pub(crate) async fn transfer(
        &self,
        from: &StreamName,
        to: &StreamName,
        cents: i64,
    ) -> Outcome<(Account, Account)> {
        let decision = |(payer, payee): &(Account, Account)| {
            Ok((payer.send(cents, to.as_str())?, payee.receive(cents, from.as_str())?))
        };
        self.store.decide((from, to), decision).await
    }

    /// Corrects the last booking of an account by an event of its own. The command's id is that of
    /// the wrong event, so that it is corrected once.
    pub(crate) async fn correct_last(
        &self,
        account: &StreamName,
        cents: i64,
        reason: &str,
    ) -> Result<Outcome<Account>, Error> {
        let last = self.store.read(Read::stream(account).backwards().events_max(1));
        let last: Vec<_> = last.try_collect().await?;
        let wrong = last.first().map(|event| event.id.get()).unwrap_or_default();
        let on = Decide::on(account).command(wrong);
        Ok(self.store.decide(on, |state: &Account| state.correct(wrong, cents, reason)).await)
    }

    pub(crate) async fn balance(&self, account: &StreamName) -> Result<i64, Error> {
        Ok(self.store.load::<Account>(account).await?.state.cents)
    }

    /// The balance as it was: the events until then are still there.
    pub(crate) async fn balance_at(
        &self,
        account: &StreamName,
        time: Timestamp,
    ) -> Result<i64, Error> {
        Ok(self.store.load_at::<Account>(account, AsOf::Time(time)).await?.state.cents)
    }

    /// What happened from a time on, before another one.
    pub(crate) async fn statement(
        &self,
        account: &StreamName,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<Line>, anyhow::Error> {
        let read = self.store.read(Read::stream(account).recorded_since(since));
        let events: Vec<_> = read
            .try_take_while(|event| std::future::ready(Ok(event.recorded_at < until)))
            .try_collect()
            .await?;
        let mut cents = self.balance_before(account, since).await?;
        events
            .iter()
            .map(|event| {
                let booked: AccountEvent = event.decode()?;
                cents += booked.cents();
                Ok(Line { at: event.recorded_at, event: booked, cents })
            })
            .collect()
    }

    async fn balance_before(&self, account: &StreamName, time: Timestamp) -> anyhow::Result<i64> {
        let before = time.checked_sub(jiff::SignedDuration::from_micros(1))?;
        Ok(self.balance_at(account, before).await?)
    }
}

/// A line of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) at: Timestamp,
    pub(crate) event: AccountEvent,
    /// The balance after the event.
    pub(crate) cents: i64,
}

#[cfg(test)]
mod tests {
    use annals_store::MemoryStore;
    use annals_testkit::Must;
    use uuid::Uuid;

    use super::*;

    fn account(owner: &str) -> StreamName {
        StreamName::new(format!("bank_account-{owner}")).must("name an account")
    }

    #[tokio::test]
    async fn a_request_that_is_sent_again_takes_the_money_once() {
        let (bank, anna) = (Bank::new(MemoryStore::new()), account("anna"));
        bank.open(&anna, "Anna").await.unwrap();
        bank.pay_in(&anna, 100).await.unwrap();
        let request = CommandId::from(Uuid::from_u128(1));
        let first = bank.withdraw(request, &anna, 80).await.unwrap();
        let second = bank.withdraw(request, &anna, 80).await.unwrap();
        assert_eq!((second.appended.events, second.state), (first.appended.events, first.state));
        assert_eq!(bank.balance(&anna).await.unwrap(), 20);
    }

    #[tokio::test]
    async fn a_wrong_booking_is_corrected_by_an_event_and_stays() {
        let (bank, anna) = (Bank::new(MemoryStore::new()), account("anna"));
        bank.open(&anna, "Anna").await.unwrap();
        bank.pay_in(&anna, 1_000).await.unwrap();
        let corrected = bank.correct_last(&anna, -900, "a digit too many").await.unwrap();
        assert_eq!(corrected.unwrap().state.cents, 100);
        let lines = bank.statement(&anna, Timestamp::UNIX_EPOCH, Timestamp::MAX).await.unwrap();
        let cents: Vec<_> = lines.iter().map(|line| line.cents).collect();
        assert_eq!(cents, [0, 1_000, 100]);
    }

    #[tokio::test]
    async fn a_transfer_to_an_account_that_is_not_open_moves_nothing() {
        let (bank, anna) = (Bank::new(MemoryStore::new()), account("anna"));
        bank.open(&anna, "Anna").await.unwrap();
        bank.pay_in(&anna, 100).await.unwrap();
        let refused = bank.transfer(&anna, &account("ben"), 10).await.unwrap_err();
        assert_eq!(refused.refused(), Some(Declined::NotOpen));
        assert_eq!(bank.balance(&anna).await.unwrap(), 100);
    }

    /// The next event has a later time.
    fn until_later_than(time: Timestamp) {
        while Timestamp::now().as_microsecond() <= time.as_microsecond() {}
    }

    #[tokio::test]
    async fn a_statement_has_the_events_of_its_period_and_their_balances() {
        let (bank, anna) = (Bank::new(MemoryStore::new()), account("anna"));
        bank.open(&anna, "Anna").await.unwrap();
        let mut times = Vec::new();
        for cents in [100, 20, 3] {
            let paid = bank.pay_in(&anna, cents).await.unwrap();
            let time = paid.appended.recorded_at.must("have a time");
            times.push(time);
            until_later_than(time);
        }
        let lines = bank.statement(&anna, times[1], times[2]).await.unwrap();
        let lines: Vec<_> = lines.iter().map(|line| (line.event.cents(), line.cents)).collect();
        assert_eq!(lines, [(20, 120)]);
        assert_eq!(bank.balance_at(&anna, times[0]).await.unwrap(), 100);
    }
}
