//! What the store tells about its work: metrics through the `metrics` facade and spans through `tracing`. Both cost
//! next to nothing until the application installs an exporter or a subscriber of its choice.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use metrics::{counter, gauge, histogram};

use crate::append::Appended;
use crate::error::AppendError;

/// Appends that were answered; label `outcome`: `appended`, `repeated`, `refused`, `lost_race`, `unknown`, `failed`.
pub const APPENDS: &str = "annals_appends_total";
/// Events that appends have recorded.
pub const APPENDED_EVENTS: &str = "annals_appended_events_total";
/// How long an append took; same label.
pub const APPEND_DURATION: &str = "annals_append_duration_seconds";
/// Events that were read by a caller, by [`Store::read`](crate::Store::read) and what stands on it.
pub const READ_EVENTS: &str = "annals_read_events_total";
/// How long a page took to read.
pub const READ_PAGE_DURATION: &str = "annals_read_page_duration_seconds";
/// Events that followers were given; label `category`, empty for all.
pub const FOLLOWED_EVENTS: &str = "annals_followed_events_total";
/// How long ago the last event that a follower was given had been recorded, when its page was read; same label.
pub const FOLLOWER_LAG: &str = "annals_follower_lag_seconds";

/// Notes an append that was begun at `begun`.
pub(crate) fn appended(begun: Instant, answer: &Result<Appended, AppendError>) {
    let outcome = match answer {
        Ok(appended) if appended.repeated => "repeated",
        Ok(appended) => {
            counter!(APPENDED_EVENTS).increment(u64::try_from(appended.events.len()).unwrap_or(0));
            "appended"
        }
        Err(AppendError::Refused(_)) => "refused",
        Err(AppendError::LostRace(_)) => "lost_race",
        Err(AppendError::Unknown(_)) => "unknown",
        Err(AppendError::Failed(_)) => "failed",
    };
    counter!(APPENDS, "outcome" => outcome).increment(1);
    histogram!(APPEND_DURATION, "outcome" => outcome).record(begun.elapsed());
    tracing::Span::current().record("outcome", outcome);
}

/// Notes a page of a reading.
pub(crate) fn page_read(begun: Instant, events: usize) {
    counter!(READ_EVENTS).increment(u64::try_from(events).unwrap_or(0));
    histogram!(READ_PAGE_DURATION).record(begun.elapsed());
    tracing::Span::current().record("events", events);
}

/// Notes a page of a follower.
pub(crate) fn followed(category: &str, events: usize, last: Timestamp) {
    let lag = Timestamp::now().duration_since(last);
    let lag = Duration::try_from(lag).unwrap_or_default();
    counter!(FOLLOWED_EVENTS, "category" => category.to_owned())
        .increment(u64::try_from(events).unwrap_or(0));
    gauge!(FOLLOWER_LAG, "category" => category.to_owned()).set(lag.as_secs_f64());
    tracing::Span::current().record("events", events);
}
