//! A disk that tests can fill. The server's own writes fail as on a full disk: a preloaded library
//! refuses them, so that no file system has to be mounted.

use std::path::PathBuf;

use crate::must::Must;
use crate::stack::{Component, Ending, PrivateStack};

const SOURCE: &str = "src/full_disk.c";

/// The files on the full disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskPart {
    /// Tables and indexes.
    Tables,
    /// The write-ahead log.
    Log,
}

impl DiskPart {
    /// A part of the paths of its files.
    const fn path(self) -> &'static str {
        match self {
            Self::Tables => "/base/",
            Self::Log => "/pg_wal/",
        }
    }
}

impl PrivateStack {
    /// Starts the pinned PostgreSQL of a version, on a disk that can be filled.
    ///
    /// # Panics
    /// If it does not start, or this machine has no C compiler.
    pub async fn postgres_on_a_small_disk(version: &str) -> Self {
        let stack = Self::postgres(version).await;
        stack.preload(SOURCE).await;
        stack.end(Component::Postgres, Ending::Orderly).await;
        stack.start(Component::Postgres).await;
        stack
    }

    /// From now on no file of this part can become longer.
    ///
    /// # Panics
    /// If the disk cannot be filled.
    pub fn fill_disk(&self, part: DiskPart) {
        std::fs::write(self.full(), part.path()).must("fill a disk");
    }

    /// Files can become longer again.
    ///
    /// # Panics
    /// If the disk was not full.
    pub fn free_disk(&self) {
        std::fs::remove_file(self.full()).must("free a disk");
    }

    fn full(&self) -> PathBuf {
        self.beside_library("full")
    }
}
