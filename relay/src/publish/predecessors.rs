//! Predecessors that are not published: the next event of the stream names the one before it that
//! is, so that consumers can tell a skipped event from a lost one.

use annals_store::{Store, Version};
use sqlx::PgConnection;

use crate::model::message::Message;
use crate::report::failure::Failure;

/// Adds the header to each message whose predecessor in its stream is not published.
pub(crate) async fn name_previous(
    connection: &mut PgConnection,
    store: &Store,
    publication: &str,
    messages: &mut [Message],
) -> Result<(), Failure> {
    let failed = || Failure::database("find events whose predecessors are not published");
    let statement = store.schema().statement(include_str!("../../sql/has_unpublished.sql"));
    let has_unpublished: bool = sqlx::query_scalar(statement)
        .bind(publication)
        .fetch_one(&mut *connection)
        .await
        .map_err(failed())?;
    if !has_unpublished {
        return Ok(());
    }
    let (streams, versions): (Vec<&str>, Vec<Option<Version>>) =
        messages.iter().map(|message| (message.key.as_str(), message.version)).unzip();
    let statement = store.schema().statement(include_str!("../../sql/previous_published.sql"));
    let found: Vec<(i64, Option<Version>)> = sqlx::query_as(statement)
        .bind(publication)
        .bind(streams)
        .bind(versions)
        .fetch_all(connection)
        .await
        .map_err(failed())?;
    for (index, previous) in found {
        let index = usize::try_from(index - 1).unwrap_or(usize::MAX);
        if let Some(message) = messages.get_mut(index) {
            message.name_previous(previous);
        }
    }
    Ok(())
}
