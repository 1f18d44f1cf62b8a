//! Rotation of the wrapping key.

use annals_schemas::personal::Subject;
use sqlx::Row;

use crate::error::Error;
use crate::personal::error::PersonalError;
use crate::personal::keys::{PersonalKeys, subject_of};

const ROWS_MAX: i64 = 200;

/// A key in the table that an earlier version of the wrapping key encrypted.
struct Wrapped {
    subject: Subject,
    bytes: Vec<u8>,
}

impl PersonalKeys {
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
        let epoch = sqlx::query_scalar(self.store.statements().personal_rotated.clone());
        let epoch: Result<i64, _> =
            self.store.within_deadline(epoch.fetch_one(self.store.pool())).await;
        epoch.map_err(Error::database("note a rotation of the wrapping key"))?;
        self.rewrap().await
    }

    /// Encrypts the keys of all subjects with the newest version of the wrapping key, where an
    /// earlier one did; their number. [`rotate`](Self::rotate) does it, too.
    ///
    /// # Errors
    /// If the database or the provider fails.
    pub async fn rewrap(&self) -> Result<usize, PersonalError> {
        let epoch = self.epoch().await?;
        let mut rewrapped = 0;
        loop {
            let page = self.wrapped_before(epoch).await?;
            if page.is_empty() {
                return Ok(rewrapped);
            }
            for key in page {
                let wrapped = self.provider.rewrap(&key.bytes).await?;
                let statement = self.store.statements().personal_rewrap.clone();
                let replaced = sqlx::query_scalar(statement).bind(key.subject.as_str());
                let replaced = replaced.bind(key.bytes).bind(wrapped).bind(epoch);
                let replaced = self.store.within_deadline(replaced.fetch_one(self.store.pool()));
                let replaced: bool =
                    replaced.await.map_err(Error::database("replace a wrapped key"))?;
                rewrapped += usize::from(replaced);
            }
        }
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
        let epoch = self.epoch().await?;
        let earlier = self.wrapped_before(epoch).await?.len();
        if earlier > 0 {
            return Err(PersonalError::NotRewrapped(earlier));
        }
        Ok(self.provider.destroy_earlier_versions().await?)
    }

    async fn wrapped_before(&self, epoch: i64) -> Result<Vec<Wrapped>, PersonalError> {
        let failed = Error::database_each("find keys of earlier epochs");
        let rows = sqlx::query(self.store.statements().personal_wrapped_before.clone());
        let rows = rows.bind(epoch).bind(ROWS_MAX).fetch_all(self.store.pool());
        let rows = self.store.within_deadline(rows).await.map_err(&failed)?;
        let read = |row: &sqlx::postgres::PgRow| {
            Ok(Wrapped { subject: subject_of(row)?, bytes: row.try_get("wrapped")? })
        };
        let keys: Result<Vec<_>, sqlx::Error> = rows.iter().map(read).collect();
        Ok(keys.map_err(failed)?)
    }
}
