//! The cost of a relay that has nothing to publish.

use std::time::{Duration, Instant};

use annals_store::{Append, ExpectedVersion};
use annals_testkit::{Environment, Testbed};
use serde::Serialize;
use sqlx::{Connection, PgConnection};

use crate::event::{self, CATEGORY, new_event};
use crate::goals::Goal;
use crate::latency::receiver::Receiver;
use crate::relay::{self, Relay};
use crate::report::{Report, print};

/// Time until the relay is idle; the server's counters follow within a second.
const REST: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Duration of the measurement.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

#[derive(Debug, Serialize)]
struct Measured {
    seconds: f64,
    cpu_percent: f64,
    queries_per_second: f64,
    memory_peak_mib: f64,
}

/// Publishes one event, and measures the idle relay.
pub(crate) async fn run(arguments: &Arguments, mut report: Report) -> anyhow::Result<()> {
    let bed = Testbed::new("bench_idle").await;
    let relay =
        Relay::of(&bed, "a", report.directory(), relay::Log::Usual, relay::Delivery::ExactlyOnce)?;
    let receiver = Receiver::start(&Environment::get().kafka, &bed.topic(CATEGORY))?;
    let append = Append::to(&event::stream(0)?, ExpectedVersion::Any, [new_event(0)?]);
    bed.store().append(&append).await?;
    receiver.wait_for(1).await?;
    let measured = watch(&relay, &bed, Duration::from_secs(arguments.seconds)).await?;
    relay.stop().await?;
    receiver.stop().await?;
    print(&format!(
        "an idle relay: {:.2} % of a core, {:.1} queries a second, memory peak {:.0} MiB",
        measured.cpu_percent, measured.queries_per_second, measured.memory_peak_mib
    ));
    report.line("idle", &measured)?;
    report.figure("idle relay, % of a core", measured.cpu_percent, Goal::AtMost(1.0))?;
    report.finish();
    Ok(())
}

async fn watch(relay: &Relay, bed: &Testbed, span: Duration) -> anyhow::Result<Measured> {
    let mut connection = PgConnection::connect(&bed.database_url()).await?;
    tokio::time::sleep(REST).await;
    let (began, before) = (Instant::now(), relay.used()?);
    let queries = committed(&mut connection).await?;
    tokio::time::sleep(span).await;
    let after = relay.used()?;
    let seconds = began.elapsed().as_secs_f64();
    // A busy session writes the counters late: at most a second.
    let queries = committed(&mut connection).await? - queries;
    Ok(Measured {
        seconds,
        cpu_percent: after.cpu_seconds_since(before) / seconds * 100.0,
        queries_per_second: f64::from(queries) / seconds,
        memory_peak_mib: after.memory_peak_mib,
    })
}

/// The number of transactions in this database, each one query of the relay's.
async fn committed(connection: &mut PgConnection) -> anyhow::Result<i32> {
    let count: i64 =
        sqlx::query_scalar(include_str!("../sql/queries.sql")).fetch_one(connection).await?;
    Ok(i32::try_from(count)?)
}
