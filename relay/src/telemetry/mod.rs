//! The telemetry of the relay: its vital signs, its metrics, and the HTTP server that serves
//! both.

mod answers;
pub(crate) mod clients;
mod maker;
pub(crate) mod metrics;
mod publishing;
mod server;
pub(crate) mod spans;
pub(crate) mod survey;
mod vitals;

pub use server::ServerError;
pub(crate) use server::{Access, Served, serve};
pub(crate) use vitals::{Moment, Phase, Vitals, Waiting};
