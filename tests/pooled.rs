//! Store and relay work through PgBouncer in transaction mode, which has no setting for them but
//! `max_prepared_statements`. It refuses unknown parameters and options at the start of a session,
//! and forwards no notification: polls replace them.

use annals_store::{Append, ExpectedVersion, Follow, Store};
use annals_testkit::{
    Must, Pooler, RelayProcess, Testbed, account, check, deposited, opened, take,
};
use futures_util::future;

const WRITERS: usize = 8;
const APPENDS: i64 = 25;

async fn append(store: Store, writer: usize) {
    for number in 0..APPENDS {
        let append = Append::to(&account(writer), ExpectedVersion::Any, [deposited(number)]);
        store.append(&append).await.must("append");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_and_relay_work_through_pgbouncer_in_transaction_mode() {
    let bed = Testbed::new("pooled").await;
    let pooler = Pooler::before(&bed.database_url()).await;
    let url = pooler.url(&bed.database_url());
    let store = Store::connect(&url).await.must("connect through the pooler");
    store.migrate().await.must("start");
    // LISTEN would stay with a session of the pooler, and notifications would reach its next
    // client.
    assert!(store.connect_listener().await.must("connect for notifications").is_none());
    let direct = bed.store().connect_listener().await.must("connect for notifications");
    assert!(direct.is_some());
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay().database(&url));
    let first = Append::to(&account("b"), ExpectedVersion::NoStream, [opened("ann")]);
    store.append(&first).await.must("append");
    follower.until_count(1).await;
    let writers = (0..WRITERS).map(|writer| tokio::spawn(append(store.clone(), writer)));
    future::join_all(writers).await.into_iter().for_each(|task| task.must("append"));
    let events = bed.recorded().await;
    assert_eq!(take(&store, Follow::all(), events.len()).await.must("follow").len(), events.len());
    follower.caught_up(&events).await;
    relay.event("session_options_refused").await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}
