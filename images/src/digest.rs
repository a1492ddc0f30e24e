//! SHA-256 digests, the only ones content is stored by.

use std::{fmt, io, str::FromStr};

use sha2::{Digest as _, Sha256};

use crate::error::Error;

/// A checked `sha256:` digest: its hex part is safe as a file name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Digest(String);

impl Digest {
    /// The digest of `bytes`.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self::from_hash(Sha256::new_with_prefix(bytes))
    }

    pub(crate) fn from_hash(hasher: Sha256) -> Self {
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in hasher.finalize() {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from_digit(nibble.into(), 16).unwrap_or('0'));
            }
        }
        Self(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn hex(&self) -> &str {
        self.0.strip_prefix("sha256:").unwrap_or(&self.0)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.starts_with("sha256:") && crate::reference::is_digest(text) {
            return Ok(Self(text.to_owned()));
        }
        let shown: String = text.chars().take(100).collect();
        Err(Error::InvalidParameter(format!(
            "invalid or unsupported digest {shown:?}: expected sha256:<64 hex digits>"
        )))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The chain ID of layers, lowest first: what docker calls a layer with all below it (OCI image-spec `config.md`).
pub(crate) fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    let (first, rest) = diff_ids.split_first()?;
    Some(rest.iter().fold(first.clone(), |chain, diff| Digest::of(format!("{chain} {diff}").as_bytes())))
}

/// Hashes what is read through it.
pub(crate) struct HashingReader<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: io::Read> HashingReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, hasher: Sha256::new() }
    }

    pub(crate) fn digest(self) -> Digest {
        Digest::from_hash(self.hasher)
    }
}

impl<R: io::Read> io::Read for HashingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(&buf[..n]);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_and_chains() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").as_str(), empty);
        let a: Digest = empty.parse().unwrap();
        assert_eq!(chain_id(std::slice::from_ref(&a)), Some(a.clone()));
        let both = Digest::of(format!("{empty} {empty}").as_bytes());
        assert_eq!(chain_id(&[a.clone(), a]), Some(both));
        for bad in ["sha256:../x", "sha512:00", "", &empty.to_uppercase()] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
