//! The HTTP server's address, and who may reach it; the collector of traces.

use std::net::SocketAddr;

use crate::config::check::Checker;
use crate::config::defaults::{RawHttp, RawTrace};
use crate::config::settings::{Http, Secret, TlsFiles, Trace};

impl Checker {
    pub(super) fn http(&mut self, raw: RawHttp) -> Http {
        let listen = match (raw.listen.as_str(), raw.listen.parse::<SocketAddr>()) {
            ("off", _) => None,
            (_, Ok(address)) => Some(address),
            (other, Err(_)) => {
                let what = format!(
                    "is {other:?}, and must be an IP address with a port, like 127.0.0.1:9464 or [::]:9464, or off"
                );
                self.problem("http.listen", what);
                None
            }
        };
        let tls = self.tls_files("http", [&raw.tls_certificate, &raw.tls_key]);
        let is_secured = !raw.token.is_empty() || tls.is_some() || raw.allow_insecure;
        if listen.is_some_and(|address| !address.ip().is_loopback()) && !is_secured {
            let what = format!(
                "is {:?}, which other machines can reach: set http.token, or http.tls_certificate and http.tls_key, or \
                 http.allow_insecure = true if the network is trusted",
                raw.listen
            );
            self.problem("http.listen", what);
        }
        let token = Some(raw.token).filter(|token| !token.is_empty()).map(Secret::new);
        let hung_after = self.duration("http.hung_ms_max", raw.hung_ms_max, 1_000..=600_000);
        Http { listen, token, tls, hung_after }
    }

    pub(super) fn trace(&mut self, raw: RawTrace) -> Option<Trace> {
        let RawTrace { otlp_url, token, .. } = raw;
        if otlp_url.is_empty() {
            return None;
        }
        if !["http://", "https://"].iter().any(|scheme| otlp_url.starts_with(scheme)) {
            let what = "must begin with http:// or https://, like http://127.0.0.1:4318/v1/traces";
            self.problem("trace.otlp_url", what.to_owned());
        }
        let token = Some(token).filter(|token| !token.is_empty()).map(Secret::new);
        Some(Trace { otlp_url: Secret::new(otlp_url), token })
    }

    /// The files of a section's keys `tls_certificate` and `tls_key`.
    pub(super) fn tls_files(
        &mut self,
        section: &str,
        [certificate, key]: [&str; 2],
    ) -> Option<TlsFiles> {
        let name = format!("{section}.tls_certificate");
        match (certificate.is_empty(), key.is_empty()) {
            (true, true) => return None,
            (false, false) => {}
            (true, false) | (false, true) => {
                let what = format!("and {section}.tls_key must be set together");
                self.problem(&name, what);
            }
        }
        if cfg!(not(feature = "tls")) {
            let what = "needs a relay that was built with the feature tls".to_owned();
            self.problem(&name, what);
        }
        Some(TlsFiles { certificate: certificate.into(), key: key.into() })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ConfigError, Http};

    const NEEDED: &str = "database.url = 'postgres://h/d'\nkafka.bootstrap_servers = 'k:1'\nregistry.url = 'http://r'\n";

    fn http(text: &str) -> Result<Http, String> {
        match Config::parse(&format!("{NEEDED}{text}")) {
            Ok(config) => Ok(config.http),
            Err(ConfigError::Wrong(problems)) => {
                Err(problems.iter().map(|problem| format!("{problem}\n")).collect())
            }
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn it_listens_on_loopback_and_can_be_switched_off() {
        assert_eq!(http("").unwrap().listen, "127.0.0.1:9464".parse().ok());
        assert_eq!(http("http.listen = 'off'").unwrap().listen, None);
        assert!(http("http.listen = '[::1]:0'").unwrap().token.is_none());
    }

    #[test]
    fn an_address_that_others_reach_needs_a_token_or_a_certificate_or_an_explicit_word() {
        let refused = http("http.listen = '0.0.0.0:9464'").unwrap_err();
        assert_eq!(
            refused,
            "the configuration:4: http.listen is \"0.0.0.0:9464\", which other machines can reach: set http.token, or \
             http.tls_certificate and http.tls_key, or http.allow_insecure = true if the network is trusted\n"
        );
        for word in ["token = 's'", "allow_insecure = true", "tls_certificate = 'c', tls_key = 'k'"]
        {
            http(&format!("http = {{ listen = '0.0.0.0:9464', {word} }}")).unwrap();
        }
    }

    #[test]
    fn what_is_no_address_and_half_a_certificate_are_refused() {
        let refused = http("http = { listen = 'localhost', tls_key = 'k', hung_ms_max = 1 }");
        let refused = refused.unwrap_err();
        for part in
            ["http.listen is \"localhost\"", "must be set together", "http.hung_ms_max is 1"]
        {
            assert!(refused.contains(part), "{part}\nnot in\n{refused}");
        }
    }
}
