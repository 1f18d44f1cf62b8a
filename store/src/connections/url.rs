//! The URL of a database, and the URLs of libpq that sqlx does not support.

use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// A URL that the store cannot use. It does not show the URL, which can contain a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseUrlError {
    /// It is not a URL of PostgreSQL.
    #[error(
        "the database URL is no URL of PostgreSQL: postgres://user:password@host:5432/database, \
         with %-escapes for other characters in user and password"
    )]
    NotAUrl,
    /// It names several hosts.
    #[error(
        "the database URL names several hosts, and sqlx connects to one: give one name that leads \
         to the primary, such as the writer endpoint of a managed server, a DNS name that moves with \
         the primary, HAProxy or PgBouncer"
    )]
    SeveralHosts,
    /// It has a parameter that libpq has and sqlx does not, and whose absence would be a surprise.
    #[error(
        "the database URL has the parameter {name}={value}, which sqlx does not support: {help}"
    )]
    Unsupported {
        /// The parameter.
        name: String,
        /// Its value.
        value: String,
        /// The correction.
        help: &'static str,
    },
    /// It names a file that cannot be read.
    #[error("the database URL has {name}={path}, which cannot be read")]
    File {
        /// The parameter.
        name: String,
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A parameter has an illegal value.
    #[error("the database URL is not usable")]
    Illegal(#[source] sqlx::Error),
}

/// The connection options of a URL (`postgres://user:password@host/database?options`), as the store
/// uses them.
///
/// The application name is that of the URL, of `PGAPPNAME`, or else the given one. Nothing is sent
/// at the start of a session that poolers such as PgBouncer refuse, unless the URL has `options`.
///
/// # Errors
/// [`DatabaseUrlError`].
pub fn connect_options(
    url: &str,
    application_name: &str,
) -> Result<PgConnectOptions, DatabaseUrlError> {
    let (authority, query) = parts(url).ok_or(DatabaseUrlError::NotAUrl)?;
    let host = authority.rsplit('@').next().unwrap_or_default();
    if is_list(host) {
        return Err(DatabaseUrlError::SeveralHosts);
    }
    let mut kept = Vec::new();
    let mut address = None;
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        address = if name == "hostaddr" { Some(value) } else { address };
        if is_used(name, value)? {
            check_file(name, value)?;
            kept.push(parameter);
        }
    }
    let base = url.split('?').next().unwrap_or(url);
    let separator = if kept.is_empty() { "" } else { "?" };
    let url = format!("{base}{separator}{}", kept.join("&"));
    let options: PgConnectOptions = url.parse().map_err(DatabaseUrlError::Illegal)?;
    // Without a host in the URL, that of the environment.
    if is_list(options.get_host()) {
        return Err(DatabaseUrlError::SeveralHosts);
    }
    if let Some(address) = address {
        check_address(address, options.get_ssl_mode())?;
    }
    let options = options.extra_float_digits(None);
    Ok(match options.get_application_name() {
        Some(_) => options,
        None => options.application_name(application_name),
    })
}

/// Whether an error at the start of a session says that its options are refused, as poolers do.
#[must_use]
pub fn refuses_session_options(error: &sqlx::Error) -> bool {
    let Some(reported) = error.as_database_error() else { return false };
    refuses_options(reported.code().unwrap_or_default().as_ref(), reported.message())
}

fn refuses_options(code: &str, message: &str) -> bool {
    // 08P01: protocol violation, of poolers. 0A000: not supported. Neon has passed the words of its
    // PgBouncer on with other codes.
    message.starts_with("unsupported startup parameter")
        || ["08P01", "0A000"].contains(&code)
            && ["option", "startup", "parameter"].iter().any(|word| message.contains(word))
}

/// Checks that the certificate of the server is not to be for its address: libpq verifies the name
/// in the URL, and sqlx replaces that by the address.
fn check_address(address: &str, mode: PgSslMode) -> Result<(), DatabaseUrlError> {
    if !matches!(mode, PgSslMode::VerifyFull) {
        return Ok(());
    }
    let help = "remove it, and let the host's name lead to the address";
    let (name, value) = ("hostaddr".to_owned(), address.to_owned());
    Err(DatabaseUrlError::Unsupported { name, value, help })
}

