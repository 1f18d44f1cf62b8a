//! The configuration: read from a file and the environment, checked once, complete from then on.

mod check;
mod defaults;
mod host;
mod http;
mod login;
mod settings;
mod sources;

pub(crate) use host::host_name;
pub(crate) use settings::Deployments;
pub use settings::{
    Config, Database, DatabaseOid, Delivery, Durability, Http, Kafka, Log, LogFormat, Login,
    Registry, Relay, Secret, StoreFacts, TlsFiles, Topics,
};
pub use sources::{ConfigError, Problem};
