//! Checks that other users cannot have placed or replaced a file.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::{Group, Uid, User};
use rustix::fs::OFlags;
use rustix::io::Errno;

/// The nearest world-writable folder above this path. Anybody could replace the file there, unless the folder has the
/// sticky bit.
fn exposed_folder(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    // The folder of a symlink counts, and so does the folder of its target.
    let real = path.ancestors().skip(1).find_map(|folder| folder.canonicalize().ok())?;
    let mut all = path.ancestors().skip(1).chain(real.ancestors());
    let is_exposed = |metadata: Metadata| metadata.mode() & 0o1002 == 0o0002;
    all.find(|folder| folder.metadata().is_ok_and(is_exposed)).map(Path::to_owned)
}

/// The error for a file in such a folder.
fn exposed(folder: &Path) -> io::Error {
    let folder = folder.display();
    io::Error::other(format!("{folder} is world-writable; run `chmod o-w {folder}`"))
}

/// The kind of contents that others must not be able to replace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Thing {
    State,
    /// A Unix socket. Clients cannot see who created it.
    Socket,
    /// A log file. It is checked again when it is opened, so replacing it cannot redirect our writes.
    Log,
}

/// Checks every folder on the way to this path, and the targets of symlinks, as OpenSSH does: each must belong to root
/// or to this user, and nobody else may write to it. With the sticky bit others may write, because they cannot replace
/// what belongs to root or to us.
///
/// # Errors
///
/// Fails with the first folder in which somebody else could replace something, and with what to do about it.
pub fn judge_folders(path: &Path, thing: Thing) -> io::Result<()> {
    let (mut here, mut links) = (PathBuf::from("/"), 0);
    let mut rest = reversed_names(&std::path::absolute(path)?);
    while let Some(name) = rest.pop() {
        let next = here.join(&name);
        let metadata = next.symlink_metadata().ok();
        judge_folder(&here, metadata.as_ref(), thing, rest.is_empty())?;
        match metadata {
            Some(metadata) if metadata.is_symlink() && !rest.is_empty() => {
                links += 1;
                let target = if links > MOST_LINKS { Err(Errno::LOOP.into()) } else { next.read_link() }?;
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                rest.extend(reversed_names(&target));
            }
            Some(_) if name == ".." => drop(here.pop()),
            Some(_) => here = next,
            // We create what is missing.
            None => break,
        }
    }
    Ok(())
}

/// The number of symlinks that the kernel follows on one path, path_resolution(7).
const MOST_LINKS: u32 = 40;

fn reversed_names(path: &Path) -> Vec<OsString> {
    path.iter().rev().filter(|name| *name != "/").map(OsString::from).collect()
}

fn judge_folder(folder: &Path, child: Option<&Metadata>, thing: Thing, is_last: bool) -> io::Result<()> {
    let metadata = folder.metadata()?;
    let (mode, owner, name) = (metadata.mode(), metadata.uid(), folder.display());
    if !is_trusted(owner) {
        return Err(io::Error::other(format!(
            "{name} belongs to uid {owner}, who could replace its content; choose another folder, or run `chown root {name}`"
        )));
    }
    let by_all = mode & 0o002 != 0;
    let by_group = mode & 0o020 != 0 && !is_private(metadata.gid()) && !(thing == Thing::Log && owner == 0);
    // A missing child is checked once it exists, except a socket, which cannot be checked.
    let is_safe = child.map_or(thing != Thing::Socket, |child| is_trusted(child.uid()));
    match mode & 0o1000 != 0 {
        true if is_last && thing == Thing::Socket && (by_all || by_group) => Err(io::Error::other(format!(
            "others can write to {name} and could create this socket first; put it in a separate folder"
        ))),
        true if is_safe => Ok(()),
        _ if by_all => Err(exposed(folder)),
        _ if by_group => Err(io::Error::other(format!("{name} is group-writable; run `chmod g-w {name}`"))),
        _ => Ok(()),
    }
}

/// Whether a user is trusted: root, this user, and the owner of the root folder, because a user namespace may show root
/// as nobody.
fn is_trusted(uid: u32) -> bool {
    let root = Path::new("/").metadata().map(|metadata| metadata.uid());
    uid == 0 || uid == rustix::process::geteuid().as_raw() || root.is_ok_and(|root| root == uid)
}

/// Whether nobody else is in this group: it has this user's name, as distributions create one for each user.
fn is_private(gid: u32) -> bool {
    let user = User::from_uid(Uid::effective()).ok().flatten();
    let group = Group::from_gid(gid.into()).ok().flatten();
    user.zip(group).is_some_and(|(user, group)| {
        user.name == group.name && user.gid == group.gid && group.mem.iter().all(|member| *member == user.name)
    })
}

