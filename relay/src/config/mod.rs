//! The configuration: read from a file and the environment, checked once, complete from then on.

mod check;
mod checkpoint_topics;
mod defaults;
mod effective;
mod error;
mod host;
mod http;
mod kafka_properties;
mod layouts;
mod login;
mod secret_files;
mod settings;
mod sources;
mod topics;

pub(crate) use checkpoint_topics::Deployments;
pub use effective::{Effective, RELOADED, ShownKey};
pub use error::{ConfigError, Problem};
pub(crate) use host::host_name;
pub(crate) use kafka_properties::canonical;
pub use settings::{
    CategoryTopic, Config, Database, DatabaseOid, Delivery, Durability, Http, Kafka, Log,
    LogFormat, Login, Registry, RegistryTls, Relay, Secret, StoreFacts, TlsFiles, Topics, Trace,
};
