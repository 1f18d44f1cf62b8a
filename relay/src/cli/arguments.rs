//! The arguments of the binary.

use std::path::PathBuf;

use annals_store::Purpose;
use clap::builder::{BoolValueParser, TypedValueParser};
use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use uuid::Uuid;

use crate::cli::audit::AuditArguments;
use crate::cli::examples;
use crate::cli::output::Output;
use crate::cli::quarantine::QuarantineCommand;
use crate::cli::replay::ReplayArguments;
use crate::cli::schemas::SchemasCommand;
use crate::cli::topics::TopicsCommand;
use crate::config::{Config, ConfigError, Effective};
use crate::model::execution::Execution;

/// Publishes the outbox of an Annals event store to Kafka.
#[derive(Debug, Parser)]
#[command(name = "annals-relay", version)]
pub struct Arguments {
    /// The configuration file. Environment variables override its keys:
    /// `ANNALS_RELAY__SECTION__KEY`, and the short names `ANNALS_DATABASE_URL`, `ANNALS_KAFKA` and
    /// `ANNALS_REGISTRY_URL`.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON instead of text, where the command prints something: one object, or one a line.
    #[arg(long = "json", global = true, action = ArgAction::SetTrue, value_parser = output())]
    pub output: Output,
    /// The subcommand.
    #[command(subcommand)]
    pub command: CliCommand,
}

fn output() -> impl TypedValueParser<Value = Output> {
    let of = |is_set| if is_set { Output::Json } else { Output::Text };
    BoolValueParser::new().map(of)
}

/// The flag `--dry-run`.
fn execution() -> impl TypedValueParser<Value = Execution> {
    let of = |is_set| if is_set { Execution::DryRun } else { Execution::Apply };
    BoolValueParser::new().map(of)
}

/// The flag `--without-roles`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolesArgument {
    /// The roles of Annals are created.
    Create,
    /// No role is created.
    Leave,
}

fn roles() -> impl TypedValueParser<Value = RolesArgument> {
    let of = |is_set| if is_set { RolesArgument::Leave } else { RolesArgument::Create };
    BoolValueParser::new().map(of)
}

/// The purpose of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PurposeArgument {
    /// A service that appends, reads and follows.
    Append,
    /// A service that reads and follows.
    Read,
    /// A relay.
    Relay,
    /// Administration: adopt, rebase, quarantine, and changes of recorded events.
    Admin,
}

impl From<PurposeArgument> for Purpose {
    fn from(argument: PurposeArgument) -> Self {
        match argument {
            PurposeArgument::Append => Self::Append,
            PurposeArgument::Read => Self::Read,
            PurposeArgument::Relay => Self::Relay,
            PurposeArgument::Admin => Self::Admin,
        }
    }
}

