//! The table `personal_keys`.

use std::collections::BTreeSet;

use annals_schemas::personal::{KeyId, Subject, SubjectError};
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::error::Error;
use crate::personal::table::{Fence, KeyTable, StoredKey};
use crate::sqlstate::is_lost_race;
use crate::store::Store;
use crate::timestamptz::PgTimestamp;

/// Rows of one query.
const ROWS_MAX: i64 = 200;

impl KeyTable for Store {
    async fn find_key(&self, subject: &Subject) -> Result<Option<StoredKey>, Error> {
        let failed = Error::database_each("find a personal key");
        let query = sqlx::query(self.statements().personal_key_find.clone());
        let row = query.bind(subject.as_str()).fetch_optional(self.pool());
        let row = self.within_deadline(row).await.map_err(&failed)?;
        row.map(|row| stored(subject.clone(), &row)).transpose().map_err(failed)
    }

    async fn find_keys(&self, ids: &BTreeSet<KeyId>) -> Result<Vec<StoredKey>, Error> {
        let ids: Vec<&[u8]> = ids.iter().map(KeyId::as_bytes).collect();
        let failed = Error::database_each("find personal keys");
        let query = sqlx::query(self.statements().personal_keys_by_id.clone()).bind(ids);
        let rows = self.within_deadline(query.fetch_all(self.pool())).await.map_err(&failed)?;
        let keys = rows.iter().map(|row| stored(subject_of(row)?, row));
        keys.collect::<Result<_, _>>().map_err(failed)
    }

    async fn epoch(&self) -> Result<i64, Error> {
        let epoch = sqlx::query_scalar(self.statements().personal_epoch.clone());
        let epoch = self.within_deadline(epoch.fetch_one(self.pool())).await;
        epoch.map_err(Error::database("read the epoch of the wrapping key"))
    }

    async fn create_key(&self, key: StoredKey, epoch: i64) -> Result<Option<StoredKey>, Error> {
        let StoredKey { subject, key_id, wrapped, .. } = key;
        let query = sqlx::query(self.statements().personal_key_create.clone());
        let query = query.bind(subject.as_str()).bind(key_id.map(|id| id.as_bytes().to_vec()));
        let row = query.bind(wrapped).bind(epoch).fetch_optional(self.pool());
        let failed = Error::database_each("create a personal key");
        let row = match self.within_deadline(row).await {
            Err(error) if is_lost_race(&error) => None,
            row => row.map_err(&failed)?,
        };
        row.map(|row| stored(subject, &row)).transpose().map_err(failed)
    }

    async fn fence(&self, subject: &Subject, reason: &str) -> Result<Fence, Error> {
        let failed = Error::database_each("erase a subject");
        let fence = sqlx::query(self.statements().personal_fence.clone());
        let fence = fence.bind(subject.as_str()).bind(reason).fetch_one(self.pool());
        let row = self.within_deadline(fence).await.map_err(&failed)?;
        let read = || {
            Ok(Fence {
                key_id: key_id(&row)?,
                event_id: row.try_get::<Uuid, _>("erased_event")?.into(),
                fenced_at: row.try_get::<PgTimestamp, _>("fenced_at")?.0,
            })
        };
        read().map_err(failed)
    }

    async fn destroy_key(&self, subject: &Subject) -> Result<(), Error> {
        let destroyed = sqlx::query(self.statements().personal_destroy.clone());
        let destroyed = destroyed.bind(subject.as_str()).execute(self.pool());
        let destroyed = self.within_deadline(destroyed).await;
        destroyed.map_err(Error::database("erase a subject")).map(drop)
    }

    async fn unfinished(&self) -> Result<Vec<(Subject, String)>, Error> {
        let failed = Error::database_each("find unfinished erasures");
        let rows = sqlx::query(self.statements().personal_unfinished.clone());
        let rows = rows.bind(ROWS_MAX).fetch_all(self.pool());
        let rows = self.within_deadline(rows).await.map_err(&failed)?;
        let erasures = rows.iter().map(|row| Ok((subject_of(row)?, row.try_get("reason")?)));
        erasures.collect::<Result<_, _>>().map_err(failed)
    }

    async fn begin_epoch(&self) -> Result<(), Error> {
        let epoch = sqlx::query(self.statements().personal_rotated.clone());
        let epoch = self.within_deadline(epoch.execute(self.pool())).await;
        epoch.map_err(Error::database("note a rotation of the wrapping key")).map(drop)
    }

    async fn wrapped_before(&self, epoch: i64) -> Result<Vec<StoredKey>, Error> {
        let failed = Error::database_each("find keys of earlier epochs");
        let rows = sqlx::query(self.statements().personal_wrapped_before.clone());
        let rows = rows.bind(epoch).bind(ROWS_MAX).fetch_all(self.pool());
        let rows = self.within_deadline(rows).await.map_err(&failed)?;
        let keys = rows.iter().map(|row| {
            let (subject, key_id, wrapped) =
                (subject_of(row)?, key_id(row)?, row.try_get("wrapped")?);
            Ok(StoredKey { subject, key_id, wrapped, is_erased: false })
        });
        keys.collect::<Result<_, _>>().map_err(failed)
    }

    async fn replace_wrapped(
        &self,
        earlier: &StoredKey,
        wrapped: Vec<u8>,
        epoch: i64,
    ) -> Result<bool, Error> {
        let replaced = sqlx::query_scalar(self.statements().personal_rewrap.clone());
        let replaced = replaced.bind(earlier.subject.as_str()).bind(earlier.wrapped.as_deref());
        let replaced = replaced.bind(wrapped).bind(epoch).fetch_one(self.pool());
        let replaced = self.within_deadline(replaced).await;
        replaced.map_err(Error::database("replace a wrapped key"))
    }
}

fn stored(subject: Subject, row: &PgRow) -> Result<StoredKey, sqlx::Error> {
    Ok(StoredKey {
        subject,
        key_id: key_id(row)?,
        wrapped: row.try_get("wrapped")?,
        is_erased: row.try_get("is_erased")?,
    })
}

fn key_id(row: &PgRow) -> Result<Option<KeyId>, sqlx::Error> {
    let id: Option<Vec<u8>> = row.try_get("key_id")?;
    Ok(id.and_then(|id| KeyId::from_slice(&id)))
}

fn subject_of(row: &PgRow) -> Result<Subject, sqlx::Error> {
    let subject: String = row.try_get("subject")?;
    Subject::new(subject).map_err(|error: SubjectError| sqlx::Error::Decode(Box::new(error)))
}
