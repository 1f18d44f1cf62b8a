//! A disk that tests can fill. The server's own writes fail as on a full disk: a preloaded library
//! refuses them, so that no file system has to be mounted.

use std::path::PathBuf;

use tokio::process::Command;

use crate::must::Must;
use crate::stack::{Component, Ending, PrivateStack};

const SOURCE: &str = "src/full_disk.c";
const LIBRARY: &str = "preload.so";

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
        let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(SOURCE);
        let mut compile = Command::new("cc");
        compile
            .args(["-shared", "-fPIC", "-O2", "-o"])
            .arg(stack.library())
            .arg(source)
            .arg("-ldl");
        let compiled = compile.status().await.must("run a C compiler");
        assert!(compiled.success(), "could not compile {SOURCE}");
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

    fn library(&self) -> PathBuf {
        let room = self.path().join("postgres").canonicalize();
        room.must("find a private PostgreSQL's data").join(LIBRARY)
    }

    fn full(&self) -> PathBuf {
        self.library().with_file_name(format!("{LIBRARY}.full"))
    }
}
