//! Executes a subcommand.

use std::io::Write;
use std::process::ExitCode;

use annals_store::{Adoption, Identity, Store, StoreOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::check::CheckLimits;
use crate::cli::arguments::{Arguments, CliCommand, RolesArgument};
use crate::cli::connection::{check_url, refusal, store, with_remedy};
use crate::cli::log::LogHandle;
use crate::cli::output::Output;
use crate::cli::release_topics::{self, Publication};
use crate::cli::reload::Reloader;
use crate::cli::status::Status;
use crate::cli::{audit, check, config, forget, quarantine, rebase, replay, schemas, topics};
use crate::config::{Config, Deployments, Effective, LogFormat};
use crate::driver::{known_generation, run, topic_claims};
use crate::report::failure::Failure;

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// The exit code of `status` if the deployment is not ready, of `audit` if there is a fault, of
/// `check` if there is an error, and of `schemas` if there is a finding. The argument parser has 2.
const NOT_READY: u8 = 3;

/// The inputs of a subcommand.
#[derive(Debug)]
pub struct Invocation {
    /// Its arguments.
    pub arguments: Arguments,
    /// Its configuration.
    pub config: Config,
    /// The origins of the configuration.
    pub effective: Effective,
    /// Its log.
    pub log: LogHandle,
}

/// Executes a subcommand, and returns the exit code of the process.
///
/// # Errors
/// Those that need an operator: `run` waits for outages to end.
pub async fn execute(process: Invocation) -> Result<ExitCode> {
    let schema = process.config.database.schema.clone();
    Box::pin(execute_command(process)).await.map_err(|error| with_remedy(error, schema))
}

async fn execute_command(process: Invocation) -> Result<ExitCode> {
    let (command, config) = (process.arguments.command.clone(), process.config.clone());
    let output = process.arguments.output;
    if let CliCommand::Config = command {
        return print(&config::text(&process.effective, output)?).map(|()| ExitCode::SUCCESS);
    }
    if let CliCommand::CheckConfig = command {
        return Ok(check_url(&config).map(|()| ExitCode::SUCCESS)?);
    }
    let store = store(&config, store_options(&command, &config)).await?;
    if let CliCommand::Run = command {
        return Box::pin(publish(process, store)).await;
    }
    if let CliCommand::Status = command {
        let status = Status::read(&config, &store).await?;
        print(&if output == Output::Json { status.json()? } else { status.text()? })?;
        return Ok(if status.is_ready() { ExitCode::SUCCESS } else { NOT_READY.into() });
    }
    if let CliCommand::Audit(arguments) = command {
        let is_sound = audit::execute(config, &store, arguments, output).await?;
        return Ok(if is_sound { ExitCode::SUCCESS } else { NOT_READY.into() });
    }
    if let CliCommand::Schemas(command) = command {
        let (text, is_sound) = schemas::execute(config, &store, command, output).await?;
        print(&text)?;
        return Ok(if is_sound { ExitCode::SUCCESS } else { NOT_READY.into() });
    }
    if let CliCommand::Check { transaction_seconds_max } = command {
        let limits = CheckLimits { transaction_seconds_max };
        let (text, is_sound) = check::execute(config, &store, limits, output).await?;
        print(&text)?;
        return Ok(if is_sound { ExitCode::SUCCESS } else { NOT_READY.into() });
    }
    if let CliCommand::Topics(command) = &command {
        let (text, is_as_declared) = topics::execute(config, &store, command, output).await?;
        print(&text)?;
        return Ok(if is_as_declared { ExitCode::SUCCESS } else { NOT_READY.into() });
    }
    execute_on(command, config, store, output).await.map(|()| ExitCode::SUCCESS)
}

fn store_options(command: &CliCommand, config: &Config) -> StoreOptions {
    let options = StoreOptions::default();
    let options = if config.database.allow_fsync_off { options.allow_fsync_off() } else { options };
    match command {
        CliCommand::Migrate { without_roles: RolesArgument::Leave } => options.without_roles(),
        _ => options,
    }
}

async fn execute_on(command: CliCommand, config: Config, store: Store, output: Output) -> Result {
    match command {
        CliCommand::Migrate { .. } => Ok(store.migrate().await?),
        CliCommand::Grants { purpose, role } => {
            let grants = store.grants_for(purpose.into(), &role).await?;
            let said = serde_json::json!({ "statements": grants });
            say(
                output,
                &said,
                &grants.iter().map(|grant| format!("{grant};\n")).collect::<String>(),
            )
        }
        CliCommand::Quarantine(command) => {
            print(&quarantine::execute(&command, &store, &config.publication(), output).await?)
        }
        CliCommand::Deliver { delivery } => deliver(&config, &store, &delivery, output).await,
        CliCommand::Reshard { shards } => {
            let known = known_generation(&config, &store, Deployments::All).await?;
            let statement = store.schema().statement(include_str!("../../sql/reshard.sql"));
            let query = sqlx::query(statement).bind(shards).bind(known);
            query.execute(store.pool()).await.map_err(refusal)?;
            let said = serde_json::json!({ "shards": shards });
            say(output, &said, &format!("the installation has {shards} shards from now on\n"))
        }
        CliCommand::Rebase { execution, reason } => {
            let (config, _) = topic_claims::begin(config, &store).await?;
            let reason = reason.unwrap_or_default();
            rebase::execute(config, &store, (execution, output), &reason, |text| {
                std::io::stdout().write_all(text.as_bytes())
            })
            .await
        }
        CliCommand::Adopt { copy, reason } => {
            adopt(&store, if copy { Adoption::Copy } else { Adoption::Moved }, &reason, output)
                .await
        }
        CliCommand::ReleaseTopics { store: other, publication, execution, reason } => {
            let of = Publication { store: other, name: publication };
            print(&release_topics::release(config, &store, of, &reason, (execution, output)).await?)
        }
        CliCommand::Replay(arguments) => {
            print(&replay::execute(config, &store, arguments, output).await?)
        }
        CliCommand::Forget { deployment, execution, reason } => {
            print(&forget::execute(&store, &deployment, &reason, (execution, output)).await?)
        }
        CliCommand::Run
        | CliCommand::CheckConfig
        | CliCommand::Config
        | CliCommand::Completions { .. }
        | CliCommand::Man { .. }
        | CliCommand::Status
        | CliCommand::Audit(_)
        | CliCommand::Schemas(_)
        | CliCommand::Topics(_)
        | CliCommand::Check { .. } => Ok(()),
    }
}

async fn publish(process: Invocation, store: Store) -> Result<ExitCode> {
    let shutdown = shutdown_signal()?;
    let hangup = signal(SignalKind::hangup())?;
    let Invocation { arguments, config, effective, log } = process;
    // From this entry on, a signal ends the process cleanly.
    tracing::info!(
        event = "started",
        version = env!("CARGO_PKG_VERSION"),
        deployment = config.relay.deployment,
        instance = config.relay.instance,
        "started"
    );
    let format = config.log.format;
    let (configs, received) = watch::channel(config);
    let reloader = Reloader { arguments, effective, log, pool: store.pool().clone(), configs };
    drop(tokio::spawn(reloader.run(hangup)));
    match Box::pin(run(received, store, shutdown)).await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(failure) => halt(failure, format),
    }
}

