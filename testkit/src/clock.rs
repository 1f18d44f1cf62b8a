//! A clock that tests can set: that of a private PostgreSQL.

use crate::must::Must;
use crate::stack::PrivateStack;

impl PrivateStack {
    /// From its next start on, the clock of its PostgreSQL can be [set](Self::set_clock).
    ///
    /// # Panics
    /// If this machine has no C compiler.
    pub async fn give_clock(&self) {
        self.preload("src/clock.c").await;
    }

    /// Sets the clock of its PostgreSQL so many seconds ahead of this machine's, or behind it.
    ///
    /// # Panics
    /// If it cannot be set.
    pub fn set_clock(&self, seconds_ahead: i64) {
        std::fs::write(self.beside_library("seconds"), seconds_ahead.to_string())
            .must("set a clock");
    }
}
