//! The HTTP client of the registry, with its certificates.

use reqwest::ClientBuilder;

use crate::config::Registry;
use crate::report::failure::Failure;

/// A client that trusts the configured authority and shows the configured certificate.
///
/// # Errors
/// [`Failure::Outage`] when a file cannot be used.
#[cfg(feature = "tls")]
pub(crate) fn http_client(registry: &Registry) -> Result<ClientBuilder, Failure> {
    let mut builder = ClientBuilder::new();
    if let Some(path) = &registry.tls.authority {
        let unusable = files::unusable("tls_authority", path);
        let pem = files::read("tls_authority", path)?;
        let authorities = reqwest::Certificate::from_pem_bundle(&pem).map_err(unusable)?;
        builder = builder.tls_certs_merge(authorities);
    }
    if let Some(of) = &registry.tls.client {
        let unusable = files::unusable("tls_certificate", &of.certificate);
        let certificate = files::read("tls_certificate", &of.certificate)?;
        let key = files::read("tls_key", &of.key)?;
        let identity = reqwest::Identity::from_pkcs8_pem(&certificate, &key);
        builder = builder.identity(identity.map_err(unusable)?);
    }
    Ok(builder)
}

/// The check of the configuration refuses certificates without the feature.
#[cfg(not(feature = "tls"))]
#[expect(clippy::unnecessary_wraps, reason = "as with the feature")]
pub(crate) fn http_client(_: &Registry) -> Result<ClientBuilder, Failure> {
    Ok(ClientBuilder::new())
}

#[cfg(feature = "tls")]
mod files {
    use std::error::Error;
    use std::path::Path;

    use crate::report::failure::{Component, Failure};

    /// A file of `[registry]` that cannot be used.
    #[derive(Debug, thiserror::Error)]
    #[error("registry.{key} names {path}")]
    struct FileError {
        key: &'static str,
        path: String,
        source: Box<dyn Error + Send + Sync>,
    }

    pub(super) fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, Failure> {
        std::fs::read(path).map_err(unusable(key, path))
    }

    pub(super) fn unusable<E: Error + Send + Sync + 'static>(
        key: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Failure {
        let path = path.display().to_string();
        move |source| {
            let error = FileError { key, path, source: source.into() };
            let action = "read the certificates for the schema registry";
            Failure::outage(Component::Registry, action, error)
        }
    }
}
