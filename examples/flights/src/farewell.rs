//! The things that remain when the demo ends, and suggestions for the reader.

use std::io;
use std::path::Path;

use annals_store::EventSet;

use crate::events::{AircraftEvent, FlightEvent};
use crate::run::{Run, checkout, from_here};
use crate::screen::Screen;

/// Says what still runs, three commands to look further, and how to stop.
pub(crate) fn say(screen: &Screen, run: &Run, relay: &Path, streams: &[String]) -> io::Result<()> {
    let topics = [FlightEvent::CATEGORY, AircraftEvent::CATEGORY].map(|it| run.topic(it));
    screen.heading("What is left")?;
    screen.say("The relay has ended. PostgreSQL, Kafka and the schema registry still run, with")?;
    screen.say(&format!("  database {}", run.database))?;
    screen.say(&format!("  topics   {}", topics.join(", ")))?;
    screen.say(&format!("  logs     {}", from_here(&run.directory).display()))?;
    screen.print("")?;
    screen.say("Look further:")?;
    let this = std::env::current_exe().unwrap_or_default();
    for stream in streams {
        screen.say(&format!("  {} show {stream}", from_here(&this).display()))?;
    }
    // A variable that is set in the user's shell would override the file, and name another
    // database.
    screen.say(&format!(
        "  env -u ANNALS_DATABASE_URL {} status --config {}",
        from_here(relay).display(),
        from_here(&Run::latest()).join("relay.toml").display()
    ))?;
    screen.print("")?;
    let make = match from_here(checkout()) {
        here if here.as_os_str().is_empty() => "make".to_owned(),
        elsewhere => format!("make -C {}", elsewhere.display()),
    };
    screen.say(&format!(
        "What runs: {make} status    Once more: {make} demo    Stop the components: {make} down"
    ))
}
