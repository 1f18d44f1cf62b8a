//! A disk that a drill can fill: a file system in memory, which only root can mount.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use annals_testkit::Must;

const MEGABYTES: usize = 400;

/// Unmounted when it is dropped.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None if this user may not mount one.
    pub(crate) fn mount(name: &str) -> Option<Self> {
        let path = std::env::temp_dir().join(format!("annals-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).must("make a directory for a disk");
        let size = format!("size={MEGABYTES}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path);
        let is_mounted = mount.output().is_ok_and(|of| of.status.success());
        is_mounted.then_some(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes until no byte is left.
    pub(crate) fn fill(&self) {
        let mut filler = std::fs::File::create(self.filler()).must("make a file");
        while filler.write_all(&[0; 65_536]).is_ok() {}
        while filler.write_all(&[0]).is_ok() {}
    }

    pub(crate) fn free(&self) {
        std::fs::remove_file(self.filler()).must("remove the file that fills the disk");
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // `mount` reports a remaining mount.
        drop(Command::new("umount").arg("--lazy").arg(&self.0).output());
        drop(std::fs::remove_dir(&self.0));
    }
}
