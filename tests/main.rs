//! The promises of Annals, tested on the real components: PostgreSQL, Kafka, a schema registry, and
//! the relay as a process of its own. One module per promise; each test has its own database and
//! topics.
//!
//! `make test` starts the components. To run the tests alone: `make up`, `eval "$(ops/dev/dev
//! env)"`, `cargo build -p annals-relay`, `cargo test -p annals-tests`.
//!
//! A failing test prints its database, its topics and the path of the relay's log, and the
//! `ANNALS_TEST_SEED` that repeats its random choices. `ANNALS_TEST_KEEP=1` keeps all of it after
//! success, too.

#[cfg(test)]
mod at_least_once;
#[cfg(test)]
mod atomic;
#[cfg(test)]
mod audit_log;
#[cfg(test)]
mod audited;
#[cfg(test)]
mod checked_before_commit;
#[cfg(test)]
mod checked_before_start;
#[cfg(test)]
mod checker_catches;
#[cfg(test)]
mod claimed_topics;
#[cfg(test)]
mod coalesced;
#[cfg(test)]
mod comes_back;
#[cfg(test)]
mod commands;
#[cfg(test)]
#[path = "../consumer/tests/promises/logs.rs"]
#[expect(dead_code, reason = "the tests of the consumer use all of it")]
mod consumer_logs;
#[cfg(test)]
mod crashed;
#[cfg(test)]
mod deciding;
#[cfg(test)]
mod deciding_on_tags;
#[cfg(test)]
mod declared_topics;
#[cfg(test)]
mod documented;
#[cfg(test)]
mod dropped_futures;
#[cfg(test)]
mod dropped_partitions;
#[cfg(test)]
mod durable;
#[cfg(test)]
mod encrypted;
#[cfg(test)]
mod ended_sessions;
#[cfg(test)]
mod erasing;
#[cfg(test)]
mod evolving;
#[cfg(test)]
mod exactly_once;
#[cfg(test)]
mod following;
#[cfg(test)]
mod forgotten;
#[cfg(test)]
mod forked;
#[cfg(test)]
mod garbled_registry;
#[cfg(test)]
mod given_when_then;
#[cfg(test)]
mod health;
#[cfg(test)]
mod isolation;
#[cfg(test)]
mod java_registry;
#[cfg(test)]
mod kerberos;
#[cfg(test)]
mod key_server;
#[cfg(test)]
mod kms;
#[cfg(test)]
mod large_transactions;
#[cfg(test)]
mod logged;
#[cfg(test)]
mod lost_generations;
mod lost_sessions;
mod malformed;
#[cfg(test)]
mod managed_servers;
#[cfg(test)]
mod many_categories;
#[cfg(test)]
mod migrating;
#[cfg(test)]
mod moved;
#[cfg(test)]
mod never_published;
#[cfg(test)]
mod no_answer;
mod nothing_is_lost;
#[cfg(test)]
mod one_bad_topic;
#[cfg(test)]
mod one_handler;
#[cfg(test)]
mod one_instance;
#[cfg(test)]
mod one_round_trip;
#[cfg(test)]
mod one_winner;
#[cfg(test)]
mod open_transactions;
#[cfg(test)]
mod other_registries;
#[cfg(test)]
mod out_of_reach;
#[cfg(test)]
mod poisoned_connections;
#[cfg(test)]
mod pooled;
#[cfg(test)]
mod projections;
#[cfg(test)]
mod prometheus;
#[cfg(test)]
mod provider_limits;
#[cfg(test)]
mod quarantine;
#[cfg(test)]
mod read_only;
#[cfg(test)]
mod read_replicas;
#[cfg(test)]
mod reading;
#[cfg(test)]
mod rebased;
#[cfg(test)]
mod reloaded;
#[cfg(test)]
mod removed_events;
#[cfg(test)]
mod replayed;
#[cfg(test)]
mod replicas;
#[cfg(test)]
mod resharding;
#[cfg(test)]
mod restored;
#[cfg(test)]
mod retry_is_safe;
#[cfg(test)]
mod revoked;
#[cfg(test)]
mod roles;
#[cfg(test)]
mod rolling_restart;
#[cfg(test)]
mod same_contract;
#[cfg(test)]
mod schema_commands;
mod schema_versions;
#[cfg(test)]
mod secured_kafka;
#[cfg(test)]
mod secured_registry;
#[cfg(test)]
mod sequential_model;
mod servers_that_stop;
mod session_settings;
#[cfg(test)]
mod slow_answers;
#[cfg(test)]
mod snapshots;
#[cfg(test)]
mod status;
#[cfg(test)]
mod stream_life;
#[cfg(test)]
mod survives_crashes;
#[cfg(test)]
mod tagged;
#[cfg(test)]
mod telemetry;
#[cfg(test)]
mod ten_processes;
#[cfg(test)]
mod too_few_replicas;
#[cfg(test)]
mod topic_contract;
#[cfg(test)]
mod traced;
#[cfg(test)]
mod unknown_outcomes;
#[cfg(test)]
mod unreadable;
#[cfg(test)]
mod vault;
#[cfg(test)]
mod watchdog;
