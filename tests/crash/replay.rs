//! A disk as a program's system calls have left it: what is certainly on it, and what may be.
//!
//! What was synced is certain: the bytes of a file by an fsync of the file, a name by an fsync of its folder.
//! Everything else may be there or not, each page and each name separately, in any order. Real file systems promise
//! more.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::trace::Call;

/// The unit of writing: all of a page is on the disk, or nothing of it.
const PAGE: usize = 4096;

/// A folder, and everything below it.
pub struct Disk {
    /// The folder above, which is that of the first node.
    above: PathBuf,
    below: PathBuf,
    nodes: Vec<Node>,
}

/// What is left of everything that was not synced.
#[derive(Clone, Copy, Debug)]
pub enum Left {
    Nothing,
    /// The names, but not the bytes.
    Names,
    /// The bytes, but not the names.
    Bytes,
    /// A part of each, chosen by dice that are the same in each run.
    Some(u64),
}

/// A file or a folder.
struct Node {
    synced: Content,
    changes: Vec<Change>,
    /// The position of the next `write`.
    position: usize,
}

#[derive(Clone)]
enum Content {
    File(Vec<u8>),
    /// Nodes by name.
    Folder(BTreeMap<String, usize>),
}

/// What was done after the last sync, and the line in which that had succeeded.
struct Change {
    line: usize,
    what: What,
}

enum What {
    Bytes(usize, Vec<u8>),
    Length(usize),
    Enter(String, usize),
    Remove(String),
    Move { from: String, to: String, node: usize },
}

impl Disk {
    /// A disk with this folder, all of it synced. The folder need not exist.
    pub fn of(below: &Path) -> Result<Self, String> {
        let above = below.parent().ok_or("no folder above")?.to_owned();
        let mut disk = Self { above, below: below.to_owned(), nodes: vec![Node::folder()] };
        if below.exists() {
            let node = disk.read(below).map_err(|error| error.to_string())?;
            disk.change(0, 0, What::Enter(name(below)?, node));
            disk.sync(0, usize::MAX);
        }
        Ok(disk)
    }

    fn read(&mut self, path: &Path) -> io::Result<usize> {
        let content = match path.is_dir() {
            false => Content::File(std::fs::read(path)?),
            true => {
                let mut entries = BTreeMap::new();
                for entry in std::fs::read_dir(path)? {
                    let entry = entry?;
                    if entry.file_type()?.is_dir() || entry.file_type()?.is_file() {
                        entries.insert(entry.file_name().to_string_lossy().into_owned(), self.read(&entry.path())?);
                    }
                }
                Content::Folder(entries)
            }
        };
        Ok(self.add(content))
    }

    fn add(&mut self, synced: Content) -> usize {
        self.nodes.push(Node { synced, changes: Vec::new(), position: 0 });
        self.nodes.len() - 1
    }

