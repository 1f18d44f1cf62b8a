//! Inline projections: appends apply their events in their own transaction.

use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::types::Json;
use sqlx::{PgConnection, Postgres};

use super::versions::{ProjectionVersion, begin, milliseconds};
use super::{Projection, ProjectionError, ProjectionRunner};
use crate::append::{Append, Appended};
use crate::connections::deadline::within;
use crate::error::AppendError;
use crate::event::RecordedEvent;
use crate::follow::{Checkpoint, Filter, Follow, Follower};
use crate::store::Store;
use crate::trace::with_trace;

/// The shortest lease of a change of the mode.
const LEASE_MIN: Duration = Duration::from_secs(10);

/// Who applies the events to a version of a projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ApplyMode {
    Inline,
    Followed,
}

impl Store {
    /// Appends in a transaction of its own, and applies the events to a projection in it: when it
    /// returns, readers see both.
    ///
    /// The projection is applied here only after
    /// [`make_inline`](ProjectionRunner::make_inline); before, its runner applies the events, and
    /// this is an append. So first deploy this call in all places that append such events, then
    /// make the projection inline. A repeated append applies nothing.
    ///
    /// The price: four more round trips, stream rows that stay locked during them, and appends that
    /// fail when the projection does, or when it takes longer than
    /// [`StoreOptions::deadline`](crate::StoreOptions::deadline). Appends to other streams run at
    /// the same time: lock rows of the read model in one order, or expect
    /// [`AppendError::LostRace`] for a deadlock.
    ///
    /// # Errors
    /// [`ProjectionError::Append`] as [`append_in`](Store::append_in), and for the commit;
    /// [`ProjectionError::Refused`] if the projection refuses the events: nothing is recorded.
    pub async fn append_inline(
        &self,
        append: &Append,
        projection: &impl Projection,
    ) -> Result<Appended, ProjectionError> {
        let pooled = self.pool().acquire().await;
        let pooled = pooled.map_err(|error| ProjectionError::Append(AppendError::Failed(error)))?;
        let mut kept = Kept(Some(pooled));
        let Some(connection) = kept.0.as_mut() else {
            return Err(ProjectionError::Append(AppendError::Failed(sqlx::Error::PoolClosed)));
        };
        let failed = |error| ProjectionError::Append(AppendError::Failed(error));
        let begun = self.within_deadline(begin(self, connection)).await;
        let mut transaction = begun.map_err(failed)?;
        let appended = self.append_in(&mut transaction, append).await?;
        self.apply_inline(&mut transaction, append, &appended, projection).await?;
        let committed = self.within_deadline(transaction.commit()).await;
        committed.map_err(|error| ProjectionError::Append(error.into()))?;
        drop(kept.0.take());
        self.notify_followers();
        Ok(appended)
    }

    /// Applies the events of [`append_in`](Store::append_in) to a projection in the same
    /// transaction, if the projection is inline: for several projections, or with writes of the
    /// application. For transactions at `READ COMMITTED`.
    ///
    /// # Errors
    /// [`ProjectionError`]; roll back.
    pub async fn apply_inline(
        &self,
        transaction: &mut PgConnection,
        append: &Append,
        appended: &Appended,
        projection: &impl Projection,
    ) -> Result<(), ProjectionError> {
        let version = ProjectionVersion::of(projection, self)?;
        let failed = ProjectionError::database("apply an inline projection");
        let events = self.recorded(append, appended, &Follow::into_filter(projection.events()));
        // Read after the stream rows are locked, which a change of the mode waits for.
        let is_inline = sqlx::query_scalar(self.statements().projection_is_inline.clone())
            .bind(version.name)
            .bind(version.number)
            .fetch_optional(&mut *transaction);
        let is_inline = self.within_deadline(is_inline).await.map_err(&failed)?;
        if is_inline != Some(true) || appended.repeated || events.is_empty() {
            return Ok(());
        }
        let applied = async {
            version.enter(self, transaction, Duration::ZERO).await.map_err(&failed)?;
            projection.apply(&events, transaction).await.map_err(|source| {
                ProjectionError::Refused { projection: version.name.to_owned(), source }
            })
        };
        self.all_within_deadline(applied, &failed).await
    }

    /// The events of an append that a projection follows, as they are recorded.
    fn recorded(
        &self,
        append: &Append,
        appended: &Appended,
        filter: &Filter,
    ) -> Vec<RecordedEvent> {
        let (Some(recorded_at), trace) = (appended.recorded_at, self.current_trace()) else {
            return Vec::new();
        };
        let recorded = append.events.iter().zip(&appended.events);
        let recorded = recorded.filter_map(|((stream, event), (version, position))| {
            let (stream, _) = append.streams.get(*stream)?;
            let is_followed = filter.category.as_ref().is_none_or(|of| of == stream.category())
                && filter
                    .types
                    .as_ref()
                    .is_none_or(|of| of.iter().any(|of| of == event.event_type));
            is_followed.then(|| RecordedEvent {
                position: *position,
                stream: stream.clone(),
                version: *version,
                id: event.id,
                event_type: event.event_type.to_owned(),
                recorded_at,
                schema: event.schema,
                payload: event.payload.clone(),
                metadata: with_trace(&event.metadata, trace.as_ref()).into_owned(),
                headers: event.headers.clone(),
                removed_before: 0,
            })
        });
        recorded.collect()
    }
}

