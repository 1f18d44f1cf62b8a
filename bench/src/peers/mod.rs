//! Appends per second of one event: the store beside the smallest insert and other event stores, on
//! the same server.

mod peer;

use serde::Serialize;

use self::peer::{Peer, Tools};
use crate::append::Load;
use crate::goals::Goal;
use crate::machine::CpuTime;
use crate::report::{Report, Table, number, print, progress};
use crate::spread::Spread;

/// Number of streams that receive the appends; the setup of each peer creates as many.
const STREAMS: usize = 50_000;

/// Appends per second of one event: the store beside the smallest insert and other event stores.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Rounds.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Duration of each measurement.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Concurrent clients, each with a connection of its own.
    #[arg(long, value_delimiter = ',', default_value = "1,8,32")]
    clients: Vec<u32>,
    /// The directory into which bench/peers/install has installed the peers.
    #[arg(long, default_value = "target/peers")]
    peers: std::path::PathBuf,
}

#[derive(Debug, Serialize)]
struct Measured {
    peer: Peer,
    round: usize,
    clients: u32,
    appends_per_second: f64,
    cpu_busy: f64,
}

/// Measures each peer at each number of clients in every round, and prints the table.
pub(crate) async fn run(arguments: &Arguments, mut report: Report) -> anyhow::Result<()> {
    let tools = Tools::find(&arguments.peers, report.directory())?;
    let mut peers: Vec<Peer> = Peer::ALL.into_iter().filter(|peer| tools.has(*peer)).collect();
    let mut measured = Vec::new();
    for round in 0..arguments.rounds {
        for &clients in &arguments.clients {
            for &peer in &peers {
                let one = measure(peer, round, arguments.load(clients), &tools).await?;
                report.line("peer", &one)?;
                let rate = number(one.appends_per_second);
                progress(&format!(
                    "round {}: {peer}, {clients} clients: {rate} appends/s",
                    round + 1
                ));
                measured.push(one);
            }
        }
        // The order changes, so that no peer always follows the same one's checkpoint.
        peers.reverse();
    }
    print(&table(&arguments.clients, &measured));
    for (name, of, beside, clients, goal) in GOALS {
        if let Some(ratio) = ratio(&measured, (of, beside), clients) {
            report.figure(name, ratio, Goal::AtLeast(goal))?;
        }
    }
    report.finish();
    Ok(())
}

impl Arguments {
    const fn load(&self, clients: u32) -> Load {
        let duration = std::time::Duration::from_secs(self.seconds);
        Load { events: 1, clients, streams: STREAMS, duration }
    }
}

/// Measures one in a database of its own, and checks that the counted events are the recorded ones.
async fn measure(peer: Peer, round: usize, load: Load, tools: &Tools) -> anyhow::Result<Measured> {
    let ready = peer.prepare(load, tools).await?;
    let before = ready.recorded().await?;
    let cpu = CpuTime::now()?;
    let run = ready.run(load, tools).await?;
    let cpu_busy = CpuTime::now()?.busy_since(cpu);
    let recorded = ready.recorded().await? - before;
    let counted = run.appends;
    anyhow::ensure!(
        recorded == counted,
        "{peer} counted {counted} events, {recorded} are recorded"
    );
    let (clients, appends_per_second) = (load.clients, run.appends_per_second);
    Ok(Measured { peer, round, clients, appends_per_second, cpu_busy })
}

/// What has a goal: its name, the ratio of whom to whom, at how many clients, and the goal.
const GOALS: [(&str, Peer, Peer, u32, f64); 6] = [
    ("append: 32 tasks / smallest insert", Peer::Annals, Peer::Minimal, 32, 1.5),
    ("append: 1 task / smallest insert", Peer::Annals, Peer::Minimal, 1, 0.6),
    (
        "append: 32 calls at once / smallest insert",
        Peer::AnnalsUncoalesced,
        Peer::Minimal,
        32,
        0.45,
    ),
    ("append: 32 tasks / message-db", Peer::Annals, Peer::MessageDb, 32, 3.0),
    (
        "append: 32 tasks / message-db, 8 categories",
        Peer::Annals,
        Peer::MessageDbInEightCategories,
        32,
        3.0,
    ),
    ("append: 32 tasks / eventsourcing", Peer::Annals, Peer::Eventsourcing, 32, 3.0),
];

/// The ratio of two peers in each round: machines change over minutes.
fn ratios(
    measured: &[Measured],
    (of, beside): (Peer, Peer),
    clients: u32,
) -> impl Iterator<Item = f64> {
    let all =
        move |peer| measured.iter().filter(move |one| one.peer == peer && one.clients == clients);
    all(beside).filter_map(move |other| {
        let one = all(of).find(|one| one.round == other.round)?;
        Some(one.appends_per_second / other.appends_per_second)
    })
}

fn ratio(measured: &[Measured], peers: (Peer, Peer), clients: u32) -> Option<f64> {
    Spread::of(ratios(measured, peers, clients)).map(|ratio| ratio.median)
}

fn table(clients: &[u32], measured: &[Measured]) -> Table {
    let mut table = Table::new(&[
        "clients",
        "who",
        "appends/s",
        "min..max",
        "annals/who",
        "min..max",
        "cpu busy",
    ]);
    for &clients in clients {
        for peer in Peer::ALL {
            let of = |peer| {
                measured.iter().filter(move |one| one.peer == peer && one.clients == clients)
            };
            let Some(rate) = Spread::of(of(peer).map(|one| one.appends_per_second)) else {
                continue;
            };
            let ratio = Spread::of(ratios(measured, (Peer::Annals, peer), clients));
            let cpu = Spread::of(of(peer).map(|one| one.cpu_busy)).map_or(0.0, |cpu| cpu.median);
            table.row(vec![
                clients.to_string(),
                peer.to_string(),
                number(rate.median),
                rate.ends(),
                ratio.map_or_else(String::new, |ratio| number(ratio.median)),
                ratio.map_or_else(String::new, Spread::ends),
                format!("{:.0} %", cpu * 100.0),
            ]);
        }
    }
    table
}
