//! Files and folders on stable storage that belong to us and are closed to all others.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

use super::error::StoreError;
use crate::guard::{self, Thing};

/// Makes a folder, and those above it that are missing; each is on stable storage when this returns.
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
        Err(error) => Err(StoreError::failed(path, error)),
        Ok(()) => sync_folder(parent).map_err(|error| StoreError::failed(parent, error)),
    }
}

/// The folder has to be a folder, ours, and nobody else's to look into.
pub fn check_folder(path: &Path) -> Result<(), StoreError> {
    let about = std::fs::symlink_metadata(path).map_err(|error| StoreError::failed(path, error))?;
    let closed = about.is_dir() && is_ours(&about) && about.mode() & 0o077 == 0;
    match closed {
        true => guard::judge_folders(path, Thing::State).map_err(|error| StoreError::failed(path, error)),
        false => Err(StoreError::Exposed(path.to_owned())),
    }
}

/// In a closed folder, a file of somebody else or a link was put there by somebody who should not have been able to.
pub fn check_own(path: &Path) -> Result<(), StoreError> {
    match std::fs::symlink_metadata(path) {
        Ok(about) if is_ours(&about) && (about.is_file() || about.is_dir()) => Ok(()),
        Ok(_) => Err(StoreError::Exposed(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::failed(path, error)),
    }
}

/// Opens a file for reading that is ours, closed to all others and not a link.
pub fn open_closed(path: &Path) -> Result<File, StoreError> {
    // NONBLOCK: a pipe in the file's place must not make us wait for ever.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file =
        OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| match error.raw_os_error() {
            Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => StoreError::Exposed(path.to_owned()),
            _ => StoreError::failed(path, error),
        })?;
    let about = file.metadata().map_err(|error| StoreError::failed(path, error))?;
    let closed = about.is_file() && is_ours(&about) && about.mode() & 0o077 == 0;
    if closed { Ok(file) } else { Err(StoreError::Exposed(path.to_owned())) }
}

/// Puts a file in the place of the one that was there, or leaves that one whole. On stable storage when this returns.
/// `draft`, in the same folder, is where it is written first; what is there is lost.
pub fn replace(path: &Path, draft: &Path, bytes: &[u8]) -> io::Result<()> {
    match std::fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    write(path, draft, bytes, File::sync_all)?;
    sync_parent(path)
}

/// Puts the name of this file on stable storage.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    sync_folder(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// The same where a crash may take it back, or leave it damaged.
pub fn replace_soon(path: &Path, draft: &Path, bytes: &[u8]) -> io::Result<()> {
    let _nothing = std::fs::remove_file(draft);
    write(path, draft, bytes, |_| Ok(()))
}

/// Puts a file that others have no part in in its place, by way of a draft that must not be there.
pub fn write(path: &Path, draft: &Path, bytes: &[u8], sync: fn(&File) -> io::Result<()>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    let written = file.write_all(bytes).and_then(|()| sync(&file)).and_then(|()| std::fs::rename(draft, path));
    if written.is_err() {
        // On a full disk each byte counts.
        let _left = std::fs::remove_file(draft);
    }
    written
}

/// Puts the names in a folder on stable storage.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn is_ours(about: &Metadata) -> bool {
    about.uid() == rustix::process::geteuid().as_raw()
}
