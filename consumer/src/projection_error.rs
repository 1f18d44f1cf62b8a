//! Why a projection cannot be declared, prepared or switched.

/// The longest name of a projection.
pub(crate) const NAME_BYTES_MAX: usize = 200;

/// Why a projection cannot be declared, prepared or switched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectionError {
    /// The name is empty or too long.
    #[error("projection name {name:?}: use 1 to {NAME_BYTES_MAX} bytes")]
    Name {
        /// The name.
        name: String,
    },
    /// No topic was given.
    #[error("projection {name} names no topic")]
    NoTopics {
        /// The projection.
        name: String,
    },
    /// The schema name would need quotes, or comes too late.
    #[error(
        "schema name {name:?}: use small letters, digits and _, not starting with a digit, and set \
         it before the version"
    )]
    Schema {
        /// The name.
        name: String,
    },
    /// A version of a read model has no schema that it can have.
    #[error(
        "version {version} of {name}: the version is from 1, and {name}_v{version} a schema name \
         without quotes that is not in use"
    )]
    Version {
        /// The projection.
        name: String,
        /// The version.
        version: u32,
    },
    /// The version has other tables than when it was registered.
    #[error("version {version} of {name} is registered with other tables: give them a new version")]
    OtherTables {
        /// The projection.
        name: String,
        /// The version.
        version: u32,
    },
    /// The version is not registered.
    #[error("{name} is no registered version of a read model: declare a version, and prepare it")]
    NotRegistered {
        /// The projection, with its version.
        name: String,
    },
    /// The version has applied less than the one that readers see.
    #[error("version {version} of {name} is {behind} records or streams behind the one shown")]
    Behind {
        /// The projection.
        name: String,
        /// The version.
        version: u32,
        /// The number of records, or of streams where it reads other topics.
        behind: u64,
    },
    /// PostgreSQL reported an error, or does not answer.
    #[error("{action}")]
    Database {
        /// The action that failed, as verb and object.
        action: &'static str,
        /// PostgreSQL's error.
        source: sqlx::Error,
    },
}
