//! A read model of documents in files, without transactions: one document a stream, with the
//! version that it has. The recipe for key-value stores, search engines and object stores.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annals_consumer::{
    BatchToApply, DatabaseError, DeliveredEvent, LastApplied, Offset, OffsetUpdate, OwnerEpoch,
    PartitionProgress, ProjectionDatabase, RecordLocation, Version,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The documents of a directory. `fold` changes a stream's state by an event.
pub(crate) struct Documents<S, E> {
    directory: PathBuf,
    fold: fn(&mut S, &DeliveredEvent<E>),
}

/// A stream's document: its state, and the version that the state has.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Document<S> {
    /// What the events of the stream made.
    pub(crate) state: S,
    version: i64,
    event_ids: Vec<Uuid>,
}

/// A partition's document.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct PartitionDocument {
    next_offset: i64,
    last_event: Option<Uuid>,
    owner_epoch: i64,
}

impl<S: Default + Serialize + DeserializeOwned, E> Documents<S, E> {
    /// Opens a directory, and creates it if it is missing.
    pub(crate) fn open(directory: &Path, fold: fn(&mut S, &DeliveredEvent<E>)) -> io::Result<Self> {
        for kind in ["streams", "partitions", "topics"] {
            fs::create_dir_all(directory.join(kind))?;
        }
        Ok(Self { directory: directory.to_owned(), fold })
    }

    /// The document of a stream.
    pub(crate) fn read(&self, stream: &str) -> io::Result<Option<Document<S>>> {
        self.get("streams", stream)
    }

    /// Writes the documents of a batch, and then its offsets.
    fn write(&self, batch: &BatchToApply<'_, E>) -> Result<(), DatabaseError> {
        // Conditional writes of files: under a lock that a killed process loses. Other stores
        // compare the version of a document in the write itself, as with an ETag.
        let lock = File::create(self.directory.join("lock")).map_err(unavailable)?;
        lock.lock().map_err(unavailable)?;
        if self.is_applied(batch.offsets)? {
            return Ok(());
        }
        self.write_documents(batch).map_err(unavailable)?;
        self.write_offsets(batch.offsets).map_err(unavailable)
    }

    /// The idempotent upsert: after a crash a document may have the events of the batch already.
    pub(crate) fn write_documents(&self, batch: &BatchToApply<'_, E>) -> io::Result<()> {
        let mut events: HashMap<&str, Vec<&DeliveredEvent<E>>> = HashMap::new();
        for event in batch.events {
            events.entry(&event.delivered.stream).or_default().push(event);
        }
        for (stream, last) in batch.versions {
            let mut document = self.read(stream)?.unwrap_or_else(new_document);
            if document.version >= last.version().get() {
                continue;
            }
            let events = events.remove(stream.as_str()).unwrap_or_default().into_iter();
            let applied = document.version;
            for event in events.filter(|event| event.delivered.version.get() > applied) {
                (self.fold)(&mut document.state, event);
            }
            document.version = last.version().get();
            document.event_ids = last.event_ids().to_vec();
            self.put("streams", stream, &document)?;
        }
        Ok(())
    }

    /// Whether the offsets are those behind the batch already: a call that is repeated.
    fn is_applied(&self, offsets: &[OffsetUpdate]) -> Result<bool, DatabaseError> {
        let mut applied = 0;
        for update in offsets {
            let stored = self.partition(&update.next).map_err(unavailable)?;
            let is_own = stored.owner_epoch == update.owner_epoch.get();
            if is_own && stored.next_offset == update.next.offset.get() {
                applied += 1;
            } else if !is_own || stored.next_offset != update.expected.get() {
                let offset = Offset::new(stored.next_offset).unwrap_or(Offset::ZERO);
                let found = RecordLocation { offset, ..update.next.clone() };
                return Err(DatabaseError::Superseded(found));
            }
        }
        Ok(applied == offsets.len())
    }

