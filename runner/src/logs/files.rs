//! Names and identities of a log and its rotated files.

use std::{
    fs::{File, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// More rotated files than anyone keeps: bounds a search.
const MAX_FILES: u32 = 1000;

/// `path` for 0, else the rotated file with that suffix.
pub(super) fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// Device and inode: what a name cannot tell while files are being renamed.
pub(super) type Identity = (u64, u64);

pub(super) fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// All files of a log that exist, oldest first; each once, though a rotation may happen meanwhile.
pub(super) fn open_all(path: &Path) -> io::Result<Vec<File>> {
    let mut found: Vec<(Identity, File)> = Vec::new();
    // Newest first: a file that is renamed while we look is met again under the next number, never missed.
    for number in 0..MAX_FILES {
        match File::open(numbered(path, number)) {
            Ok(file) => {
                let id = identity(&file.metadata()?);
                if !found.iter().any(|(other, _)| *other == id) {
                    found.push((id, file));
                }
            }
            // Between a rename and the next create there is no current file.
            Err(error) if error.kind() == io::ErrorKind::NotFound && number == 0 => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    Ok(found.into_iter().rev().map(|(_, file)| file).collect())
}

/// The file that follows the one with `id`; `None` when that is still the newest. If it was deleted meanwhile, the oldest.
pub(super) fn successor(path: &Path, id: Identity) -> io::Result<Option<File>> {
    let mut next = None;
    for file in open_all(path)?.into_iter().rev() {
        if identity(&file.metadata()?) == id {
            return Ok(next);
        }
        next = Some(file);
    }
    Ok(next)
}
