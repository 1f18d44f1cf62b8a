//! The connection to a schema registry.

use std::fmt;

use reqwest::ClientBuilder;
use schema_registry_converter::error::SRCError;

/// The address of a schema registry, and what its connections need: a token, certificates.
///
/// ```no_run
/// # use annals_consumer::{RegistrySettings, SchemaRegistry};
/// # fn connect() -> Result<SchemaRegistry, Box<dyn std::error::Error>> {
/// let settings = RegistrySettings::new("https://registry.example/apis/ccompat/v7")
///     .token(std::fs::read_to_string("/run/secrets/registry-token")?.trim_end())
///     .authority(&std::fs::read("/etc/annals/authority.pem")?);
/// # Ok(
/// SchemaRegistry::connect(&settings)?
/// # )
/// # }
/// ```
#[derive(Clone)]
pub struct RegistrySettings {
    pub(crate) url: String,
    pub(crate) token: Option<String>,
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "plain HTTP only"))]
    authority: Vec<u8>,
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "plain HTTP only"))]
    client: Option<(Vec<u8>, Vec<u8>)>,
}

impl RegistrySettings {
    /// The base URL of the registry's Confluent API; see
    /// [`SchemaRegistry::new`](crate::SchemaRegistry::new).
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), token: None, authority: Vec::new(), client: None }
    }

    /// Logs in with a bearer token, instead of a login in the URL.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Trusts the authorities of these certificates (PEM) besides those of the system.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn authority(mut self, certificates: &[u8]) -> Self {
        self.authority.extend_from_slice(certificates);
        self
    }

    /// Shows this certificate to the registry, with its private key (PKCS#8), both in PEM.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn client_certificate(mut self, certificate: &[u8], key: &[u8]) -> Self {
        self.client = Some((certificate.to_vec(), key.to_vec()));
        self
    }

    #[cfg(feature = "tls")]
    pub(crate) fn client(&self) -> Result<ClientBuilder, RegistrySetupError> {
        let mut builder = ClientBuilder::new();
        if !self.authority.is_empty() {
            let authorities = reqwest::Certificate::from_pem_bundle(&self.authority);
            builder = builder.tls_certs_merge(authorities.map_err(unusable)?);
        }
        if let Some((certificate, key)) = &self.client {
            let identity = reqwest::Identity::from_pkcs8_pem(certificate, key);
            builder = builder.identity(identity.map_err(unusable)?);
        }
        Ok(builder)
    }

    #[cfg(not(feature = "tls"))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as with TLS")]
    pub(crate) fn client(&self) -> Result<ClientBuilder, RegistrySetupError> {
        Ok(ClientBuilder::new())
    }
}

#[cfg(feature = "tls")]
fn unusable(error: reqwest::Error) -> RegistrySetupError {
    RegistrySetupError(SRCError::non_retryable_with_cause(error, "use a certificate"))
}

/// Shows neither the URL, which may have a login, nor the secrets.
impl fmt::Debug for RegistrySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrySettings")
            .field("has_token", &self.token.is_some())
            .finish_non_exhaustive()
    }
}

/// The client of the schema registry could not be made.
#[derive(Debug, thiserror::Error)]
#[error("make a client for the schema registry")]
pub struct RegistrySetupError(#[source] pub(crate) SRCError);
