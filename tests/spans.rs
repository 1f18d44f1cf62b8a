//! The store's spans, in a process of their own: tracing decides once per process whether a span is
//! enabled, by the subscribers present when a thread first reaches it, and other tests have none.

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::{Arc, Mutex};

    use annals_store::{Append, ExpectedVersion, Follow, Read};
    use annals_testkit::{Must, Testbed, account, deposited, opened};
    use futures_util::TryStreamExt;
    use futures_util::future::join_all;
    use sqlx::AssertSqlSafe;
    use tracing::Event;
    use tracing::field::{Field, Visit};
    use tracing::span::{Id, Record};
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
    use tracing_subscriber::registry::LookupSpan;

    /// The values recorded on the store's spans after they had begun, and those of its events:
    /// `span field=value`, `event field=value`.
    #[derive(Default, Clone)]
    struct Spans(Arc<Mutex<Vec<String>>>);

    impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
        fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
            let span = context.span(id).must("find the span");
            values.record(&mut Noted(span.name(), &mut self.0.lock().ok().must("note a span")));
        }

        fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
            event.record(&mut Noted("event", &mut self.0.lock().ok().must("note an event")));
        }
    }

    /// Writes each value down, after its span's name.
    struct Noted<'a>(&'static str, &'a mut Vec<String>);

    impl Visit for Noted<'_> {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            self.1.push(format!("{} {field}={value:?}", self.0));
        }
    }

    #[tokio::test]
    async fn appends_pages_and_followers_have_spans_that_say_what_came_of_them() {
        let spans = Spans::default();
        let _guard =
            tracing::subscriber::set_default(tracing_subscriber::registry().with(spans.clone()));
        let bed = Testbed::new("spans").await;
        let append =
            Append::to(&account("a"), ExpectedVersion::NoStream, [opened("ann"), deposited(1)]);
        bed.store().append(&append).await.must("append");
        let alone = spans.0.lock().ok().must("read the spans").clone();
        for expected in ["append queued_us=0", "append call_appends=1"] {
            assert!(alone.iter().any(|span| span == expected), "no {expected} in {alone:?}");
        }
        let together: Vec<_> = (0..30)
            .map(|number| Append::to(&account(number), ExpectedVersion::Any, [deposited(1)]))
            .collect();
        for result in join_all(together.iter().map(|append| bed.store().append(append))).await {
            result.must("append");
        }
        let mut transaction = bed.store().pool().begin().await.must("begin");
        let late = Append::to(&account("a"), ExpectedVersion::NoStream, [opened("bob")]);
        bed.store().append_in(&mut transaction, &late).await.unwrap_err();
        transaction.rollback().await.must("roll back");
        bed.store().read(Read::all()).try_collect::<Vec<_>>().await.must("read");
        let mut log = pin!(bed.store().follow(Follow::all()));
        log.try_next().await.must("follow");

        let found = spans.0.lock().ok().must("read the spans").clone();
        for expected in [
            r#"append outcome="appended""#,
            r#"append_in outcome="refused""#,
            "read_page events=32",
            "follow_page events=32",
        ] {
            assert!(found.iter().any(|span| span == expected), "no {expected} in {found:?}");
        }
        for (field, above) in [("append queued_us=", 0), ("append call_appends=", 1)] {
            let values = found.iter().filter_map(|span| span.strip_prefix(field)?.parse().ok());
            assert!(values.max() > Some(above), "no {field} above {above} in {found:?}");
        }
        a_check_warns_of_read_only_sessions(&bed, &spans).await;
    }

    const WARNING: &str = r#"event setting="default_transaction_read_only""#;

    async fn a_check_warns_of_read_only_sessions(bed: &Testbed, spans: &Spans) {
        let warnings = || {
            let found = spans.0.lock().ok().must("read the events");
            let is_warning = |line: &&String| *line == WARNING;
            found.iter().filter(is_warning).count()
        };
        bed.store().check().await.must("check");
        assert_eq!(warnings(), 0);
        let set = format!("alter database {} set default_transaction_read_only = on", bed.name());
        let set = sqlx::raw_sql(AssertSqlSafe(set)).execute(bed.store().pool());
        set.await.must("let a database be read-only");
        bed.another_store().await.check().await.must("check");
        assert_eq!(warnings(), 1);
    }
}
