//! Files and folders on stable storage that belong to us and are inaccessible to others.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

use super::error::StoreError;
use crate::guard::{self, Thing};

/// Creates a folder and its missing parents. Each is on stable storage when this returns.
pub fn make_folder(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let made = match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && parent != Path::new(".") => {
            make_folder(parent)?;
            DirBuilder::new().mode(0o700).create(path)
        }
        made => made,
    };
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StoreError::at(path)(error)),
        Ok(()) => sync_folder(parent).map_err(StoreError::at(parent)),
    }
}

/// Checks that this is a folder, that it is ours, and that nobody else can open it or replace it.
pub fn check_folder(path: &Path) -> Result<(), StoreError> {
    let about = std::fs::symlink_metadata(path).map_err(StoreError::at(path))?;
    match about.is_dir() && is_private(&about) {
        true => guard::judge_folders(path, Thing::State).map_err(StoreError::at(path)),
        false => Err(StoreError::Exposed(path.to_owned())),
    }
}

/// Locks a folder against other processes, until the file is dropped.
pub fn lock_folder(dir: &Path) -> Result<File, StoreError> {
    let folder = File::open(dir).map_err(StoreError::at(dir))?;
    match folder.try_lock() {
        Ok(()) => Ok(folder),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::InUse(dir.to_owned())),
        Err(std::fs::TryLockError::Error(error)) => Err(StoreError::at(dir)(error)),
    }
}

/// Checks something in a private folder. If it is a symlink or belongs to somebody else, then somebody has had access to
/// the folder who should not.
pub fn check_own(path: &Path) -> Result<(), StoreError> {
    match std::fs::symlink_metadata(path) {
        Ok(about) if is_ours(&about) && (about.is_file() || about.is_dir()) => Ok(()),
        Ok(_) => Err(StoreError::Exposed(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::at(path)(error)),
    }
}

/// Opens a file for reading that is ours, inaccessible to others and not a symlink.
pub fn open_private(path: &Path) -> Result<File, StoreError> {
    // NONBLOCK, because opening a pipe would wait for a writer.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file =
        OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| match error.raw_os_error() {
            Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => StoreError::Exposed(path.to_owned()),
            _ => StoreError::at(path)(error),
        })?;
    let about = file.metadata().map_err(StoreError::at(path))?;
    if about.is_file() && is_private(&about) { Ok(file) } else { Err(StoreError::Exposed(path.to_owned())) }
}

/// Replaces a file as a whole, or leaves the old one as it is. The new one is on stable storage when this returns. It is
/// first written to `draft`, in the same folder, which is overwritten.
pub fn replace(path: &Path, draft: &Path, bytes: &[u8]) -> io::Result<()> {
    match std::fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    write(path, draft, bytes, File::sync_all)?;
    sync_parent(path)
}

/// Syncs the name of this file.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    sync_folder(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// Replaces a file without a sync: after a crash the old one may be back, or the new one damaged.
pub fn replace_unsynced(path: &Path, draft: &Path, bytes: &[u8]) -> io::Result<()> {
    let _nothing = std::fs::remove_file(draft);
    write(path, draft, bytes, |_| Ok(()))
}

/// Writes a file that is inaccessible to others, and renames it from `draft`, which must not exist.
pub fn write(path: &Path, draft: &Path, bytes: &[u8], sync: fn(&File) -> io::Result<()>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    let written = file.write_all(bytes).and_then(|()| sync(&file)).and_then(|()| std::fs::rename(draft, path));
    if written.is_err() {
        // On a full disk every byte counts.
        let _left = std::fs::remove_file(draft);
    }
    written
}

/// Syncs the names in a folder.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn is_private(about: &Metadata) -> bool {
    is_ours(about) && about.mode() & 0o077 == 0
}

fn is_ours(about: &Metadata) -> bool {
    about.uid() == rustix::process::geteuid().as_raw()
}