/// Logs the failure that ends `run`. The caller prints the returned error for operators: there is
/// none if the log shows them the same text in the same place.
fn halt(failure: Failure, format: LogFormat) -> Result<ExitCode> {
    let error = failure.in_full();
    tracing::error!(event = "halted", cause = failure.cause(), error, "the relay cannot go on");
    let is_readable = format == LogFormat::Text && tracing::enabled!(tracing::Level::ERROR);
    if is_readable { Ok(ExitCode::FAILURE) } else { Err(failure.into()) }
}

async fn deliver(config: &Config, store: &Store, delivery: &str, output: Output) -> Result {
    let statement = store.schema().statement(include_str!("../../sql/deliver.sql"));
    let known = known_generation(config, store, Deployments::Configured).await?;
    let query = sqlx::query(statement).bind(config.publication()).bind(delivery).bind(known);
    query.execute(store.pool()).await.map_err(refusal)?;
    let deployment = config.publication();
    let said = serde_json::json!({ "deployment": deployment, "delivery": delivery });
    let text = format!(
        "deployment {deployment} delivers {delivery} from now on: set relay.delivery to it\n"
    );
    say(output, &said, &text)
}

async fn adopt(store: &Store, adoption: Adoption, reason: &str, output: Output) -> Result {
    let adopted = store.adopt(reason, adoption).await.map_err(|error| match error {
        annals_store::Error::Database { source, .. } => refusal(source),
        other => other.into(),
    })?;
    let Identity { store_id, history, system_identifier, settled, .. } = adopted;
    let said = serde_json::json!({
        "store_id": store_id, "history": history, "system_identifier": system_identifier, "settled": settled
    });
    let text = format!(
        "store {store_id} is adopted in database cluster {system_identifier} (history {history}); every event up to position \
         {settled} counts as visible\n"
    );
    say(output, &said, &text)
}

/// Prints the same as JSON or as text.
fn say(output: Output, said: &serde_json::Value, text: &str) -> Result {
    print(&if output == Output::Json { format!("{said}\n") } else { text.to_owned() })
}

fn print(text: &str) -> Result {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// Cancelled at the first SIGTERM or SIGINT: the relay finishes its transactions and ends. At the
/// second signal the process exits at once, which loses no event either.
fn shutdown_signal() -> Result<CancellationToken, std::io::Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let shutdown = token.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        tracing::info!(event = "stopping", "received a signal to stop: finishing transactions");
        shutdown.cancel();
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        std::process::exit(130);
    });
    Ok(token)
}