/// The subcommands.
#[derive(Debug, Clone, Subcommand)]
pub enum CliCommand {
    /// Publish the outbox until SIGTERM or SIGINT.
    #[command(after_help = examples::RUN)]
    Run,
    /// Create or upgrade the tables of the store. With nothing to do it needs no privilege that an
    /// appender does not have.
    Migrate {
        /// Create no roles: all objects stay with this login, and `grants` prints what other logins
        /// need. For servers where this login may not create roles.
        #[arg(long, action = ArgAction::SetTrue, value_parser = roles())]
        without_roles: RolesArgument,
    },
    /// Print the statements that give a role its rights, where Annals does not create the roles.
    /// The owner of the tables executes them.
    ///
    /// For example: annals-relay grants append shop | psql ...
    Grants {
        /// The purpose of the role.
        purpose: PurposeArgument,
        /// The role or login.
        role: String,
    },
    /// Print whether the deployment publishes, and how far: each shard and each category with its
    /// lag, each relay with its wait, and the transactions that have been open longest.
    ///
    /// Exits with 0 if each shard is published and each relay is ready, with 3 if not, with 1 after
    /// an error.
    #[command(after_help = examples::STATUS)]
    Status,
    /// List streams and categories that cannot be published, retry them, or skip their events.
    #[command(subcommand, after_help = examples::QUARANTINE)]
    Quarantine(QuarantineCommand),
    /// Change the delivery of the deployment. None of its relays may run.
    Deliver {
        /// `exactly-once` or `at-least-once`.
        #[arg(value_parser = ["exactly-once", "at-least-once"])]
        delivery: String,
    },
    /// Change the number of shards of the installation. Every event must be published, and no relay
    /// may run.
    Reshard {
        /// The new number of shards.
        shards: i32,
    },
    /// Resume after the database has lost a part of its history, or Kafka the checkpoints: list
    /// published events that are not in the store, and begin a new generation of the deployment
    /// behind the published events. None of its relays may run.
    Rebase {
        /// Only list the diverging events.
        #[arg(long = "dry-run", action = ArgAction::SetTrue, value_parser = execution())]
        execution: Execution,
        /// The reason; recorded. Not needed to list events.
        #[arg(long, required_unless_present = "execution")]
        reason: Option<String>,
    },
    /// Adopt the store in its present database cluster, after a dump and restore, a logical copy or
    /// an upgrade. Needs the role `annals_admin`.
    Adopt {
        /// The original goes on as well: this database becomes a store of its own, which never
        /// publishes to the topics of the original.
        #[arg(long)]
        copy: bool,
        /// The reason; recorded.
        #[arg(long)]
        reason: String,
    },
    /// Release the topics that a publication has claimed, so that another deployment or another
    /// store can claim them: when the publication has ended for good. None of its relays may run.
    ReleaseTopics {
        /// The id of another store; this one if not given.
        #[arg(long)]
        store: Option<Uuid>,
        /// The publication: the deployment, followed by an `@` and the prefix of its topics. The
        /// configured one if not given.
        #[arg(long)]
        publication: Option<String>,
        /// Only list the topics.
        #[arg(long = "dry-run", action = ArgAction::SetTrue, value_parser = execution())]
        execution: Execution,
        /// Why; recorded.
        #[arg(long)]
        reason: String,
    },
    /// Say what will not work, before the first start, and what to do about it: rights, settings
    /// and limits of the database, of Kafka with the topics, and of the registry. Changes nothing.
    ///
    /// Rights on topics that do not exist yet cannot be tried: the relay names a missing one when
    /// it starts. Exits with 0 without an error, with 3 if there is one, with 1 if the
    /// configuration is wrong.
    #[command(after_help = examples::CHECK)]
    Check {
        /// The age in seconds from which on an open or prepared transaction is a finding.
        #[arg(long, default_value_t = 300, value_name = "SECONDS")]
        transaction_seconds_max: u32,
    },
    /// Compare the topics of the broker with the declared ones, and create and correct them.
    #[command(subcommand, after_help = examples::TOPICS)]
    Topics(TopicsCommand),
    /// Prove that every committed event is in its topic, waits, is quarantined or was skipped, and
    /// that every record is of an event: compares the topics with the store by id and by the hash
    /// of the value.
    ///
    /// Finds lost, repeated, disordered, changed, misplaced and unknown records. It runs beside
    /// relays and changes nothing but its own proof (`relay_audits`), which needs the role
    /// annals_relay; annals_read suffices for the rest.
    ///
    /// Exits with 0 without a fault, with 3 if there is one, with 1 after an error.
    #[command(after_help = examples::AUDIT)]
    Audit(AuditArguments),
    /// Publish events again: to their own topics, after a topic was deleted or lost records, or to
    /// a side topic. In the order of their streams; each record has the header `ce_replayed`.
    ///
    /// To the own topics it publishes exactly the events that the deployment has published, by its
    /// checkpoints and its quarantine; relays continue behind them, without a gap and without a
    /// repetition. Stop the relays meanwhile, or keep the category in quarantine. Each event is
    /// replayed once: after a crash, continue with --resume. One replay of a deployment at a time.
    ///
    /// Needs the roles annals_admin and annals_relay. Exits with 0 when everything is replayed,
    /// with 1 after an error.
    #[command(after_help = examples::REPLAY)]
    Replay(ReplayArguments),
    /// Let go of a deployment without relays: its checkpoints keep every partition of the
    /// outbox, and its quarantine its events. `status` names who keeps what.
    ///
    /// Refused while one of its relays runs. A relay of this name does not start again, until a
    /// rebase. Recorded in `relay_actions`; needs the role annals_admin.
    Forget {
        /// The deployment, followed by an `@` and the prefix of its topics if it has one, as
        /// `status` prints it.
        deployment: String,
        /// Only print its checkpoints and quarantine.
        #[arg(long = "dry-run", action = ArgAction::SetTrue, value_parser = execution())]
        execution: Execution,
        /// Why; recorded.
        #[arg(long)]
        reason: String,
    },
    /// Check, register, compare and export the schemas of events, for build pipelines and for
    /// people.
    ///
    /// Files are FOLDER/CATEGORY/NAME.avsc; versions of one type are NAME.v1.avsc, NAME.v2.avsc.
    /// Exits with 0 without a finding, with 3 if there is one, with 1 after an error.
    #[command(subcommand, after_help = examples::SCHEMAS)]
    Schemas(SchemasCommand),
    /// Print the completions of a shell, for example: annals-relay completions bash >
    /// /etc/bash_completion.d/annals-relay. Needs no configuration.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write man pages, one for each subcommand. Needs no configuration.
    Man {
        /// The directory; it is created if it is missing.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Check the configuration, without a connection. Exits with 0 if it is right, with 1 if not:
    /// all problems are printed, each with its file and line and the nearest right key.
    CheckConfig,
    /// Print each key of the configuration with its value and the place that it comes from: the
    /// file with its line, an environment variable, or `default`. Secrets are not shown.
    Config,
}

impl Arguments {
    /// Reads the configuration: the file, if one is given, overridden by the environment.
    ///
    /// # Errors
    /// [`ConfigError`] with every key that is unknown or wrong.
    pub fn read_config(&self) -> Result<(Config, Effective), ConfigError> {
        // A variable that is not UTF-8 is none of the relay's.
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Config::read(self.config.as_deref(), variables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_only_listed_with_the_flag() {
        let execution = |flags: &[&str]| {
            let arguments = ["annals-relay", "rebase", "--reason", "a test"];
            let parsed = Arguments::try_parse_from(arguments.iter().chain(flags)).unwrap();
            let CliCommand::Rebase { execution, .. } = parsed.command else { panic!("{parsed:?}") };
            execution
        };
        assert_eq!(execution(&["--dry-run"]), Execution::DryRun);
        assert_eq!(execution(&[]), Execution::Apply);
    }

    #[test]
    fn a_rebase_needs_a_reason_unless_it_only_lists_events() {
        let is_possible = |flags: &[&str]| {
            Arguments::try_parse_from(["annals-relay", "rebase"].iter().chain(flags)).is_ok()
        };
        assert!(is_possible(&["--dry-run"]) && is_possible(&["--reason", "a test"]));
        assert!(!is_possible(&[]));
    }
}