/// Whether a text has several elements, with a comma or its escape between them.
fn is_list(text: &str) -> bool {
    text.contains(',') || text.to_ascii_lowercase().contains("%2c")
}

/// User, password and host, and the parameters.
fn parts(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"))?;
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    Some((before.split('/').next().unwrap_or(before), query))
}

/// Checks that a file with a certificate or a key can be read: sqlx's own error does not name it. A
/// value that is PEM itself, or has escapes, is sqlx's to read.
fn check_file(name: &str, value: &str) -> Result<(), DatabaseUrlError> {
    const FILES: [&str; 7] =
        ["sslrootcert", "ssl-root-cert", "ssl-ca", "sslcert", "ssl-cert", "sslkey", "ssl-key"];
    if !FILES.contains(&name) || value.contains(['%', '+']) || value.starts_with("-----BEGIN") {
        return Ok(());
    }
    std::fs::File::open(value).map(drop).map_err(|source| {
        let (name, path) = (name.to_owned(), value.to_owned());
        DatabaseUrlError::File { name, path, source }
    })
}

/// Parameters that sqlx has.
const USED: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];
/// Parameters without effect on a connection that is made: timeouts and keepalives are the store's.
const WITHOUT_EFFECT: [&str; 19] = [
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "client_encoding",
    "gssencmode",
    "gssdelegation",
    "channel_binding",
    "sslnegotiation",
    "sslcompression",
    "sslsni",
    "fallback_application_name",
    "load_balance_hosts",
    "pgbouncer",
    "replication",
    "krbsrvname",
    "gsslib",
];
/// Parameters of libpq that protect the connection, or whose values can be secret.
const REFUSED: [&str; 13] = [
    "service",
    "servicefile",
    "passfile",
    "requirepeer",
    "sslcrl",
    "sslcrldir",
    "sslpassword",
    "sslcertmode",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "require_auth",
    "scram_client_key",
    "scram_server_key",
];

