//! The addresses of the real components.

use std::env;
use std::sync::OnceLock;

const DATABASE_URL: &str = "ANNALS_DATABASE_URL";
const KAFKA: &str = "ANNALS_KAFKA";
const REGISTRY_URL: &str = "ANNALS_REGISTRY_URL";

/// The PostgreSQL, Kafka and schema registry that the tests use.
#[derive(Debug, Clone)]
pub struct Environment {
    /// `postgres://user:password@host:port/database`; the user may create databases.
    pub database_url: String,
    /// `host:port`, several separated by commas.
    pub kafka: String,
    /// The base of the Confluent API.
    pub registry_url: String,
}

impl Environment {
    /// Reads `ANNALS_DATABASE_URL`, `ANNALS_KAFKA` and `ANNALS_REGISTRY_URL`, once per process.
    ///
    /// # Panics
    /// If one is not set, with the commands that set them.
    #[must_use]
    pub fn get() -> &'static Self {
        static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
        ENVIRONMENT.get_or_init(|| Self {
            database_url: variable(DATABASE_URL),
            kafka: variable(KAFKA),
            registry_url: variable(REGISTRY_URL),
        })
    }

    /// The URL of another database of the same server.
    #[must_use]
    pub fn url_of_database(&self, name: &str) -> String {
        let (address, options) = match self.database_url.split_once('?') {
            Some((address, options)) => (address, format!("?{options}")),
            None => (self.database_url.as_str(), String::new()),
        };
        let authority = address.find("://").map_or(0, |place| place + 3);
        let server =
            address[authority..].find('/').map_or(address, |end| &address[..authority + end]);
        format!("{server}/{name}{options}")
    }
}

/// Whether a test's databases, topics and logs are kept: after a panic, or when `ANNALS_TEST_KEEP`
/// is set.
pub(crate) fn is_kept() -> bool {
    std::thread::panicking() || env::var_os("ANNALS_TEST_KEEP").is_some()
}

/// How often a test tries its faults: `usual` times in `make test`, and in `make campaigns`, which
/// sets `ANNALS_CAMPAIGN`, `campaign` times.
#[must_use]
pub fn repetitions(usual: usize, campaign: usize) -> usize {
    if env::var_os("ANNALS_CAMPAIGN").is_some() { campaign } else { usual }
}

/// Whether the server is reached through a pooler in transaction mode.
pub(crate) fn is_pooled() -> bool {
    env::var_os("ANNALS_TEST_WITHOUT_NOTIFICATIONS").is_some()
}

fn variable(name: &str) -> String {
    match env::var(name) {
        Ok(value) if !value.is_empty() => value,
        Ok(_) | Err(_) => {
            panic!(
                "{name} is not set: run `make test`, or `make up` and `eval \"$(ops/dev/dev env)\"`"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(database_url: &str) -> Environment {
        let database_url = database_url.to_owned();
        Environment { database_url, kafka: String::new(), registry_url: String::new() }
    }

    #[test]
    fn another_database_keeps_server_user_and_options() {
        let url = environment("postgres://a:b@host:1/annals?sslmode=disable").url_of_database("x");
        assert_eq!(url, "postgres://a:b@host:1/x?sslmode=disable");
        assert_eq!(environment("postgres://host").url_of_database("x"), "postgres://host/x");
    }
}
