//! Where the components are.

use std::env;

use anyhow::{Result, bail};

/// PostgreSQL, Kafka and the schema registry, as the environment names them.
#[derive(Clone)]
pub(crate) struct Environment {
    /// `postgres://user:password@host:port/database`; the user may create databases.
    pub(crate) database_url: String,
    /// `host:port`, several separated by commas.
    pub(crate) kafka: String,
    /// The base of the Confluent API.
    pub(crate) registry_url: String,
}

impl Environment {
    const VARIABLES: [&'static str; 3] =
        ["ANNALS_DATABASE_URL", "ANNALS_KAFKA", "ANNALS_REGISTRY_URL"];

    /// Reads the variables; an error names all that are missing.
    pub(crate) fn read() -> Result<Self> {
        let values = Self::VARIABLES.map(|name| env::var(name).unwrap_or_default());
        let missing = Self::VARIABLES.iter().zip(&values).filter(|(_, value)| value.is_empty());
        let missing: Vec<&str> = missing.map(|(name, _)| *name).collect();
        if !missing.is_empty() {
            bail!(
                "not set: {}. They say where the components are: run `make demo`, which starts them and sets these, \
                 or `ops/dev/dev up` and `eval \"$(ops/dev/dev env)\"`, or set them to components that you have",
                missing.join(", ")
            );
        }
        let [database_url, kafka, registry_url] = values;
        Ok(Self { database_url, kafka, registry_url })
    }

    /// The URL of another database of the same server.
    pub(crate) fn url_of_database(&self, name: &str) -> String {
        let (address, options) = match self.database_url.split_once('?') {
            Some((address, options)) => (address, format!("?{options}")),
            None => (self.database_url.as_str(), String::new()),
        };
        let authority = address.find("://").map_or(0, |place| place + 3);
        let path = address.get(authority..).and_then(|rest| rest.find('/'));
        let server = path.and_then(|path| address.get(..authority + path)).unwrap_or(address);
        format!("{server}/{name}{options}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_database_keeps_server_user_and_options() {
        for (url, expected) in [
            (
                "postgres://a:b@host:1/annals?sslmode=disable",
                "postgres://a:b@host:1/x?sslmode=disable",
            ),
            ("postgres://host", "postgres://host/x"),
            ("postgres://host/", "postgres://host/x"),
            ("postgres:///annals?host=/run/postgresql", "postgres:///x?host=/run/postgresql"),
        ] {
            let database_url = url.to_owned();
            let environment =
                Environment { database_url, kafka: String::new(), registry_url: String::new() };
            assert_eq!(environment.url_of_database("x"), expected);
        }
    }
}
