//! `ArchiveGet`: a path of a container as a tar stream, with the names `docker cp` wants.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::Path;

use proto::sandbox::PathStat;
use rustix::fs::{FileType, major, minor};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

use super::FilesError;
use super::node::Node;
use super::root::{MAX_NAMES, NAME_COST, Root, join, names};
use super::stat::{absolute, base, describe};

/// The attribute docker carries in archives.
const CAPABILITY: &str = "security.capability";
/// Largest value of an octal field of 12 bytes (size, mtime), and of 8 bytes (uid, gid).
const OCTAL_12: u64 = 0o77_777_777_777;
const OCTAL_8: u64 = 0o7_777_777;
/// File systems of the kernel: listed, but not entered (`PROC_SUPER_MAGIC` etc., linux/magic.h).
const KERNEL_FILESYSTEMS: [i64; 5] = [0x9fa0, 0x6265_6572, 0x6367_7270, 0x1cd1, 0x1980_0202];

/// A path that was found and can be sent.
#[derive(Debug)]
pub(crate) struct Source {
    /// For the first message of the stream.
    pub(crate) stat: PathStat,
    root: Root,
    path: String,
    node: Node,
}

/// Looks up `path`; a symlink at its end is sent itself, unless the path ends in `/` or `/.`.
///
/// # Errors
/// As [`super::stat()`].
pub(crate) fn get(root: &Path, path: &str) -> Result<Source, FilesError> {
    let root = Root::open(root)?;
    let path = absolute(path);
    let node = root.node(path.as_bytes()).map_err(|errno| FilesError::at(&path, errno))?;
    Ok(Source { stat: describe(&root, &path, &node), root, path, node })
}

impl Source {
    /// Writes the archive and flushes it. Entries are called after the base name of the path (`.` for a path ending in
    /// `/.`). Below the path, what vanishes or cannot be read is left out, and a file that changes its size meanwhile is
    /// cut or filled with zeros.
    ///
    /// # Errors
    /// [`FilesError::Stream`] when `out` fails; `NotFound` etc. when the path itself cannot be read any more.
    pub(crate) fn write(self, out: impl Write) -> Result<(), FilesError> {
        let mut archive = Archive { builder: Builder::new(out), seen: HashMap::new() };
        let name = match base(&self.path) {
            "/" => "",
            name => name,
        };
        let device = self.node.stat.st_dev;
        // Depth first with the names to come; a directory's own descriptor is closed before its children are visited.
        let mut todo = vec![(name.as_bytes().to_vec(), self.path.clone().into_bytes())];
        let mut first = Some(self.node);
        let mut held = 0;
        while let Some((name, path)) = todo.pop() {
            held -= cost(&name, &path).min(held);
            let top = first.is_some();
            let Ok(node) = first.take().map_or_else(|| self.root.node(&path), Ok) else { continue };
            match archive.append(&name, &node) {
                Err(FilesError::Stream(error)) => return Err(FilesError::Stream(error)),
                Err(error) if top => return Err(error),
                _ => {}
            }
            if !node.is_directory() || (node.stat.st_dev != device && is_kernels(&node)) {
                continue;
            }
            let children = match node.list().and_then(|directory| names(&directory)) {
                Ok(children) => children,
                Err(errno) if top || errno == Errno::TOOBIG => return Err(FilesError::at(&path, errno)),
                Err(_) => continue,
            };
            for child in children.into_iter().rev() {
                let next = (join_name(&name, &child), join(&path, &child));
                held += cost(&next.0, &next.1);
                todo.push(next);
            }
            if held + archive.seen.len() * (NAME_COST + name.len()) > MAX_NAMES {
                return Err(FilesError::at(&path, Errno::TOOBIG));
            }
        }
        let mut out = archive.builder.into_inner().map_err(FilesError::Stream)?;
        out.flush().map_err(FilesError::Stream)
    }
}

fn cost(name: &[u8], path: &[u8]) -> usize {
    name.len() + path.len() + NAME_COST
}