/// Whether sqlx has the parameter. Those that change nothing for the store are left out, and so are
/// unknown ones: sqlx would log them with their values, which can be secret.
fn is_used(name: &str, value: &str) -> Result<bool, DatabaseUrlError> {
    let unsupported = |value: &str, help| {
        let (name, value) = (name.to_owned(), value.to_owned());
        Err(DatabaseUrlError::Unsupported { name, value, help })
    };
    match name {
        // One host: an append to a standby fails, and is retried after the promotion.
        "target_session_attrs" if ["any", "read-write", "primary"].contains(&value) => Ok(false),
        "target_session_attrs" => unsupported(value, "name the host of a standby"),
        "host" | "hostaddr" | "port" if is_list(value) => Err(DatabaseUrlError::SeveralHosts),
        "gssencmode" if value == "require" => {
            unsupported(value, "encrypt with sslmode=verify-full")
        }
        "channel_binding" if value == "require" => {
            unsupported(value, "remove it, and verify the server with sslmode=verify-full")
        }
        "sslnegotiation" if value == "direct" => unsupported(value, "remove it"),
        _ if REFUSED.contains(&name) || name.starts_with("oauth_") => {
            unsupported("...", "remove it")
        }
        _ if WITHOUT_EFFECT.contains(&name) => Ok(false),
        _ if USED.contains(&name) => Ok(true),
        _ if name.starts_with("options[") || name.starts_with("options%5") => Ok(true),
        _ => {
            tracing::warn!(parameter = name, "a parameter of the database URL has no effect");
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        connect_options(url, "annals").unwrap_err().to_string()
    }

    #[test]
    fn the_names_of_an_application_and_its_options_are_kept() {
        let url = "postgres://u:p@h/d?application_name=shop&options=-c%20work_mem%3D8MB";
        let options = connect_options(url, "annals").unwrap();
        assert_eq!(options.get_application_name(), Some("shop"));
        assert_eq!(options.get_options(), Some("-c work_mem=8MB"));
        let default = connect_options("postgresql://u:p@h/d", "annals").unwrap();
        assert_eq!(default.get_application_name(), Some("annals"));
    }

    #[test]
    fn a_socket_can_be_named_in_both_ways() {
        for url in ["postgres://u@%2Frun%2Fpg/d", "postgres://u@localhost/d?host=/run/pg"] {
            let options = connect_options(url, "annals").unwrap();
            let socket = options.get_socket().map(|path| path.display().to_string());
            assert_eq!(socket.as_deref(), Some("/run/pg"), "{url}");
        }
    }

    #[test]
    fn what_sqlx_lacks_is_named() {
        for url in [
            "postgres://u:p@one,two/d",
            "postgres://u:p@one:5432,two:5433/d?target_session_attrs=read-write",
            "postgres://u:p@/d?host=one,two",
            "postgres://u:p@/d?host=one%2ctwo",
            "postgres://u:p@one%2Ctwo/d",
            "postgres://u:p@one/d?port=5432,5433",
        ] {
            assert!(refused(url).contains("several hosts"), "{url}");
        }
        assert!(refused("host=one dbname=d").contains("no URL of PostgreSQL"));
        let standby = "postgres://u:p@one/d?target_session_attrs=standby";
        assert!(refused(standby).contains("target_session_attrs=standby"));
        let address = "postgres://u:p@db.example/d?hostaddr=10.0.0.1";
        assert!(connect_options(address, "annals").is_ok());
        for verified in ["sslmode=verify-full", "ssl-mode=verify-full"] {
            let said = refused(&format!("{address}&{verified}"));
            assert!(said.contains("hostaddr=10.0.0.1"), "{said}");
        }
        for name in ["ssl_min_protocol_version", "sslcrldir", "oauth_client_secret"] {
            let said = refused(&format!("postgres://u:p@one/d?{name}=hunter2"));
            assert!(said.contains(name) && !said.contains("hunter2"), "{said}");
        }
        let no_file = refused("postgres://u:p@one/d?ssl-ca=/nowhere/ca.pem");
        assert!(no_file.contains("ssl-ca=/nowhere/ca.pem"), "{no_file}");
    }

    #[test]
    fn poolers_that_refuse_options_are_recognised() {
        for (code, message) in [
            // PgBouncer (tests/pooled.rs).
            ("08P01", "unsupported startup parameter in options: enable_seqscan"),
            // RDS Proxy: github.com/psycopg/psycopg2/issues/1577, mithrandyr/SimplySql/issues/66.
            (
                "0A000",
                "Feature not supported: RDS Proxy currently doesn\u{2019}t support command-line options.",
            ),
            (
                "0A000",
                "Feature not supported: RDS Proxy currently doesn\u{2019}t support the option jit.",
            ),
            // Neon: proxy/src/compute/mod.rs of github.com/neondatabase/neon, whose code is XX000.
            (
                "XX000",
                "unsupported startup parameter in options: jit. Please use unpooled connection or \
                 remove this parameter from the startup package.",
            ),
        ] {
            assert!(refuses_options(code, message), "{code} {message}");
        }
        // Supavisor, which ignores options, and PostgreSQL refuse for other reasons.
        for (code, message) in [
            ("XX000", "Max client connections reached"),
            ("28P01", "password authentication failed for user \"option\""),
            ("42704", "unrecognized configuration parameter \"shop\""),
        ] {
            assert!(!refuses_options(code, message), "{code} {message}");
        }
    }

    #[test]
    fn parameters_of_providers_that_change_nothing_are_accepted() {
        let url = "postgres://u:p@h/d?sslmode=require&channel_binding=prefer&target_session_attrs=\
                   read-write&connect_timeout=10&pgbouncer=true&pool_timeout=5";
        assert_eq!(connect_options(url, "annals").unwrap().get_database(), Some("d"));
    }
}
