//! Rotation of the wrapping key.

use crate::event_store::EventStore;
use crate::personal::error::PersonalError;
use crate::personal::keys::PersonalKeys;
use crate::personal::table::StoredKey;

impl<S: EventStore> PersonalKeys<S> {
    /// Makes a new version of the wrapping key, and encrypts the keys of all subjects with it;
    /// their number. The keys themselves, and all events, stay as they are. Repeat it after an
    /// error.
    ///
    /// For a login with the role `annals_admin`, while the services run.
    ///
    /// # Errors
    /// If the database or the provider fails.
    pub async fn rotate(&self) -> Result<usize, PersonalError> {
        self.provider.rotate().await?;
        // Behind the rotation: a process that read the new epoch wraps with the new version.
        self.store.begin_epoch().await?;
        self.rewrap().await
    }

    /// Encrypts the keys of all subjects with the newest version of the wrapping key, where an
    /// earlier one did; their number. [`rotate`](Self::rotate) does it, too.
    ///
    /// # Errors
    /// If the database or the provider fails.
    pub async fn rewrap(&self) -> Result<usize, PersonalError> {
        let epoch = self.store.epoch().await?;
        let mut rewrapped = 0;
        loop {
            let page = self.store.wrapped_before(epoch).await?;
            if page.is_empty() {
                return Ok(rewrapped);
            }
            for key in page {
                rewrapped += usize::from(self.rewrap_one(&key, epoch).await?);
            }
        }
    }

    /// False: the key is destroyed, or has changed since it was read.
    async fn rewrap_one(&self, key: &StoredKey, epoch: i64) -> Result<bool, PersonalError> {
        let Some(wrapped) = key.wrapped.as_deref() else { return Ok(false) };
        let wrapped = self.provider.rewrap(wrapped).await?;
        Ok(self.store.replace_wrapped(key, wrapped, epoch).await?)
    }

    /// Destroys the earlier versions of the wrapping key: the keys in backups that are older than
    /// the last [`rotate`](Self::rotate) cannot be decrypted any more, and the erasures before it
    /// hold for these backups, too. **A database restored from such a backup cannot open any
    /// personal value**: do it when backups of that age are deleted or not needed.
    ///
    /// # Errors
    /// [`PersonalError::NotRewrapped`] if keys need an earlier version; otherwise if the database
    /// or the provider fails.
    pub async fn destroy_earlier_wrapping_keys(&self) -> Result<(), PersonalError> {
        let epoch = self.store.epoch().await?;
        let earlier = self.store.wrapped_before(epoch).await?.len();
        if earlier > 0 {
            return Err(PersonalError::NotRewrapped(earlier));
        }
        Ok(self.provider.destroy_earlier_versions().await?)
    }
}
