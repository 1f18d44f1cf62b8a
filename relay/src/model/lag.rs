//! How many events wait to be published, and since when.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

/// The committed events that the copied checkpoints do not cover.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Lag {
    pub(crate) events: i64,
    /// Whether the number is an estimate.
    pub(crate) is_estimate: bool,
    /// The age of the oldest one.
    pub(crate) seconds: f64,
    /// When the oldest one was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) oldest: Option<Timestamp>,
}

/// The lag of a deployment. Shards and categories without lag are missing.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Lags {
    pub(crate) all: Lag,
    pub(crate) shards: BTreeMap<i16, Lag>,
    pub(crate) categories: BTreeMap<String, Lag>,
}