    /// Repeats a call that has succeeded. Returns whether it changed or synced anything here.
    pub fn act(&mut self, call: &Call) -> Result<bool, String> {
        let line = call.succeeded.unwrap_or_default();
        let at_file = call.descriptor().filter(|path| self.is_here(path)).and_then(|path| self.find(&path));
        let paths: Vec<PathBuf> = call.paths().into_iter().filter(|path| self.is_here(path)).collect();
        match (&*call.name, at_file, &*paths) {
            ("write", Some(node), _) => {
                let bytes = written(call)?;
                let at = self.nodes.get_mut(node).map_or(0, |node| node.advance(bytes.len()));
                self.change(node, line, What::Bytes(at, bytes));
            }
            ("pwrite64", Some(node), _) => {
                let at = call.number(3).ok_or_else(|| format!("no offset: {}", call.text))?;
                self.change(node, line, What::Bytes(at, written(call)?));
            }
            ("ftruncate", Some(node), _) => {
                let length = call.number(1).ok_or_else(|| format!("no length: {}", call.text))?;
                self.change(node, line, What::Length(length));
            }
            ("fsync" | "fdatasync", Some(node), _) => self.sync(node, call.began),
            ("openat", _, [path]) => return self.open(path, call, line),
            ("mkdir" | "mkdirat", _, [path]) => {
                let node = self.add(Content::Folder(BTreeMap::new()));
                self.enter(path, node, line)?;
            }
            ("unlink" | "unlinkat" | "rmdir", _, [path]) => {
                let (folder, name) = self.place(path)?;
                self.change(folder, line, What::Remove(name));
            }
            ("rename" | "renameat" | "renameat2", _, [from, to]) => {
                let node = self.find(from).ok_or_else(|| format!("{} is not there", from.display()))?;
                let ((folder, from), (other, to)) = (self.place(from)?, self.place(to)?);
                if folder != other {
                    return Err(format!("this disk moves nothing between folders: {}", call.text));
                }
                self.change(folder, line, What::Move { from, to, node });
            }
            ("writev" | "fallocate" | "link" | "linkat", Some(_), _) | ("link" | "linkat", _, [_, ..]) => {
                return Err(format!("this disk does not know {}", call.name));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn open(&mut self, path: &Path, call: &Call, line: usize) -> Result<bool, String> {
        match self.find(path) {
            Some(node) => {
                if let Some(node) = self.nodes.get_mut(node) {
                    node.position = 0;
                }
                if call.text.contains("O_TRUNC") {
                    self.change(node, line, What::Length(0));
                }
                Ok(call.text.contains("O_TRUNC"))
            }
            None if call.text.contains("O_CREAT") => {
                let node = self.add(Content::File(Vec::new()));
                self.enter(path, node, line).map(|()| true)
            }
            None => Err(format!("{} was opened and is not there", path.display())),
        }
    }

    fn enter(&mut self, path: &Path, node: usize, line: usize) -> Result<(), String> {
        let (folder, name) = self.place(path)?;
        self.change(folder, line, What::Enter(name, node));
        Ok(())
    }

    fn change(&mut self, node: usize, line: usize, what: What) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.changes.push(Change { line, what });
        }
    }

    /// Everything done before this line is certainly on the disk.
    fn sync(&mut self, node: usize, line: usize) {
        if let Some(node) = self.nodes.get_mut(node) {
            let (before, after): (Vec<_>, Vec<_>) = node.changes.drain(..).partition(|change| change.line < line);
            before.into_iter().for_each(|change| node.synced.apply(&change.what));
            node.changes = after;
        }
    }

    fn is_here(&self, path: &Path) -> bool {
        path == self.above || path.starts_with(&self.below)
    }

    /// The node that programs see at this path.
    fn find(&self, path: &Path) -> Option<usize> {
        path.strip_prefix(&self.above).ok()?.components().try_fold(0, |node, name| {
            match self.nodes.get(node)?.content(|_, _| true) {
                Content::Folder(entries) => entries.get(name.as_os_str().to_str()?).copied(),
                Content::File(_) => None,
            }
        })
    }

    /// The folder of a path, and its name there.
    fn place(&self, path: &Path) -> Result<(usize, String), String> {
        let folder = path.parent().and_then(|parent| self.find(parent));
        Ok((folder.ok_or_else(|| format!("{} has no folder", path.display()))?, name(path)?))
    }

    /// Writes what is left after a power cut.
    pub fn leave(&self, left: Left, to: &Path) -> io::Result<()> {
        let mut dice = Dice(if let Left::Some(seed) = left { seed } else { 0 });
        self.leave_node(0, left, &mut dice, to)
    }

    fn leave_node(&self, node: usize, left: Left, dice: &mut Dice, to: &Path) -> io::Result<()> {
        let Some(node) = self.nodes.get(node) else { return Ok(()) };
        let content = node.content(|what, _| match left {
            Left::Nothing => false,
            Left::Names => !matches!(what, What::Bytes(..) | What::Length(_)),
            Left::Bytes => matches!(what, What::Bytes(..) | What::Length(_)),
            Left::Some(_) => dice.fall(),
        });
        match content {
            Content::File(bytes) => {
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?.write_all(&bytes)
            }
            Content::Folder(entries) => {
                match DirBuilder::new().mode(0o700).create(to) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    _ => {}
                }
                entries.iter().try_for_each(|(name, node)| self.leave_node(*node, left, dice, &to.join(name)))
            }
        }
    }
}

impl Node {
    fn folder() -> Self {
        Self { synced: Content::Folder(BTreeMap::new()), changes: Vec::new(), position: 0 }
    }

    fn advance(&mut self, by: usize) -> usize {
        self.position += by;
        self.position - by
    }

    /// What was synced, and of the rest what `is_left` says for each page of a write.
    fn content(&self, mut is_left: impl FnMut(&What, usize) -> bool) -> Content {
        let mut content = self.synced.clone();
        for Change { what, .. } in &self.changes {
            match what {
                What::Bytes(at, bytes) => {
                    for (place, page) in pages(*at, bytes) {
                        if is_left(what, place) {
                            content.write(place, page);
                        }
                    }
                }
                other if is_left(other, 0) => content.apply(other),
                _ => {}
            }
        }
        content
    }
}

impl Content {
    fn apply(&mut self, what: &What) {
        match (self, what) {
            (content @ Self::File(_), What::Bytes(at, bytes)) => content.write(*at, bytes),
            (Self::File(file), What::Length(length)) => file.resize(*length, 0),
            (Self::Folder(entries), What::Enter(name, node)) => drop(entries.insert(name.clone(), *node)),
            (Self::Folder(entries), What::Remove(name)) => drop(entries.remove(name)),
            (Self::Folder(entries), What::Move { from, to, node }) => {
                if entries.get(from) == Some(node) {
                    entries.remove(from);
                }
                entries.insert(to.clone(), *node);
            }
            _ => {}
        }
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        let Self::File(file) = self else { return };
        let end = at + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[at..end].copy_from_slice(bytes);
    }
}

/// The parts of a write that are in different pages, with their places in the file.
fn pages(at: usize, bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let (mut at, mut rest) = (at, bytes);
    std::iter::from_fn(move || {
        let (page, behind) = rest.split_at(rest.len().min(PAGE - at % PAGE));
        let place = at;
        (at, rest) = (at + page.len(), behind);
        (!page.is_empty()).then_some((place, page))
    })
}

fn written(call: &Call) -> Result<Vec<u8>, String> {
    let mut bytes = call.strings().into_iter().next().ok_or_else(|| format!("no bytes: {}", call.name))?;
    bytes.truncate(call.result().unwrap_or(0));
    if call.result() == Some(bytes.len()) { Ok(bytes) } else { Err("strace has not kept all bytes".to_owned()) }
}

fn name(path: &Path) -> Result<String, String> {
    let name = path.file_name().ok_or_else(|| format!("{} has no name", path.display()))?;
    Ok(name.to_string_lossy().into_owned())
}

/// Coins that fall the same way in each run (a linear congruential generator, Knuth's constants).
struct Dice(u64);

impl Dice {
    fn fall(&mut self) -> bool {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 63 == 1
    }
}