/// Opens a file that the configuration names, if it is not world-writable. Follows symlinks, because certificates are
/// often symlinks.
pub fn readable(path: &Path) -> io::Result<()> {
    // NONBLOCK, because opening a pipe would wait for a writer.
    let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    if metadata.mode() & 0o002 != 0 {
        return Err(io::Error::other(format!("it is world-writable; run `chmod o-w {}`", path.display())));
    }
    exposed_folder(path).map_or(Ok(()), |folder| Err(exposed(&folder)))
}

/// Opens a file to append to, or creates it for this user only. An existing file has to belong to this user or root and
/// have no second link, so that nobody can redirect our writes.
pub fn append(path: &Path) -> io::Result<File> {
    judge_folders(path, Thing::Log)?;
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    let is_ours = [0, rustix::process::geteuid().as_raw()].contains(&metadata.uid());
    // A terminal or /dev/null is for everybody.
    if metadata.file_type().is_char_device() || is_ours && metadata.nlink() == 1 && metadata.mode() & 0o002 == 0 {
        return Ok(file);
    }
    Err(io::Error::other("it belongs to another user, has a second hard link, or is world-writable; move it away"))
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
    fn a_world_writable_folder_is_found_at_any_depth() {
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

    /// Judges a path as each thing: the state, a socket, a log.
    fn judged(path: &Path) -> [bool; 3] {
        [Thing::State, Thing::Socket, Thing::Log].map(|thing| judge_folders(path, thing).is_ok())
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (above, path) = (dir.path().join("above"), dir.path().join("above/below/thing"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        assert_eq!(judged(&path), [true; 3], "under /tmp, which is sticky");
        for folder in [above.as_path(), path.parent().unwrap()] {
            for (mode, expected) in [(0o777, [false; 3]), (0o757, [false; 3]), (0o755, [true; 3])] {
                allow(folder, mode);
                assert_eq!(judged(&path), expected, "{mode:o} {}", folder.display());
            }
        }
        allow(&above, 0o1777);
        assert_eq!(judged(&path), [true; 3], "the folder below is ours");
        assert_eq!(judged(&above.join("thing")), [true, false, true], "anybody could create the socket");
        assert_eq!(judged(&above.join("missing/thing")), [true, false, true]);
    }

    #[test]
    fn a_folder_of_another_user_or_group_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let (above, path) = (dir.path().join("above"), dir.path().join("above/below/thing"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if chown(&above, Some(1234), None).is_err() {
            eprintln!("skipped: only root can give a folder away");
            return;
        }
        assert_eq!(judged(&path), [false; 3]);
        let said = judge_folders(&path, Thing::State).unwrap_err().to_string();
        assert!(said.contains(&format!("run `chown root {}`", above.display())) && said.contains("1234"), "{said}");
        let link = dir.path().join("link");
        symlink(above.join("below"), &link).unwrap();
        assert_eq!(judged(&link.join("thing")), [false; 3], "the target of a link counts");
        chown(&above, Some(0), Some(1234)).unwrap();
        allow(&above, 0o775);
        assert_eq!(judged(&path), [false, false, true], "as /var/log belongs to the group syslog");
        let said = judge_folders(&path, Thing::Socket).unwrap_err().to_string();
        assert!(said.contains(&format!("run `chmod g-w {}`", above.display())), "{said}");
        allow(&above, 0o1777);
        chown(above.join("below"), Some(1234), None).unwrap();
        assert_eq!(judged(&path), [false; 3], "somebody else created it first");
    }

    #[test]
    fn a_link_in_a_folder_of_others_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (open, link) = (dir.path().join("open"), dir.path().join("link"));
        fs::create_dir(&open).unwrap();
        fs::create_dir(dir.path().join("own")).unwrap();
        symlink(dir.path().join("own"), open.join("inner")).unwrap();
        symlink("open/inner", &link).unwrap();
        assert_eq!(judged(&link.join("thing")), [true; 3]);
        allow(&open, 0o777);
        assert_eq!(judged(&link.join("thing")), [false; 3], "somebody could replace the link in the middle");
        symlink("round", dir.path().join("round")).unwrap();
        assert!(judge_folders(&dir.path().join("round/thing"), Thing::State).is_err());
    }

    #[test]
    fn only_a_regular_file_of_ours_is_opened_as_a_log() {
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
    fn a_key_that_others_could_replace_is_not_read() {
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
        assert!(readable(dir.path()).unwrap_err().to_string().contains("not a file"));
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(readable(&pipe).unwrap_err().to_string().contains("not a file"), "and it was not waited for");
    }
}
