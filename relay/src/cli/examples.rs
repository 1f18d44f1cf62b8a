//! The examples at the end of the help of each main command.

pub(super) const RUN: &str = "\
Examples:
  annals-relay run --config relay.toml
  ANNALS_RELAY__LOG__FORMAT=json annals-relay run --config relay.toml";

pub(super) const STATUS: &str = "\
Examples:
  annals-relay status
  annals-relay status --json";

pub(super) const QUARANTINE: &str = "\
Examples:
  annals-relay quarantine list
  annals-relay quarantine show order-42
  annals-relay quarantine retry order-42
  annals-relay quarantine skip order-42 --position 1204 --reason \"a test event\"";

pub(super) const CHECK: &str = "\
Examples:
  annals-relay check --config relay.toml
  annals-relay check --transaction-seconds-max 60 --json";

pub(super) const TOPICS: &str = "\
Examples:
  annals-relay topics plan
  annals-relay topics apply --json";

pub(super) const AUDIT: &str = "\
Examples:
  annals-relay audit --list unpublished
  annals-relay audit --incremental --json
  annals-relay audit --repair --reason \"lost by a retention time\"";

pub(super) const REPLAY: &str = "\
Examples:
  annals-relay replay --category order --dry-run
  annals-relay replay --category order --reason \"the topic was deleted\"
  annals-relay replay --all --since 2026-11-01T00:00:00Z --to order-copy --reason \"a test\"
  annals-relay replay --resume";

pub(super) const SCHEMAS: &str = "\
Examples:
  annals-relay schemas check schemas/avro --offline
  annals-relay schemas register schemas/avro
  annals-relay schemas export --flink order";
