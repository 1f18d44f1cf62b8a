//! A library that is loaded into a private PostgreSQL: what it gives to the server is under a
//! test's control, without rights on the machine.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::must::Must;
use crate::stack::PrivateStack;

const LIBRARY: &str = "preload.so";

impl PrivateStack {
    /// Compiles a library, from a source in this crate. PostgreSQL loads it at its next start.
    ///
    /// # Panics
    /// If this machine has no C compiler.
    pub(crate) async fn preload(&self, source: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O2", "-o"]).arg(self.library()).arg(path).arg("-ldl");
        let compiled = compile.status().await.must("run a C compiler");
        assert!(compiled.success(), "could not compile {source}");
    }

    /// The file beside the library that it reads, by its ending.
    pub(crate) fn beside_library(&self, ending: &str) -> PathBuf {
        self.library().with_file_name(format!("{LIBRARY}.{ending}"))
    }

    fn library(&self) -> PathBuf {
        let room = self.path().join("postgres").canonicalize();
        room.must("find a private PostgreSQL's data").join(LIBRARY)
    }
}
