//! What annals-schemas promises.

#![expect(clippy::expect_used, reason = "a helper that cannot go on fails its test")]

#[macro_use]
mod planted;
mod any;
mod declared;
mod definitions;
mod encoding;
mod evolution;
mod garbage;
mod json;
mod logical_types;
mod meaning;
mod misfits_in_enums;
mod misfits_in_fields;
mod misfits_in_values;
mod personal;
mod timestamps;
mod types_that_fit;
