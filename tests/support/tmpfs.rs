//! A small separate disk that can really be filled. Only root can mount one.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::skipped::skipped;

/// A file system of 4 MiB in memory, gone when this is dropped.
pub struct Tmpfs {
    folder: TempDir,
}

impl Tmpfs {
    /// None, with the reason on standard error, if it cannot be mounted.
    pub fn mount() -> Option<Self> {
        let folder = TempDir::new().expect("a folder for temporary files");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "postkey-test"]).arg(folder.path());
        if mount.output().is_ok_and(|output| output.status.success()) {
            return Some(Self { folder });
        }
        skipped("only root can mount the disk that this test fills");
        None
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves no byte free.
    pub fn fill(&self) {
        let mut filler = OpenOptions::new().create(true).append(true).open(self.filler()).unwrap();
        for size in [1 << 16, 1 << 12, 1] {
            while filler.write_all(&vec![0; size]).is_ok() {}
        }
    }

    /// Makes room again.
    pub fn empty(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily, because a vault that is dropped after this still has its files open.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}
