//! Key providers: they encrypt the secrets of subjects with a wrapping key that only they have.

use std::fmt;

use futures_util::future::BoxFuture;
use zeroize::Zeroizing;

/// A key provider failed, or refused.
#[derive(Debug, thiserror::Error)]
#[error("{provider}: {action}: {reason}")]
pub struct KeyProviderError {
    /// The name of the provider.
    pub provider: &'static str,
    /// The operation: a verb and an object.
    pub action: &'static str,
    /// The cause, without a secret.
    pub reason: String,
    /// Whether the same operation can succeed later.
    pub is_retryable: bool,
}

/// Encrypts and decrypts the secrets of subjects.
///
/// [`FileKeyProvider`](crate::FileKeyProvider) is for development; `VaultKeyProvider`, with the
/// feature `vault`, for production.
pub trait KeyProvider: fmt::Debug + Send + Sync + 'static {
    /// Encrypts a secret with the newest version of the wrapping key.
    ///
    /// # Errors
    /// [`KeyProviderError`], retryable if the provider did not answer.
    fn wrap<'a>(&'a self, secret: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, KeyProviderError>>;

    /// Decrypts a secret that any present version of the wrapping key encrypted.
    ///
    /// # Errors
    /// [`KeyProviderError`], retryable if the provider did not answer; also for a secret that
    /// another wrapping key encrypted.
    fn unwrap<'a>(
        &'a self,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<Zeroizing<Vec<u8>>, KeyProviderError>>;

    /// Encrypts a secret again, with the newest version of the wrapping key.
    ///
    /// # Errors
    /// [`KeyProviderError`], retryable if the provider did not answer.
    fn rewrap<'a>(&'a self, wrapped: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, KeyProviderError>> {
        Box::pin(async move {
            let secret = self.unwrap(wrapped).await?;
            self.wrap(&secret).await
        })
    }

    /// Makes a new version of the wrapping key.
    ///
    /// # Errors
    /// [`KeyProviderError`], retryable if the provider did not answer.
    fn rotate(&self) -> BoxFuture<'_, Result<(), KeyProviderError>>;

    /// Destroys all versions of the wrapping key but the newest one. What they encrypted, such as
    /// the keys in an old backup of the database, cannot be decrypted any more.
    ///
    /// # Errors
    /// [`KeyProviderError`], retryable if the provider did not answer.
    fn destroy_earlier_versions(&self) -> BoxFuture<'_, Result<(), KeyProviderError>>;
}