    fn write_offsets(&self, offsets: &[OffsetUpdate]) -> io::Result<()> {
        for update in offsets {
            let document = PartitionDocument {
                next_offset: update.next.offset.get(),
                last_event: Some(update.last_event),
                owner_epoch: update.owner_epoch.get(),
            };
            self.put("partitions", &partition_name(&update.next), &document)?;
        }
        Ok(())
    }

    fn claim(&self, topic: &Arc<str>, partition: i32) -> io::Result<PartitionProgress> {
        let lock = File::create(self.directory.join("lock"))?;
        lock.lock()?;
        let next = RecordLocation { topic: Arc::clone(topic), partition, offset: Offset::ZERO };
        let mut document = self.partition(&next)?;
        document.owner_epoch += 1;
        self.put("partitions", &partition_name(&next), &document)?;
        let offset = Offset::new(document.next_offset).unwrap_or(Offset::ZERO);
        Ok(PartitionProgress {
            next: RecordLocation { offset, ..next },
            last_event: document.last_event,
            owner_epoch: OwnerEpoch::new(document.owner_epoch).unwrap_or(OwnerEpoch::ZERO),
        })
    }

    fn partition(&self, location: &RecordLocation) -> io::Result<PartitionDocument> {
        Ok(self.get("partitions", &partition_name(location))?.unwrap_or_default())
    }

    fn last(&self, stream: &str) -> io::Result<Option<LastApplied>> {
        let Some(document) = self.read(stream)? else { return Ok(None) };
        let version = Version::new(document.version);
        Ok(version.map(|version| LastApplied::new(version, &document.event_ids)))
    }

    fn path(&self, kind: &str, name: &str) -> PathBuf {
        // Any stream's name as a file's name.
        let name: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.directory.join(kind).join(name)
    }

    fn get<D: DeserializeOwned>(&self, kind: &str, name: &str) -> io::Result<Option<D>> {
        match fs::read(self.path(kind, name)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces a document whole, or not at all.
    fn put(&self, kind: &str, name: &str, document: &impl Serialize) -> io::Result<()> {
        let path = self.path(kind, name);
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(document)?)?;
        file.sync_data()?;
        fs::rename(&new, &path)
    }
}

impl<S, E> ProjectionDatabase<E> for Documents<S, E>
where
    S: Default + Serialize + DeserializeOwned + Send,
    E: Sync,
{
    async fn record_partitions(
        &mut self,
        topic: &str,
        partitions: i32,
    ) -> Result<i32, DatabaseError> {
        let recorded: Option<i32> = self.get("topics", topic).map_err(unavailable)?;
        if recorded.is_none_or(|recorded| recorded < partitions) {
            self.put("topics", topic, &partitions).map_err(unavailable)?;
        }
        Ok(recorded.unwrap_or(partitions))
    }

    async fn own(
        &mut self,
        partitions: &[(Arc<str>, i32)],
    ) -> Result<Vec<PartitionProgress>, DatabaseError> {
        let claimed = partitions.iter().map(|(topic, partition)| self.claim(topic, *partition));
        claimed.collect::<io::Result<_>>().map_err(unavailable)
    }

    async fn last_applied(
        &mut self,
        streams: &[&str],
    ) -> Result<Vec<(String, LastApplied)>, DatabaseError> {
        let mut found = Vec::new();
        for stream in streams {
            if let Some(last) = self.last(stream).map_err(unavailable)? {
                found.push(((*stream).to_owned(), last));
            }
        }
        Ok(found)
    }

    async fn apply(&mut self, batch: &BatchToApply<'_, E>) -> Result<(), DatabaseError> {
        self.write(batch)
    }
}

fn new_document<S: Default>() -> Document<S> {
    Document { state: S::default(), version: -1, event_ids: Vec::new() }
}

fn partition_name(location: &RecordLocation) -> String {
    format!("{}-{}", location.topic, location.partition)
}

fn unavailable(error: io::Error) -> DatabaseError {
    DatabaseError::Unavailable(error.into())
}
