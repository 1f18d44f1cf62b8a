//! The transports of the events, and the begin and end of a round for each.

use std::fmt;

use annals_store::StoreOptions;
use annals_testkit::{Environment, Testbed};
use serde::Serialize;
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgConnection};

use super::Arguments;
use super::hops::Hops;
use super::receiver::{Received, Receiver};
use super::writers::Target;
use crate::debezium::{Connector, Debezium};
use crate::event::CATEGORY;
use crate::kafka::create_topic;
use crate::process::Used;
use crate::relay::{self, Relay};
use crate::report::Report;
use crate::settle::settle;

/// The relay's default number of partitions.
const PARTITIONS: i32 = 12;

/// The transport of the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    /// The relay.
    Relay,
    /// The relay, while another session keeps a transaction open in the database that has written.
    RelayBesideOpen,
    /// The relay without transactions of Kafka.
    RelayAtLeastOnce,
    /// Debezium, from a table of its own.
    Debezium,
}

impl Side {
    /// In the order of the table.
    pub(crate) const ALL: [Self; 4] =
        [Self::Relay, Self::RelayBesideOpen, Self::RelayAtLeastOnce, Self::Debezium];

    fn delivery(self) -> relay::Delivery {
        if self == Self::RelayAtLeastOnce {
            relay::Delivery::AtLeastOnce
        } else {
            relay::Delivery::ExactlyOnce
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Relay => "relay",
            Self::RelayBesideOpen => "relay, beside an open transaction",
            Self::RelayAtLeastOnce => "relay, at least once",
            Self::Debezium => "Debezium",
        })
    }
}

/// The programs that run during one round.
pub(crate) struct Round<'a> {
    pub(crate) target: Target,
    pub(crate) receiver: Receiver,
    carrier: Carrier<'a>,
    before: Used,
}

/// The results of a round.
pub(crate) struct Ended {
    pub(crate) used: Used,
    pub(crate) hops: Option<Hops>,
    pub(crate) received: Vec<Received>,
}

enum Carrier<'a> {
    Relay { relay: Box<Relay>, open: Option<PgConnection>, _bed: Testbed },
    Debezium { debezium: &'a Debezium, name: String },
}

impl<'a> Round<'a> {
    /// Starts the relay, with a database of its own.
    pub(crate) async fn relay(
        arguments: &Arguments,
        side: Side,
        report: &Report,
    ) -> anyhow::Result<Self> {
        let bed = Testbed::new("bench_latency").await;
        let options = StoreOptions::default().connections_max(arguments.writers);
        let store = options.connect(&bed.database_url()).await?;
        sqlx::query(include_str!("../../sql/streams.sql"))
            .bind(i32::try_from(arguments.streams)?)
            .execute(bed.store().pool())
            .await?;
        settle(&bed.database_url()).await?;
        let mut open = None;
        if side == Side::RelayBesideOpen {
            let mut connection = PgConnection::connect(&bed.database_url()).await?;
            sqlx::raw_sql(include_str!("../../sql/open_transaction.sql"))
                .execute(&mut connection)
                .await?;
            open = Some(connection);
        }
        let relay = Relay::of(&bed, "a", report.directory(), relay::Log::Hops, side.delivery())?;
        let receiver = Receiver::start(&Environment::get().kafka, &bed.topic(CATEGORY))?;
        let before = relay.used()?;
        let carrier = Carrier::Relay { relay: Box::new(relay), open, _bed: bed };
        Ok(Self { target: Target::Store(store), receiver, carrier, before })
    }

    /// Starts a connector in a running worker.
    pub(crate) async fn debezium(
        arguments: &Arguments,
        name: String,
        debezium: &'a Debezium,
    ) -> anyhow::Result<Self> {
        let brokers = &Environment::get().kafka;
        let pool = PgPoolOptions::new().max_connections(arguments.writers);
        let pool = pool.connect(debezium.database_url()).await?;
        create_topic(brokers, &name, PARTITIONS).await?;
        let connector = Connector { name: &name, topic: &name };
        debezium.begin(connector).await?;
        debezium.publish(connector).await?;
        let receiver = Receiver::start_bare(brokers, &name, PARTITIONS)?;
        let before = debezium.used()?;
        let carrier = Carrier::Debezium { debezium, name };
        Ok(Self { target: Target::Table(pool), receiver, carrier, before })
    }

    /// Never returns while the events are transported.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        match &mut self.carrier {
            Carrier::Relay { relay, .. } => relay.ended().await,
            Carrier::Debezium { .. } => std::future::pending().await,
        }
    }

    /// Ends it.
    pub(crate) async fn end(self) -> anyhow::Result<Ended> {
        let (now, hops) = match self.carrier {
            Carrier::Relay { relay, open, _bed } => {
                let (now, hops) = (relay.used()?, Hops::of(&relay.logged()?));
                relay.stop().await?;
                drop(open);
                (now, hops)
            }
            Carrier::Debezium { debezium, name } => {
                let now = debezium.used()?;
                debezium.end(Connector { name: &name, topic: &name }).await?;
                (now, None)
            }
        };
        let used = Used { cpu_seconds: now.cpu_seconds_since(self.before), ..now };
        Ok(Ended { used, hops, received: self.receiver.stop().await? })
    }
}
