//! The tools of Annals' tests: throwaway databases, the real relay, servers to stop, writers and a
//! checker.
//!
//! A test creates a [`Testbed`] (a database and topic names of its own on the shared servers),
//! starts a [`RelayProcess`], runs a [`Load`] and a [`Follower`], and hands their observations to
//! [`check`]. Tests that stop servers start a [`PrivateStack`].
//!
//! Everything here panics when the test cannot go on, with the reason in one sentence ([`Must`]).

mod access;
mod account;
mod administration;
mod blocking;
mod brokers;
mod cancel;
mod certificates;
mod check;
mod clock;
mod dice;
mod environment;
mod faulty_link;
mod follow;
mod full_disk;
mod history;
mod http;
mod java;
mod kafka;
mod kerberos;
mod link_connection;
mod link_state;
mod load;
mod log;
mod migrated;
mod must;
mod openid;
mod outcomes;
mod pooler;
mod postgres;
mod preload;
mod prometheus;
mod registry;
mod relay;
mod relay_settings;
mod round_trips;
mod secure_kafka;
mod stack;
mod testbed;
mod tls_proxy;
mod topic_bed;
mod until;
mod violation;
mod writer;

pub use access::{
    ACCESS_LISTS, Operation, Resource, Right, allow, deny, grant, limit_writing, set_password,
    withdraw,
};
pub use account::{
    Account, AccountClosed, AccountEvent, AccountOpened, CATEGORY, MoneyDeposited, account, closed,
    deposited, deposited_for, deposited_large, opened,
};
pub use administration::{administer, execute_at, remove_events, remove_events_in};
pub use brokers::{ThreeBrokers, TwoDoors};
pub use cancel::dropped_after;
pub use certificates::{Authority, CertificateFiles, Validity};
pub use check::check;
pub use dice::Dice;
pub use environment::{Environment, repetitions};
pub use faulty_link::FaultyLink;
pub use follow::{DEADLINE, Follower, consume, take};
pub use full_disk::DiskPart;
pub use history::{Attempt, AttemptedEvent, Consumed, History, Outcome, Recorded};
pub use http::{HttpAnswer, http_get};
pub use java::{JavaPrinter, JavaRegistry};
pub use kafka::{
    Isolation, RawRecord, abort_records, add_partitions, configure_topic, create_replicated_topic,
    create_topic, create_topic_on, delete_records, delete_topic, leave_transactions_open,
    partitions, read_topic, topic_configuration, topics, until_forgotten, until_nothing_is_open,
    write_records,
};
pub use kerberos::KerberosKafka;
pub use load::{Load, LoadOptions, Pace};
pub use must::Must;
pub use openid::OpenIdProvider;
pub use outcomes::{Outcomes, Told};
pub use pooler::Pooler;
pub use postgres::{
    BaseBackup, Dump, Snapshot, copy_database, create_database, drop_database, rename_database,
};
pub use prometheus::{Prometheus, promtool};
pub use registry::{FaultyRegistry, Garbage, ask_registry};
pub use relay::{ALL_SHARDS, RelayProcess, http_address};
pub use relay_settings::RelaySettings;
pub use secure_kafka::{KafkaLogin, SecureKafka, USER};
pub use stack::{Component, Ending, PrivateStack};
pub use testbed::Testbed;
pub use tls_proxy::{Admission, TlsProxy};
pub use topic_bed::{Draft, TopicBed, send};
pub use until::{in_time, until};
pub use violation::Violation;
