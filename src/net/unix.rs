//! Unix sockets: creating them, even if a dead process has left one behind, and removing them.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixSocket};

use super::listen::BACKLOG;
use crate::guard::{self, Thing};

/// Creates a socket with these permissions. A stale socket, on which nobody listens, is replaced.
///
/// # Errors
///
/// Fails if the socket cannot be created, if somebody listens on it, if something else is in its place, or if other
/// users could replace it.
pub fn bind(path: &Path, mode: u32) -> io::Result<UnixListener> {
    guard::judge_folders(path, Thing::Socket)?;
    match fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => {
            if is_alive(path)? {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            fs::remove_file(path)?;
        }
        Ok(_) => return Err(io::Error::other("something that is not a socket is in its place")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    // Set the mode before listening, so that nobody can connect earlier.
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)
}

/// Whether somebody listens on the socket. If its queue is full, somebody does.
fn is_alive(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(true),
    }
}

/// The file of a socket. Dropping this removes it, unless it is another file by then.
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    /// The file of a socket that has been bound to this path.
    pub fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }

    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        match self.is_there() {
            true => fs::set_permissions(&self.path, Permissions::from_mode(mode)),
            false => Err(io::Error::other("the socket's file was removed; restart postkey")),
        }
    }

    fn is_there(&self) -> bool {
        identity(&self.path).is_ok_and(|there| there == self.identity)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_there() {
            // The next start replaces a file that is left behind.
            let _left = fs::remove_file(&self.path);
        }
    }
}

/// Device and inode.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|there| (there.dev(), there.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        (folder, path)
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced() {
        let (_folder, path) = folder();
        let alive = bind(&path, 0o600).unwrap();
        assert_eq!(bind(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(alive);
        let _next = bind(&path, 0o660).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
    }

    #[tokio::test]
    async fn another_file_and_an_unsafe_folder_are_left_alone() {
        let (folder, path) = folder();
        fs::write(&path, "precious").unwrap();
        assert!(bind(&path, 0o600).unwrap_err().to_string().contains("not a socket"));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::remove_file(&path).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(bind(&path, 0o600).unwrap_err().to_string().contains("chmod o-w"));
    }

    #[tokio::test]
    async fn dropping_removes_only_its_own_file() {
        let (_folder, path) = folder();
        let _first = bind(&path, 0o600).unwrap();
        drop(SocketFile::of(&path).unwrap());
        assert!(!path.exists());
        let _second = bind(&path, 0o600).unwrap();
        let file = SocketFile::of(&path).unwrap();
        fs::rename(&path, path.with_extension("old")).unwrap();
        fs::write(&path, "another").unwrap();
        drop(file);
        assert!(path.exists());
    }
}
