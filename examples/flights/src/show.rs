//! `show`: one stream from both sides, as the store has it and as the topic has it.

use std::pin::pin;
use std::process::ExitCode;

use annals_consumer::{Consumer, Delivered, SchemaRegistry};
use annals_store::{Store, StreamName, Version};
use anyhow::{Context, Result};
use futures_util::TryStreamExt;

use crate::args;
use crate::run::Run;
use crate::screen::Screen;
use crate::seen::settings;

/// Prints the stream. Fails if there is none of that name.
pub(crate) async fn run(args: &args::Show) -> Result<ExitCode> {
    let stream = StreamName::new(args.stream.as_str())?;
    let run = Run::of_directory(&args.run.clone().unwrap_or_else(Run::latest))?;
    let screen = Screen::new();
    let events = of_store(&run, &stream, &screen).await?;
    anyhow::ensure!(events > 0, "there is no stream {stream} in database {}", run.database);
    of_topic(&run, &stream, &screen).await?;
    Ok(ExitCode::SUCCESS)
}

async fn of_store(run: &Run, stream: &StreamName, screen: &Screen) -> Result<usize> {
    screen.heading(&format!("PostgreSQL, database {}: stream {stream}", run.database))?;
    let store = Store::connect(&run.database_url).await?;
    let mut events = pin!(store.read_stream(stream, Version::FIRST));
    let mut count = 0;
    while let Some(event) = events.try_next().await? {
        count += 1;
        screen.say(&format!(
            "version {}  {}  position {}",
            event.version, event.event_type, event.position
        ))?;
        screen.say(&format!("  {}", event.to_json()?))?;
    }
    Ok(count)
}

async fn of_topic(run: &Run, stream: &StreamName, screen: &Screen) -> Result<()> {
    let topic = run.topic(stream.category());
    screen.heading(&format!("Kafka, topic {topic}: key {stream}"))?;
    let schemas = SchemaRegistry::new(&run.registry_url)?;
    let reading = || format!("read topic {topic}");
    let consumer = Consumer::connect(settings(run, "show"));
    let mut consumer = consumer.read_to_end(&[&topic]).await.with_context(reading)?;
    while let Some(delivered) = consumer.next().await.with_context(reading)? {
        if delivered.stream == stream.as_str() {
            let schema = schemas.get(delivered.schema_id).await?;
            show(&delivered, &schema.decode_json(&delivered.payload)?, screen)?;
        }
    }
    consumer.close().await;
    Ok(())
}

fn show(delivered: &Delivered, data: &serde_json::Value, screen: &Screen) -> Result<()> {
    let Delivered { version, event_type, partition, offset, schema_id, event_id, .. } = delivered;
    screen.say(&format!(
        "version {version}  {event_type}  partition {partition}, offset {offset}, schema {schema_id}, event {event_id}"
    ))?;
    Ok(screen.say(&format!("  {data}"))?)
}
