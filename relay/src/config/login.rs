//! The registry's URL, login and certificates.

use percent_encoding::percent_decode_str;

use crate::config::check::Checker;
use crate::config::defaults::RawRegistry;
use crate::config::settings::{Login, Registry, RegistryTls, Secret};

impl Checker {
    pub(super) fn registry(&mut self, raw: RawRegistry) -> Registry {
        let url = self.needed("registry.url", raw.url, "ANNALS_REGISTRY_URL");
        if !url.is_empty() && !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme))
        {
            self.problem("registry.url", "must begin with http:// or https://".to_owned());
        }
        let (url, in_url) = self.without_login(url);
        let login = match (raw.username.is_empty(), raw.password.is_empty(), raw.token.is_empty()) {
            (true, true, true) => in_url.unwrap_or(Login::None),
            (true, true, false) if in_url.is_none() => Login::Token(Secret::new(raw.token)),
            (false, _, true) if in_url.is_none() => Login::Basic {
                username: Secret::new(raw.username),
                password: Secret::new(raw.password),
            },
            (_, _, _) => {
                self.problem(
                    "registry.username",
                    "and password, or token, or both in registry.url: one of these ways".to_owned(),
                );
                Login::None
            }
        };
        let authority = raw.tls_authority;
        let tls = RegistryTls {
            client: self.tls_files("registry", [&raw.tls_certificate, &raw.tls_key]),
            authority: (!authority.is_empty()).then(|| authority.into()),
        };
        let timeout = self.duration("registry.timeout_ms", raw.timeout_ms, 100..=60_000);
        let url = url.trim_end_matches('/').to_owned();
        Registry { url, auto_register: raw.auto_register, login, tls, timeout }
    }

    /// Splits a registry's URL into the URL and its login, so that no log and no error shows the
    /// login.
    fn without_login(&mut self, url: String) -> (String, Option<Login>) {
        let Some((scheme, rest)) = url.split_once("://") else { return (url, None) };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if path.contains('@') {
            let what = "has an @ behind its host: in a user or a password, write / as %2F, ? as %3F, # as %23 and @ as %40";
            self.problem("registry.url", what.to_owned());
            return (format!("{scheme}://"), None);
        }
        if path.contains(['?', '#']) {
            // They would appear in errors, and a path is added behind them.
            let what = "has parameters: give a login as registry.username and password, or token";
            self.problem("registry.url", what.to_owned());
            return (format!("{scheme}://"), None);
        }
        let Some((login, host)) = authority.rsplit_once('@') else { return (url, None) };
        let (username, password) = login.split_once(':').unwrap_or((login, ""));
        let [username, password] =
            [username, password].map(|text| percent_decode_str(text).decode_utf8());
        let (Ok(username), Ok(password)) = (username, password) else {
            self.problem("registry.url", "has a user or a password that is not UTF-8".to_owned());
            return (format!("{scheme}://{host}{path}"), None);
        };
        let (username, password) = (Secret::new(username), Secret::new(password));
        (format!("{scheme}://{host}{path}"), Some(Login::Basic { username, password }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ConfigError};

    const NEEDED: &str = "database.url = 'postgres://h/d'\nkafka.bootstrap_servers = 'k:1'\nregistry.url = 'http://r'\n";

    fn problems(text: &str) -> Vec<String> {
        match Config::parse(&format!("{NEEDED}{text}")) {
            Err(ConfigError::Wrong(problems)) => problems.iter().map(ToString::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_way_to_log_in_is_enough() {
        let said = problems("registry.username = 'u'\nregistry.token = 't'");
        assert_eq!(
            said,
            [
                "the configuration:4: registry.username and password, or token, or both in registry.url: one of these ways"
            ]
        );
    }

    #[test]
    fn a_login_in_the_registrys_url_is_used_and_does_not_stay_there() {
        let of = |url: &str| {
            Config::parse(&NEEDED.replace("http://r", url)).map(|config| config.registry)
        };
        let registry = of("https://ann:hunter%2f2@r:8081/apis/v7/").unwrap();
        assert_eq!(registry.url, "https://r:8081/apis/v7");
        assert!(!format!("{registry:?}").contains("hunter"), "{registry:?}");
        assert!(!format!("{registry:?}").contains("ann"), "{registry:?}");
        let Login::Basic { username, password } = registry.login else { panic!("no login") };
        assert_eq!((username.expose(), password.expose()), ("ann", "hunter/2"));
        let Login::Basic { username, password } = of("http://key:p@ss@r").unwrap().login else {
            panic!("no login")
        };
        assert_eq!((username.expose(), password.expose()), ("key", "p@ss"));
        assert!(matches!(of("http://r").unwrap().login, Login::None));
    }

    #[test]
    fn a_login_that_cannot_be_told_from_the_url_is_refused_without_being_shown() {
        for url in ["http://ann:hunter/2@r", "http://ann:hunter?2@r/", "http://ann:hunter#2@r"] {
            let text = NEEDED.replace("http://r", url);
            let said = Config::parse(&text).unwrap_err().to_string();
            assert!(said.contains("registry.url has an @ behind its host"), "{said}");
            assert!(!said.contains("hunter"), "{said}");
        }
        let said = Config::parse(&NEEDED.replace("http://r", "http://r/p?key=hunter2"));
        let said = said.unwrap_err().to_string();
        assert!(said.contains("registry.url has parameters") && !said.contains("hunter"), "{said}");
        let said = problems("registry.token = 't'\nregistry.username = 'u'");
        assert_eq!(said.len(), 1, "{said:?}");
        let twice = NEEDED.replace("http://r", "http://ann:hunter2@r");
        let said = Config::parse(&format!("{twice}registry.token = 't'")).unwrap_err().to_string();
        assert!(said.contains("one of these ways") && !said.contains("hunter2"), "{said}");
    }
}
