//! The content store: blobs by digest. A blob has its final name only once its digest matched.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use tempfile::{NamedTempFile, TempPath};

use crate::{
    digest::{Digest, HashingReader},
    error::{Error, Result},
};

/// Blobs under `blobs/sha256/`; half-written ones under `tmp/` of the same file system.
pub(crate) struct ContentStore {
    blobs: PathBuf,
    tmp: PathBuf,
}

impl ContentStore {
    /// Makes the folders and empties `tmp/`.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let store = Self { blobs: root.join("blobs/sha256"), tmp: root.join("tmp") };
        match fs::remove_dir_all(&store.tmp) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(folder = %store.tmp.display(), %error, "cannot empty it");
            }
            _ => {}
        }
        for dir in [&store.blobs, &store.tmp] {
            fs::create_dir_all(dir).map_err(Error::io("make the folder", dir))?;
        }
        Ok(store)
    }

    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// Where half-made files are.
    pub(crate) fn tmp(&self) -> &Path {
        &self.tmp
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.blobs
    }

    /// Size of a blob, if it is here.
    pub(crate) fn size(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.path(digest)).ok().map(|m| m.len())
    }

    pub(crate) fn open_blob(&self, digest: &Digest) -> Result<File> {
        let path = self.path(digest);
        File::open(&path).map_err(Error::io("open the blob", &path))
    }

    /// A whole small blob.
    pub(crate) fn read(&self, digest: &Digest) -> Result<Vec<u8>> {
        let path = self.path(digest);
        fs::read(&path).map_err(Error::io("read the blob", &path))
    }

    /// Removes a blob that does not have its digest; whether it was so.
    pub(crate) fn remove_if_damaged(&self, digest: &Digest) -> Result<bool> {
        let path = self.path(digest);
        let mut reader = HashingReader::new(File::open(&path).map_err(Error::io("open the blob", &path))?);
        io::copy(&mut reader, &mut io::sink()).map_err(Error::io("read the blob", &path))?;
        if reader.digest() == *digest {
            return Ok(false);
        }
        fs::remove_file(&path).map_err(Error::io("remove the damaged blob", &path))?;
        Ok(true)
    }

    /// A file under `tmp/`, removed unless it is renamed.
    pub(crate) fn temporary(&self) -> Result<NamedTempFile> {
        NamedTempFile::new_in(&self.tmp).map_err(Error::io("make a file in", &self.tmp))
    }

    pub(crate) fn writer(&self) -> Result<BlobWriter> {
        Ok(BlobWriter { file: self.temporary()?, hasher: Sha256::new(), len: 0, blobs: self.blobs.clone() })
    }

    /// Stores bytes whose digest the caller has computed or checked.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let mut writer = self.writer()?;
        writer.write(bytes)?;
        writer.commit(None)
    }

    /// Stores a stream; with `expected` only if its digest matches.
    pub(crate) fn import(&self, mut from: impl Read, expected: Option<&Digest>) -> Result<(Digest, u64)> {
        let mut writer = self.writer()?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let n = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::Corrupt(format!("cannot read the archive: {e}"))),
            };
            writer.write(&buffer[..n])?;
        }
        let len = writer.len();
        Ok((writer.commit(expected)?, len))
    }
}

/// A blob being written.
pub(crate) struct BlobWriter {
    file: NamedTempFile,
    hasher: Sha256,
    len: u64,
    blobs: PathBuf,
}

impl BlobWriter {
    /// Bytes written so far.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io("write", self.file.path()))?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Forgets what was written, for a server that cannot resume.
    pub(crate) fn restart(&mut self) -> Result<()> {
        let file = self.file.as_file_mut();
        let emptied = file.set_len(0).and_then(|()| file.rewind());
        emptied.map_err(Error::io("empty", self.file.path()))?;
        self.hasher = Sha256::new();
        self.len = 0;
        Ok(())
    }

    /// Checks the digest and gives the blob its final name, durably.
    pub(crate) fn commit(self, expected: Option<&Digest>) -> Result<Digest> {
        let digest = Digest::from_hash(self.hasher);
        if let Some(expected) = expected.filter(|e| **e != digest) {
            return Err(Error::Corrupt(format!(
                "filesystem layer verification failed for digest {expected}: received {digest}"
            )));
        }
        let (file, path) = self.file.into_parts();
        persist(&file, path, &self.blobs.join(digest.hex()))?;
        Ok(digest)
    }
}

/// Flushes a temporary file and renames it into place, so that a crash leaves either all or nothing.
pub(crate) fn persist(file: &File, from: TempPath, to: &Path) -> Result<()> {
    file.sync_all().map_err(Error::io("flush", &from))?;
    from.persist(to).map_err(|e| Error::io("rename to", to)(e.error))?;
    let dir = to.parent().unwrap_or(Path::new("."));
    File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io("flush", dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_matching_content_gets_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let store = ContentStore::open(dir.path()).unwrap();
        let right = Digest::of(b"content");
        let error = store.import(&b"other"[..], Some(&right)).unwrap_err();
        assert!(matches!(error, Error::Corrupt(_)), "{error}");
        assert_eq!(store.size(&right), None);
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
        let mut writer = store.writer().unwrap();
        writer.write(b"half of another").unwrap();
        writer.restart().unwrap();
        writer.write(b"content").unwrap();
        assert_eq!(writer.commit(Some(&right)).unwrap(), right);
        assert_eq!(store.read(&right).unwrap(), b"content");
        fs::write(dir.path().join("tmp/left"), "x").unwrap();
        ContentStore::open(dir.path()).unwrap();
        assert!(!dir.path().join("tmp/left").exists());
    }
}
