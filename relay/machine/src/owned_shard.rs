//! The shards of a session, and how far their takeover is.

/// A shard that this session owns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct OwnedShard<P> {
    pub(crate) epoch: u64,
    /// Whether it is to be released, once nothing of it is under way.
    pub(crate) is_leaving: bool,
    pub(crate) takeover: Takeover<P>,
}

/// How far the takeover of a shard is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Takeover<P> {
    /// The leases were not read since the producers were made.
    Unconfirmed,
    /// The lease is confirmed; earlier owners are not fenced.
    Confirmed,
    /// Earlier owners are fenced; the checkpoint is not read.
    Fenced,
    /// It is published from this cursor on.
    Live(P),
}
