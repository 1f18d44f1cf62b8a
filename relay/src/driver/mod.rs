//! The driver: executes the machine's actions with the stages, and reports their results to it. The
//! one room that uses all others, the subcommands excepted.

mod backoff;
pub(crate) mod batch_shrinking;
pub(crate) mod comparison;
mod event_loop;
mod evidence;
mod execute;
mod generations;
mod housekeeping;
mod listener;
mod on_report;
mod outage;
mod poll_interval;
mod quarantine_progress;
mod resume;
mod run;
pub(crate) mod strangers;
mod survey;
pub(crate) mod topic_claims;
mod watchdog;

pub(crate) use generations::known_generation;
pub(crate) use resume::checkpoints;
pub use run::run;
