//! The configuration: read from a file and the environment, checked once, complete from then on.

mod check;
mod defaults;
mod host;
mod login;
mod settings;
mod sources;

pub(crate) use host::host_name;
pub use settings::{
    Config, Database, DatabaseOid, Delivery, Durability, Kafka, Log, LogFormat, Login, Registry,
    Relay, Secret, StoreFacts, Topics,
};
pub use sources::{ConfigError, Problem};
