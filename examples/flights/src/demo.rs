//! The demo, from the file to the verdict. This file sees all parts; they do not see each other.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use annals_store::{EventSet, Store, StoreOptions};
use anyhow::{Result, ensure};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::args;
use crate::background::Background;
use crate::counts::Counts;
use crate::environment::Environment;
use crate::events::{AircraftEvent, FlightEvent};
use crate::figures::{grouped, time};
use crate::lags::Lags;
use crate::outage::{Outage, Scene};
use crate::projections::{self, Applied, Reports};
use crate::relay::{self, Relay};
use crate::report::{self, Measured};
use crate::run::{Run, from_here};
use crate::screen::Screen;
use crate::seen::Seen;
use crate::totals::Totals;
use crate::writers::{self, Appended};
use crate::{
    database, farewell, logging, orphans, progress, read_model, rows, signals, topics, totals_csv,
    totals_kafka,
};

/// Runs the demo. It succeeds if everything came out once and every total agrees. The relay ends
/// with it in any case.
pub(crate) async fn run(args: &args::Demo) -> Result<ExitCode> {
    let environment = Environment::read()?;
    let screen = Screen::new();
    let csv = args.csv.clone().unwrap_or_else(rows::month);
    let expected = add_up(&csv, &screen).await?;
    let run = Run::begin(&environment)?;
    logging::begin(&run.demo_log())?;
    let directory = run.directory.clone();
    tokio::select! {
        is_same = play(args, (csv, &expected), (run, &environment), screen) => match is_same {
            Ok(true) => Ok(ExitCode::SUCCESS),
            Ok(false) => Ok(ExitCode::FAILURE),
            Err(error) => {
                let logs = from_here(&directory).display();
                Err(error.context(format!("the demo ended early, and its relay with it (logs: {logs})")))
            }
        },
        exit_code = signals::told_to_end() => exit_code,
    }
}

async fn play(
    args: &args::Demo,
    (csv, expected): (PathBuf, &Totals),
    (run, environment): (Run, &Environment),
    screen: Screen,
) -> Result<bool> {
    let store = prepare(args, environment, &run, &screen).await?;
    let read_model = read_model::connect(&run.database_url).await?;
    read_model::create(&read_model).await?;
    let program = args.relay.clone().map_or_else(relay::beside_this_program, Ok)?;
    let relay = Relay::start(&program, &run)?;
    let appended = watch::Sender::new(Appended::default());
    let reports = Reports {
        applied: watch::Sender::new(Applied::default()),
        lags: Lags::new()?,
        shutdown: CancellationToken::new(),
    };
    let seen = watch::Sender::new(Seen::default());
    let background = Background::start(&read_model, &run, &reports, &seen);
    let mut stage = Stage {
        args,
        csv,
        run,
        screen,
        store,
        read_model,
        relay,
        appended,
        reports,
        seen,
        background,
        program,
        first: Vec::new(),
    };
    stage.first_flight().await?;
    let measured = stage.all_flights(expected).await?;
    stage.everything_is_applied().await?;
    stage.every_record_is_right().await?;
    stage.verdict(expected, measured).await
}

async fn add_up(csv: &Path, screen: &Screen) -> Result<Totals> {
    screen.heading("The file")?;
    let path = csv.to_owned();
    let totals = tokio::task::spawn_blocking(move || totals_csv::totals(&path)).await??;
    ensure!(totals.all.flights > 0, "{} has no flights", csv.display());
    screen.say(&format!(
        "{} flights by {} carriers to {} destinations, added up straight from {}",
        grouped(totals.all.flights),
        totals.by_carrier.len(),
        totals.by_destination.len(),
        from_here(csv).display()
    ))?;
    Ok(totals)
}

async fn prepare(
    args: &args::Demo,
    environment: &Environment,
    run: &Run,
    screen: &Screen,
) -> Result<Store> {
    screen.heading("The store")?;
    let orphans = orphans::end().await?;
    let dropped = database::create(environment, run).await?;
    let connections = u32::try_from(args.writers.get()).unwrap_or(u32::MAX);
    let store =
        StoreOptions::default().connections_max(connections).connect(&run.database_url).await?;
    store.migrate().await?;
    screen.say(&format!("a new database, {}, migrated", run.database))?;
    for (of_earlier_runs, count) in
        [("relays left alive, now ended", orphans), ("databases dropped", dropped)]
    {
        if count > 0 {
            screen.say(&format!("of earlier runs: {count} {of_earlier_runs}"))?;
        }
    }
    Ok(store)
}

/// What the demo holds while it plays.
struct Stage<'a> {
    args: &'a args::Demo,
    csv: PathBuf,
    run: Run,
    screen: Screen,
    store: Store,
    read_model: PgPool,
    relay: Relay,
    program: PathBuf,
    /// The streams of the first flight.
    first: Vec<String>,
    appended: watch::Sender<Appended>,
    reports: Reports,
    seen: watch::Sender<Seen>,
    background: Background,
}

