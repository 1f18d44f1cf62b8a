//! A hot standby serves reads. It refuses followers and relays in one sentence, because its
//! snapshots do not list the transactions in progress; after its promotion both continue.

use std::pin::pin;

use annals_store::{
    Append, AppendError, Error, ExpectedVersion, Follow, Read, StoreOptions, Version,
};
use annals_testkit::{Must, account, deposited, opened, take};
use futures_util::TryStreamExt;

use crate::audit_log::annals_at;
use crate::forked::Pair;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_serves_reads_and_refuses_followers_until_it_is_promoted() {
    let pair = Pair::new("read_replica").await;
    let stream = account("a");
    let events = [opened("ann"), deposited(1), deposited(2)];
    let append = Append::to(&stream, ExpectedVersion::NoStream, events);
    pair.bed.store().append(&append).await.must("append");
    let mut connection = pair.until_replicated(3).await;

    let options = StoreOptions::default().without_notifications();
    let replica = options.connect(&pair.standby_url()).await.must("connect to the standby");
    replica.check().await.must("check");
    let all: Vec<_> = replica.read(Read::all()).try_collect().await.must("read all");
    assert_eq!(all.len(), 3);
    let read: Vec<_> =
        replica.read_stream(&stream, Version::FIRST).try_collect().await.must("read");
    assert_eq!(read.len(), 3);
    assert_eq!(replica.stream_version(&stream).await.must("read"), Version::new(2));
    let refused = pin!(replica.follow(Follow::all())).try_next().await.unwrap_err();
    assert!(matches!(refused, Error::Standby) && refused.is_retryable(), "{refused:?}");
    let refused = replica.append(&append).await.unwrap_err();
    assert!(matches!(refused, AppendError::Failed(_)) && refused.is_retryable(), "{refused:?}");
    assert!(refused.is_read_only() && refused.to_string().contains("standby"), "{refused}");

    // What a command cannot do there it says in one sentence.
    let relay = pair.bed.relay().database(&pair.standby_url());
    for command in
        [&["status"][..], &["quarantine", "list"], &["topics", "plan"], &["audit"], &["check"]]
    {
        let (code, said) = relay.run_for_code(command).await;
        assert!(code != 1 || said.contains("is a standby"), "{command:?}: {code} {said}");
        assert!(command != ["check"] || said.contains("the server is a standby"), "{said}");
    }
    let cause = all[0].id.to_string();
    for command in [&["log"][..], &["tree", &cause], &["stream", "show", stream.as_str()]] {
        let output = annals_at(&pair.standby_url(), command);
        assert!(output.status.success() && !output.stdout.is_empty(), "{output:?}");
    }

    let promote = sqlx::query(include_str!("sql/promote.sql"));
    promote.execute(&mut connection).await.must("promote");
    assert_eq!(take(&replica, Follow::all(), 3).await.must("follow").len(), 3);
}
