//! `ArchivePut`: unpacking a tar stream into a directory of a container.

use std::io::{self, Read};
use std::path::Path;

use tar::EntryType;

use super::FilesError;
use super::pax::{Member, TarReader};
use super::place::{Metadata, Placer};
use super::root::{Root, join};
use super::stat::absolute;

/// How to unpack.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PutOptions {
    /// Replacing a directory by something else, or the reverse, is an error instead of a removal.
    pub(crate) no_overwrite_dir_non_dir: bool,
    /// Owner of everything unpacked, in place of the owners in the tar. Docker's `copyUIDGID` (`docker cp -a`) means the
    /// container's `--user` here, and nothing when it has none.
    pub(crate) chown: Option<(u32, u32)>,
    /// The container runs with `--read-only`.
    pub(crate) read_only: bool,
}

/// Unpacks `tar` into the directory `path` (symlinks followed within the container) and reads it to its end. What exists
/// is replaced, directories are merged. Missing parents are made. An error leaves what was unpacked before it.
///
/// # Errors
/// Typed as docker answers them; see [`FilesError`].
pub(crate) fn put(root: &Path, path: &str, tar: impl Read, options: &PutOptions) -> Result<(), FilesError> {
    let root = Root::open(root)?;
    let path = absolute(path);
    let destination = match root.follow(path.as_bytes()) {
        Ok(node) if node.is_directory() => {
            path.trim_end_matches('.').trim_end_matches('/').as_bytes().to_vec()
        }
        Ok(_) | Err(rustix::io::Errno::NOTDIR) => return Err(FilesError::ExtractionPoint),
        Err(errno) => return Err(FilesError::at(&path, errno)),
    };
    if options.read_only {
        return Err(FilesError::ReadOnlyRootfs);
    }
    let placer = Placer { root: &root, no_overwrite: options.no_overwrite_dir_non_dir };
    let mut reader = TarReader::new(tar);
    // Set last: unpacking into a directory changes its time.
    let mut directory_times = Vec::new();
    while let Some(member) = reader.next().map_err(stream_error)? {
        let name = relative(&member.name)
            .ok_or_else(|| FilesError::Breakout(lossy(&member.name), lossy(&destination)))?;
        let metadata = metadata(&member, options)?;
        if name.is_empty() {
            // The destination itself stays as it is, as in docker.
            continue;
        }
        let parent = placer.parent(&destination, &name)?;
        let target = join(&destination, &name);
        match member.kind {
            EntryType::Directory => {
                placer.directory(&parent, &target, &metadata)?;
                directory_times.push((target, metadata.mtime));
            }
            EntryType::Regular | EntryType::Continuous => {
                let mut file = placer.file(&parent, &target)?;
                copy(&mut reader, &mut file, &target)?;
                metadata.apply(&file.into(), &target)?;
            }
            EntryType::Link => {
                let link = relative(&member.link)
                    .ok_or_else(|| FilesError::Breakout(lossy(&member.link), lossy(&destination)))?;
                placer.hard_link(&parent, &target, &join(&destination, &link))?;
            }
            EntryType::Symlink => placer.symlink(&parent, &target, &member.link, &metadata)?,
            EntryType::Fifo | EntryType::Char | EntryType::Block => {
                placer.special(&parent, &target, member.kind, member.device, &metadata)?;
            }
            other => {
                let words =
                    format!("unhandled tar header type {} of {:?}", other.as_byte(), lossy(&member.name));
                return Err(FilesError::Tar(io::Error::new(io::ErrorKind::InvalidData, words)));
            }
        }
    }
    for (directory, mtime) in directory_times.into_iter().rev() {
        placer.directory_time(&directory, mtime);
    }
    Ok(())
}

/// The name without `.` and `..`, relative to the destination; `None` when it leads out of it.
fn relative(name: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                // `/..` is `/`, but a relative name may not climb.
                if parts.pop().is_none() && !name.starts_with(b"/") {
                    return None;
                }
            }
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

fn metadata<'a>(member: &'a Member, options: &PutOptions) -> Result<Metadata<'a>, FilesError> {
    let id = |id: u64| {
        // The highest number means "leave as it is" to the kernel.
        let id = u32::try_from(id).ok().filter(|&id| id != u32::MAX);
        id.ok_or_else(|| {
            let words = format!("owner of {:?} is out of range", lossy(&member.name));
            FilesError::Tar(io::Error::new(io::ErrorKind::InvalidData, words))
        })
    };
    let (uid, gid) = match options.chown {
        Some(owner) => owner,
        None => (id(member.uid)?, id(member.gid)?),
    };
    Ok(Metadata { mode: member.mode & 0o7777, uid, gid, mtime: member.mtime, xattrs: &member.xattrs })
}

/// Copies a member's content; tells errors of the stream from those of the disk.
fn copy(from: &mut impl Read, to: &mut std::fs::File, target: &[u8]) -> Result<(), FilesError> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(stream_error(error)),
        };
        io::Write::write_all(to, &buffer[..count]).map_err(|error| FilesError::Io(lossy(target), error))?;
    }
}

fn stream_error(error: io::Error) -> FilesError {
    match error.kind() {
        io::ErrorKind::InvalidData => FilesError::Tar(error),
        io::ErrorKind::UnexpectedEof => {
            FilesError::Tar(io::Error::new(io::ErrorKind::UnexpectedEof, "unexpected EOF"))
        }
        _ => FilesError::Stream(error),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;