impl<P: Projection> ProjectionRunner<P> {
    /// Applies all events that are not applied yet, and lets appends apply theirs from then on
    /// ([`Store::append_inline`]); runners wait. Appends wait until it returns: call it when the
    /// version is live. It waits for appends in progress, at most until the deadline.
    ///
    /// # Errors
    /// [`ProjectionError`]; nothing changes, unless it is the commit that is not answered: call it
    /// again.
    pub async fn make_inline(self, deadline: Duration) -> Result<(), ProjectionError> {
        self.change_mode(ApplyMode::Inline, deadline).await
    }

    /// The way back: a runner applies the events that are appended from then on.
    ///
    /// # Errors
    /// As [`make_inline`](Self::make_inline).
    pub async fn make_followed(self, deadline: Duration) -> Result<(), ProjectionError> {
        self.change_mode(ApplyMode::Followed, deadline).await
    }

    async fn change_mode(
        &self,
        mode: ApplyMode,
        deadline: Duration,
    ) -> Result<(), ProjectionError> {
        let (store, statements) = (self.store(), self.store().statements());
        let version = ProjectionVersion::of(self.projection(), store)?;
        let failed = ProjectionError::database("change the mode of a projection");
        version.register(store, self.projection()).await?;
        let taken = async {
            let mut own = store.pool().acquire().await?.detach();
            let epoch = self.take_over(&version, &mut own, deadline).await?;
            Ok((own, epoch))
        };
        let (mut own, epoch) = store.within_deadline(taken).await.map_err(&failed)?;
        let begun = store.within_deadline(begin(store, &mut own)).await;
        let mut transaction = begun.map_err(&failed)?;
        let lock = sqlx::query(statements.projection_lock_appends.clone());
        let lock = lock.bind(milliseconds(deadline)).execute(&mut *transaction);
        let answer_by = deadline + store.options().deadline;
        within(answer_by, lock).await.map_err(&failed)?;
        // Without a lock: a runner that lost the lease has rows of the read model, and fails at
        // this one.
        let read = sqlx::query_as(statements.projection_read.clone());
        let read = read.bind(version.name).bind(version.number).fetch_one(&mut *transaction);
        let (checkpoint, was_inline): (Option<Json<Checkpoint>>, bool) =
            store.within_deadline(read).await.map_err(&failed)?;
        let (checkpoint, applied) = if was_inline {
            (store.end_of_log().await?, 0)
        } else {
            let checkpoint = checkpoint.map(|checkpoint| checkpoint.0);
            self.apply_to_end(&version, &mut transaction, checkpoint).await?
        };
        let changed = sqlx::query(statements.projection_change_mode.clone())
            .bind(version.name)
            .bind(version.number)
            .bind(epoch)
            .bind(mode == ApplyMode::Inline)
            .bind(Json(&checkpoint))
            .bind(checkpoint.position())
            .bind(applied)
            .execute(&mut *transaction);
        let changed = store.within_deadline(changed).await.map_err(&failed)?;
        if changed.rows_affected() == 0 {
            return Err(ProjectionError::LeaseLost { projection: version.name.to_owned() });
        }
        store.within_deadline(transaction.commit()).await.map_err(failed)
    }

    /// Takes the lease over from the runner that has it, and returns the epoch.
    async fn take_over(
        &self,
        version: &ProjectionVersion,
        own: &mut PgConnection,
        deadline: Duration,
    ) -> Result<i64, sqlx::Error> {
        let mut transaction = begin(self.store(), own).await?;
        let taken = sqlx::query_scalar(self.store().statements().projection_take_over.clone())
            .bind(version.name)
            .bind(version.number)
            .bind("a change of the mode")
            .bind(milliseconds(deadline.max(LEASE_MIN)))
            .fetch_one(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(taken)
    }

    /// Applies the events up to the end of the log, which does not move meanwhile.
    async fn apply_to_end(
        &self,
        version: &ProjectionVersion,
        transaction: &mut PgConnection,
        checkpoint: Option<Checkpoint>,
    ) -> Result<(Checkpoint, i64), ProjectionError> {
        let failed = ProjectionError::database("change the mode of a projection");
        let skipped = self.store().within_deadline(version.skipped(self.store())).await;
        let skipped = skipped.map_err(&failed)?;
        let mut follow = self.projection().events().skipping(skipped);
        if let Some(checkpoint) = checkpoint {
            follow = follow.after(checkpoint);
        }
        version.enter(self.store(), transaction, Duration::ZERO).await.map_err(&failed)?;
        let (mut follower, mut applied) = (Follower::new(self.store(), follow), 0);
        loop {
            let events = match follower.next_page_to_end().await? {
                Ok(page) => page.events,
                Err(reached) => return Ok((reached, applied)),
            };
            applied += i64::try_from(events.len()).unwrap_or_default();
            let done = self.projection().apply(&events, transaction).await;
            done.map_err(|source| ProjectionError::Refused {
                projection: version.name.to_owned(),
                source,
            })?;
        }
    }
}

/// A connection that is closed when it is dropped, since a transaction can be open on it.
struct Kept(Option<PoolConnection<Postgres>>);

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}
