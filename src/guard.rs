//! Files that somebody else could have put where they are.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// The nearest folder above this path that everybody may write to, and so put something else in its place. One with the
/// sticky bit is none: there everybody has to leave alone what belongs to others.
pub fn exposed_folder(path: &Path) -> Option<PathBuf> {
    let whole = std::path::absolute(path).ok()?;
    // Where links lead to counts, and where they are.
    let real = whole.ancestors().skip(1).find_map(|folder| folder.canonicalize().ok())?;
    let all = whole.ancestors().skip(1).chain(real.ancestors());
    let is_exposed = |about: Metadata| about.mode() & 0o1002 == 0o0002;
    all.into_iter().find(|folder| folder.metadata().is_ok_and(is_exposed)).map(Path::to_owned)
}

/// Why something in that folder is not used.
pub fn exposed(folder: &Path) -> io::Error {
    let folder = folder.display();
    io::Error::other(format!("everybody may write to {folder}; run `chmod o-w {folder}`"))
}

/// A file that the configuration names: one that can be read, and that not everybody can change. Links are followed, for
/// certificates are often kept by them.
pub fn readable(path: &Path) -> io::Result<()> {
    // NONBLOCK: nobody has to write to a pipe.
    let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    if about.mode() & 0o002 != 0 {
        return Err(io::Error::other(format!("everybody may write to it; run `chmod o-w {}`", path.display())));
    }
    exposed_folder(path).map_or(Ok(()), |folder| Err(exposed(&folder)))
}

/// Opens a file to append to, or makes it, for this user alone. What is there has to be a file of this user's or root's under
/// this one name: not what somebody has laid there to have something else written to.
pub fn append(path: &Path) -> io::Result<File> {
    if let Some(folder) = exposed_folder(path) {
        return Err(exposed(&folder));
    }
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
    let about = file.metadata()?;
    let is_ours = [0, rustix::process::geteuid().as_raw()].contains(&about.uid());
    // A terminal or /dev/null is everybody's.
    if about.file_type().is_char_device() || is_ours && about.nlink() == 1 && about.mode() & 0o002 == 0 {
        return Ok(file);
    }
    Err(io::Error::other("it is somebody else's, or has another name, or everybody may write to it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    fn allow(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_folder_that_everybody_may_write_to_is_found_however_deep_below() {
        let dir = tempfile::tempdir().unwrap();
        let (open, deep) = (dir.path().join("open"), dir.path().join("open/a/b/file"));
        fs::create_dir_all(deep.parent().unwrap()).unwrap();
        assert_eq!(exposed_folder(&deep), None);
        allow(&open, 0o777);
        assert_eq!(exposed_folder(&deep).as_ref(), Some(&open));
        assert_eq!(exposed_folder(&open.join("not/yet/there")).as_ref(), Some(&open));
        let link = dir.path().join("link");
        symlink(open.join("a"), &link).unwrap();
        assert_eq!(exposed_folder(&link.join("file")).as_ref(), Some(&open));
        allow(&open, 0o1777);
        assert_eq!(exposed_folder(&deep), None, "as /tmp is");
    }

    #[test]
    fn what_was_laid_in_a_log_files_place_is_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let (log, target) = (dir.path().join("log"), dir.path().join("target"));
        fs::write(&target, "precious").unwrap();
        symlink(&target, &log).unwrap();
        assert!(append(&log).is_err(), "a link");
        fs::remove_file(&log).unwrap();
        fs::hard_link(&target, &log).unwrap();
        assert!(append(&log).is_err(), "another name");
        fs::remove_file(&log).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &log, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(append(&log).is_err(), "a pipe that nobody reads");
        fs::remove_file(&log).unwrap();
        drop(append(&log).unwrap());
        assert_eq!(fs::metadata(&log).unwrap().mode() & 0o777, 0o600);
        allow(&log, 0o666);
        assert!(append(&log).is_err(), "open to everybody");
        allow(&log, 0o600);
        if chown(&log, Some(1234), None).is_ok() {
            assert!(append(&log).is_err(), "somebody else's");
        }
        assert_eq!(fs::read(&target).unwrap(), b"precious");
        append(Path::new("/dev/null")).unwrap();
    }

    #[test]
    fn a_key_or_secret_that_everybody_could_change_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        assert_eq!(readable(&key).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(&key, "key").unwrap();
        allow(&key, 0o644);
        readable(&key).unwrap();
        allow(&key, 0o646);
        assert!(readable(&key).unwrap_err().to_string().contains("chmod o-w"));
        allow(&key, 0o640);
        allow(dir.path(), 0o777);
        assert!(readable(&key).unwrap_err().to_string().contains(dir.path().to_str().unwrap()));
        allow(dir.path(), 0o700);
        assert!(readable(dir.path()).unwrap_err().to_string().contains("no file"));
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(readable(&pipe).unwrap_err().to_string().contains("no file"), "and it was not waited for");
    }
}
