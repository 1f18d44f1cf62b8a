//! SIGHUP: the configuration is read again, and a running relay takes the keys that can change.

use sqlx::PgPool;
use tokio::signal::unix::Signal;
use tokio::sync::watch;

use crate::cli::arguments::Arguments;
use crate::cli::connection::options_of;
use crate::cli::log::LogHandle;
use crate::config::{Config, Effective, RELOADED};
use crate::report::in_full;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The sources of a reload, and the parts that it changes.
pub(super) struct Reloader {
    pub(super) arguments: Arguments,
    pub(super) effective: Effective,
    pub(super) log: LogHandle,
    pub(super) pool: PgPool,
    pub(super) configs: watch::Sender<Config>,
}

impl Reloader {
    /// Reloads at each signal, for as long as the process runs.
    pub(super) async fn run(mut self, mut signal: Signal) {
        while signal.recv().await.is_some() {
            if let Err(error) = self.reload() {
                tracing::error!(
                    event = "reload_failed",
                    error = in_full(&*error),
                    "the configuration stays as it is"
                );
            }
        }
    }

    fn reload(&mut self) -> Result {
        let (config, effective) = self.arguments.read_config()?;
        let changed = self.effective.changed(&effective);
        let (reloaded, rest): (Vec<&str>, Vec<&str>) =
            changed.into_iter().partition(|key| RELOADED.contains(key));
        self.log.filter(&config.log.level)?;
        if reloaded.contains(&"database.password") {
            self.change_password(&config)?;
        }
        tracing::info!(
            event = "reloaded",
            changed = reloaded.join(","),
            needs_a_restart = rest.join(","),
            "the configuration is read again"
        );
        // Other keys stay those of the start, as long as it runs.
        self.effective = self.effective.with(&effective, &RELOADED);
        self.configs.send_replace(config);
        Ok(())
    }

    /// Later connections use it.
    fn change_password(&self, config: &Config) -> Result {
        let new = options_of(config)?;
        let password = config.database.password.as_ref();
        let present = (*self.pool.connect_options()).clone();
        self.pool.set_connect_options(match password {
            Some(password) => present.password(password.expose()),
            None => new,
        });
        Ok(())
    }
}