impl Stage<'_> {
    /// One flight alone: once it is applied, topics, schemas and projections are there, and times
    /// count.
    async fn first_flight(&mut self) -> Result<()> {
        self.screen
            .heading("The relay and two projections are started; the first flight goes its way")?;
        self.screen.say(&format!(
            "relay: pid {}, log {}",
            self.relay.pid()?,
            from_here(&self.run.relay_log()).display()
        ))?;
        let begun = Instant::now();
        self.first = writers::append_first(&self.store, &self.csv, &self.appended).await?;
        let appended_after = begun.elapsed();
        self.wait_until_applied().await?;
        // The watch over the topics may have found them later.
        let mut counts = self.counts();
        let events = counts.appended().events;
        self.relay.while_it_runs(counts.events_seen(events)).await?;
        self.screen.say(&format!(
            "appended in {}; {} later it is in the read model: topics created, schemas registered",
            time(appended_after),
            time(begun.elapsed() - appended_after)
        ))?;
        Ok(())
    }

    async fn all_flights(&mut self, expected: &Totals) -> Result<Measured> {
        let flights = u64::try_from(expected.all.flights)?;
        self.screen.heading(&format!(
            "All flights: {} writers, one append a flight over two streams",
            self.args.writers
        ))?;
        self.reports.lags.begin();
        let (begun, before) = (Instant::now(), *self.appended.borrow());
        let append = async {
            writers::append_rest(&self.store, &self.csv, self.args.writers, &self.appended).await?;
            Ok(begun.elapsed())
        };
        let counts = self.counts();
        let (lags, screen) = (&self.reports.lags, &self.screen);
        let scene = Scene { relay: &mut self.relay, counts, flights, lags, screen };
        let scene = play_scene(scene, self.args.no_kill);
        let progress = progress::show(screen, self.appended.subscribe(), flights);
        let all = async { tokio::try_join!(append, scene, progress) };
        let (append_time, outage, ()) = self.background.while_it_runs(all).await?;

        let now = *self.appended.borrow();
        screen.say(&format!("all flights are appended, in {}", time(append_time)))?;
        Ok(Measured {
            appends: now.flights - before.flights,
            events: now.events - before.events,
            retries: now.retries,
            append_time,
            relay_time: begun.elapsed(),
            begun,
            outage,
            relay_memory: None,
        })
    }

    async fn everything_is_applied(&mut self) -> Result<()> {
        self.screen.heading("The projections catch up")?;
        let begun = Instant::now();
        self.wait_until_applied().await?;
        self.reports.shutdown.cancel();
        let totals = self.background.end().await?;
        self.screen.say(&format!(
            "{} after the last append all {} events are applied: in {} transactions, {} duplicates dropped",
            time(begun.elapsed()),
            grouped(totals.events),
            grouped(totals.batches),
            totals.duplicates
        ))?;
        Ok(())
    }

    fn counts(&self) -> Counts {
        Counts { appended: self.appended.subscribe(), seen: self.seen.subscribe() }
    }

    async fn wait_until_applied(&mut self) -> Result<()> {
        let expected = self.acknowledged();
        let mut applied = self.reports.applied.subscribe();
        let wait = projections::wait_for(&mut applied, expected);
        self.background.while_it_runs(self.relay.while_it_runs(wait)).await
    }

    /// What must be applied: what the store has acknowledged.
    fn acknowledged(&self) -> Applied {
        let Appended { events, aircraft_events: aircraft, .. } = *self.appended.borrow();
        Applied { flights: events - aircraft, aircraft }
    }

    async fn every_record_is_right(&self) -> Result<()> {
        self.screen.heading("Both topics are read again, from the beginning to the end")?;
        let Applied { flights, aircraft } = self.acknowledged();
        for (category, acknowledged) in
            [(FlightEvent::CATEGORY, flights), (AircraftEvent::CATEGORY, aircraft)]
        {
            let store = topics::of_store(&self.store, category).await?;
            ensure!(
                store.events == acknowledged,
                "category {category}: the store has {} events and has acknowledged {}",
                grouped(store.events),
                grouped(acknowledged)
            );
            let topic = topics::of_topic(&self.run, category).await?;
            topics::compare(category, &store, &topic)?;
            self.screen.say(&format!(
                "{category}: {} events of {} streams, as in the store; every version once and in order",
                grouped(topic.events),
                grouped(topic.last.len())
            ))?;
        }
        Ok(())
    }

    async fn verdict(self, expected: &Totals, mut measured: Measured) -> Result<bool> {
        measured.relay_memory = self.relay.memory();
        if let Some(last_at) = self.seen.borrow().last_at {
            measured.relay_time = last_at - measured.begun;
        }
        let found = totals_kafka::totals(&self.read_model).await?;
        report::flights(&self.screen, &found)?;
        let is_same = report::totals(&self.screen, expected, &found)?;
        report::rates(&self.screen, &measured, &self.reports.lags)?;
        self.relay.stop().await?;
        self.read_model.close().await;
        self.store.pool().close().await;
        farewell::say(&self.screen, &self.run, &self.program, &self.first)?;
        Ok(is_same)
    }
}

async fn play_scene(scene: Scene<'_>, no_kill: bool) -> Result<Option<Outage>> {
    if no_kill {
        // The relay must live all the same while the flights are appended.
        let Scene { relay, mut counts, flights, .. } = scene;
        relay.while_it_runs(counts.flights_appended(flights)).await?;
        return Ok(None);
    }
    scene.play().await.map(Some)
}
