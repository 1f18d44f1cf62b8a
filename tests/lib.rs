//! The promises of Annals, tested on the real components; see `main.rs`.