struct Archive<W: Write> {
    builder: Builder<W>,
    /// The first name of each file with several (by device and inode).
    seen: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Archive<W> {
    fn append(&mut self, name: &[u8], node: &Node) -> Result<(), FilesError> {
        let stat = &node.stat;
        let mut entry = Entry::new(name, node);
        let mut content = None;
        match node.kind() {
            FileType::Directory => {
                entry.header.set_entry_type(EntryType::Directory);
                entry.name.push(b'/');
            }
            FileType::Symlink => {
                entry.header.set_entry_type(EntryType::Symlink);
                entry.link = node.link().map_err(|errno| FilesError::at(name, errno))?;
            }
            FileType::RegularFile => {
                content = Some(node.read().map_err(|errno| FilesError::at(name, errno))?);
            }
            FileType::Fifo => entry.header.set_entry_type(EntryType::Fifo),
            kind @ (FileType::CharacterDevice | FileType::BlockDevice) => {
                let char = kind == FileType::CharacterDevice;
                entry.header.set_entry_type(if char { EntryType::Char } else { EntryType::Block });
                let fields = entry.header.set_device_major(major(stat.st_rdev));
                fields
                    .and_then(|()| entry.header.set_device_minor(minor(stat.st_rdev)))
                    .map_err(FilesError::Stream)?;
            }
            // A tar has no sockets; docker leaves them out too.
            _ => return Ok(()),
        }
        if !node.is_directory() && stat.st_nlink > 1 {
            let first = self.seen.entry(node.identity()).or_insert_with(|| entry.name.clone());
            if *first != entry.name {
                entry.header.set_entry_type(EntryType::Link);
                entry.link = first.clone();
                content = None;
            }
        }
        let size = if content.is_some() { node.size() } else { 0 };
        let content: &mut dyn Read = match &mut content {
            Some(file) => file,
            None => &mut io::empty(),
        };
        entry.write(&mut self.builder, size, node, content).map_err(FilesError::Stream)
    }
}

struct Entry {
    header: Header,
    name: Vec<u8>,
    link: Vec<u8>,
    records: Vec<(&'static str, Vec<u8>)>,
}

impl Entry {
    fn new(name: &[u8], node: &Node) -> Self {
        let mut header = Header::new_ustar();
        let mut records = Vec::new();
        header.set_mode(node.permissions());
        let (uid, gid) = (u64::from(node.stat.st_uid), u64::from(node.stat.st_gid));
        header.set_uid(octal("uid", uid, OCTAL_8, &mut records));
        header.set_gid(octal("gid", gid, OCTAL_8, &mut records));
        // Whole seconds, as docker sends them.
        match u64::try_from(node.stat.st_mtime) {
            Ok(time) => header.set_mtime(octal("mtime", time, OCTAL_12, &mut records)),
            Err(_) => {
                header.set_mtime(0);
                records.push(("mtime", node.stat.st_mtime.to_string().into_bytes()));
            }
        }
        Self { header, name: name.to_vec(), link: Vec::new(), records }
    }

    fn write(
        mut self,
        builder: &mut Builder<impl Write>,
        size: u64,
        node: &Node,
        content: &mut dyn Read,
    ) -> io::Result<()> {
        self.header.set_size(octal("size", size, OCTAL_12, &mut self.records));
        if self.header.entry_type() == EntryType::Regular
            && let Some(value) = node.xattr(CAPABILITY)
        {
            self.records.push(("SCHILY.xattr.security.capability", value));
        }
        let fields = self.header.as_old_mut();
        if !put_text(&mut fields.name, &self.name) {
            self.records.push(("path", self.name));
        }
        if !put_text(&mut fields.linkname, &self.link) {
            self.records.push(("linkpath", self.link));
        }
        self.header.set_cksum();
        builder.append_pax_extensions(self.records.iter().map(|(key, value)| (*key, value.as_slice())))?;
        builder.append(&self.header, Exactly { content, left: size, ended: false })
    }
}

/// Yields just `left` bytes: what a header announced must follow, whatever became of the file.
struct Exactly<'a> {
    content: &'a mut dyn Read,
    left: u64,
    ended: bool,
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let mut count = 0;
        if length > 0 && !self.ended {
            count = match self.content.read(&mut buffer[..length]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                read => read.unwrap_or(0),
            };
            self.ended = count == 0;
        }
        if self.ended {
            buffer[..length].fill(0);
            count = length;
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// The value for an octal field, or 0 and a PAX record when it is too large.
fn octal(key: &'static str, value: u64, max: u64, records: &mut Vec<(&'static str, Vec<u8>)>) -> u64 {
    if value <= max {
        return value;
    }
    records.push((key, value.to_string().into_bytes()));
    0
}

/// Fills a text field; false when only a part of it fits, or when it is not ASCII and should be a PAX record as well.
fn put_text(field: &mut [u8; 100], text: &[u8]) -> bool {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
    length == text.len() && text.is_ascii()
}

/// Names below the root directory begin with a slash, as docker has it.
fn join_name(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { [b"/", name].concat() } else { join(directory, name) }
}

fn is_kernels(node: &Node) -> bool {
    #[allow(clippy::unnecessary_cast, reason = "the type differs between architectures")]
    rustix::fs::fstatfs(node.fd()).is_ok_and(|fs| KERNEL_FILESYSTEMS.contains(&(fs.f_type as i64)))
}
