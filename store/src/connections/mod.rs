//! Connections to PostgreSQL, beyond the pool of sqlx.

pub(crate) mod deadline;
pub(crate) mod expiry;
pub(crate) mod notify;
pub(crate) mod reuse;
pub(crate) mod url;
