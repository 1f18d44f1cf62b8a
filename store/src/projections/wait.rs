//! Waiting until a projection has applied events: reading one's own writes.

use std::time::{Duration, Instant};

use super::{ProjectionError, ProjectionStatus};
use crate::connections::deadline::within;
use crate::store::Store;
use crate::stream::Position;

/// The first pause between two queries; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(20);
/// How long a query may take, also when the deadline of the call is zero.
const ANSWER_MIN: Duration = Duration::from_secs(1);

impl Store {
    /// Waits until the version of a projection that readers see has applied the events at these
    /// positions, such as those of an append ([`Appended::positions`](crate::Appended::positions)).
    /// Events that the projection does not follow are not waited for. A projection that readers do
    /// not see yet is waited for: the first runner may be creating its tables.
    ///
    /// # Errors
    /// At the deadline, [`ProjectionError::Behind`], or [`ProjectionError::Unknown`] if readers see
    /// no version of it; [`ProjectionError::Store`], also if the database has not answered by then,
    /// or a second later.
    pub async fn wait_for(
        &self,
        projection: &str,
        positions: impl IntoIterator<Item = Position> + Send,
        deadline: Duration,
    ) -> Result<(), ProjectionError> {
        let (started_at, mut pause) = (Instant::now(), PAUSE_MIN);
        let positions: Vec<Position> = positions.into_iter().collect();
        loop {
            let left = deadline.saturating_sub(started_at.elapsed());
            let answer_by = left.clamp(ANSWER_MIN, self.options().deadline.max(ANSWER_MIN));
            if self.has_seen(projection, &positions, answer_by).await? == Some(true) {
                return Ok(());
            }
            let left = deadline.saturating_sub(started_at.elapsed());
            if left.is_zero() {
                return Err(self.projection_behind(projection, |of| of.is_active).await);
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Whether the active version has applied events; none if there is no active version.
    async fn has_seen(
        &self,
        projection: &str,
        positions: &[Position],
        answer_by: Duration,
    ) -> Result<Option<bool>, ProjectionError> {
        let has_seen = sqlx::query_scalar(self.statements().projection_has_seen.clone())
            .bind(projection)
            .bind(positions)
            .fetch_optional(self.pool());
        let has_seen = within(answer_by, has_seen).await;
        has_seen.map_err(ProjectionError::database("read the progress of a projection"))
    }

    /// The error of a deadline, for a version of a projection.
    pub(super) async fn projection_behind(
        &self,
        projection: &str,
        is_version: impl Fn(&ProjectionStatus) -> bool,
    ) -> ProjectionError {
        let status = match self.projection_status(projection).await {
            Ok(status) => status.into_iter().find(is_version),
            Err(error) => return error,
        };
        let projection = projection.to_owned();
        match status {
            None => ProjectionError::Unknown { projection },
            Some(ProjectionStatus { position: reached, failure, .. }) => {
                let failed_event = failure.map(|failure| failure.event_id);
                ProjectionError::Behind { projection, reached, failed_event }
            }
        }
    }
}
