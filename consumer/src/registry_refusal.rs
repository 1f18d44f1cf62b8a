//! Why the schema registry gives no schema, and what to do if it refuses this client.

use std::error::Error;
use std::fmt;

use schema_registry_converter::error::SRCError;

use crate::outage::causes;

/// A request that the registry did not answer with a schema.
#[derive(Debug)]
pub(crate) struct Unanswered {
    remedy: Option<Remedy>,
    error: SRCError,
}

/// What ends a refusal, other than time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    Login,
    Right,
    Authority,
    ClientCertificate,
    /// In TLS 1.3 a server refuses a certificate behind the handshake, and closes: a client that
    /// still writes then finds a closed connection, and not the reason.
    MaybeClientCertificate,
}

impl Unanswered {
    /// Whether waiting alone does not help.
    pub(crate) fn is_refusal(&self) -> bool {
        self.remedy.is_some()
    }
}

impl From<SRCError> for Unanswered {
    fn from(error: SRCError) -> Self {
        Self { remedy: Remedy::of(&error), error }
    }
}

/// Without the library's own opinion on whether to try again.
impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.remedy {
            Some(remedy) => write!(f, "{remedy}: {}", self.error.error),
            None => f.write_str(&self.error.error),
        }
    }
}

impl Error for Unanswered {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

impl Remedy {
    fn of(error: &SRCError) -> Option<Self> {
        match status(error) {
            Some(401) => return Some(Self::Login),
            Some(403) => return Some(Self::Right),
            Some(_) => return None,
            None => {}
        }
        // Only OpenSSL's texts tell the reasons apart.
        let said = error.source().map(causes)?;
        let alerts = ["certificate", "bad certificate", "unknown ca", "handshake failure"];
        if said.contains("certificate verify failed") {
            Some(Self::Authority)
        } else if alerts.iter().any(|alert| said.contains(&format!(" alert {alert}"))) {
            Some(Self::ClientCertificate)
        } else if is_closed_by_tls(error) {
            Some(Self::MaybeClientCertificate)
        } else {
            None
        }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Login => {
                "it refuses the login: correct the user and the password in its URL, or \
                 RegistrySettings::token"
            }
            Self::Right => "it does not let the login read schemas: grant that right",
            Self::Authority => {
                "its certificate is not trusted: name its host as the certificate does, renew the \
                 certificate, or give its authority to RegistrySettings::authority"
            }
            Self::ClientCertificate => {
                "it wants another certificate of this client: give one that is valid and of an \
                 authority that it trusts to RegistrySettings::client_certificate"
            }
            Self::MaybeClientCertificate => {
                "it closed the connection: it may want another certificate of this client, as \
                 RegistrySettings::client_certificate gives"
            }
        })
    }
}

/// The status of an HTTP answer, which the library has in its text only.
fn status(error: &SRCError) -> Option<u16> {
    let (_, status) = error.error.split_once(" with status ")?;
    status.split(' ').next()?.parse().ok()
}

/// Whether a connection with TLS was made, and ended before an answer.
fn is_closed_by_tls(error: &SRCError) -> bool {
    let error = error.source().and_then(|source| source.downcast_ref::<reqwest::Error>());
    error.is_some_and(|error| {
        let is_tls = error.url().is_some_and(|url| url.scheme() == "https");
        is_tls && error.is_request() && !error.is_connect() && !error.is_timeout()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(error: &str, cause: &'static str) -> Option<Remedy> {
        Remedy::of(&SRCError::non_retryable_with_cause(cause, error))
    }

    #[test]
    fn a_refusal_is_told_from_an_outage() {
        let status = |status| of(&format!("HTTP request failed with status {status}"), "");
        assert_eq!(status("401 Unauthorized"), Some(Remedy::Login));
        assert_eq!(status("403 Forbidden"), Some(Remedy::Right));
        assert_eq!(status("500 Internal Server Error"), None);
        let tls = |cause| of("http call to schema registry failed", cause);
        let verify = "tls_post_process_server_certificate:certificate verify failed";
        assert_eq!(tls(verify), Some(Remedy::Authority));
        for alert in ["tlsv13 alert certificate required", "ssl/tls alert certificate expired"] {
            assert_eq!(tls(alert), Some(Remedy::ClientCertificate), "{alert}");
        }
        assert_eq!(tls("Connection refused (os error 111)"), None);
    }
}
