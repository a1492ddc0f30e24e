//! Image references: docker's grammar, defaults and error texts (`distribution/reference`).

use std::{fmt, str::FromStr};

use crate::error::Error;

const DEFAULT_DOMAIN: &str = "docker.io";
const OFFICIAL: &str = "library/";
const MAX_NAME: usize = 255;

/// A normalised image name: `[domain/]path[:tag][@digest]`, always with its domain.
///
/// `busybox` becomes `docker.io/library/busybox`; the tag stays absent until [`Reference::tagged`] or
/// [`Reference::tag_or_latest`] supplies docker's default.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Reference {
    /// Registry host, with its port: `docker.io`, `127.0.0.1:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Repository path within the registry: `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag as written, if any.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest as written, if any.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// `domain/path`, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The name as users write it: `docker.io` and `library/` left out.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix(OFFICIAL) {
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// The whole reference as users write it: `busybox:latest`, `busybox@sha256:…`.
    pub fn familiar(&self) -> String {
        self.suffixed(self.familiar_name())
    }

    /// The same reference with the tag `latest` if it has neither tag nor digest.
    #[must_use]
    pub fn tag_or_latest(&self) -> Self {
        let mut full = self.clone();
        if full.tag.is_none() && full.digest.is_none() {
            full.tag = Some("latest".into());
        }
        full
    }

    /// The same repository with this tag and no digest.
    pub fn tagged(&self, tag: &str) -> Result<Self, Error> {
        if !is_tag(tag) {
            return Err(Error::InvalidParameter("invalid tag format".into()));
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository with this digest and no tag.
    pub fn digested(&self, digest: &str) -> Result<Self, Error> {
        if !is_digest(digest) {
            return Err(Error::InvalidParameter("invalid digest format".into()));
        }
        Ok(Self { tag: None, digest: Some(digest.to_owned()), ..self.clone() })
    }

    fn suffixed(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text = format!("{text}:{tag}");
        }
        if let Some(digest) = &self.digest {
            text = format!("{text}@{digest}");
        }
        text
    }
}

/// The canonical form, with domain and `library/`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffixed(self.name()))
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |why: &str| Error::InvalidParameter(why.to_owned());
        if text.len() == 64 && text.bytes().all(is_lower_hex) {
            return Err(invalid(&format!(
                "invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
            )));
        }
        let (domain, rest) = split_domain(text);
        let name = rest.split_once('@').map_or(rest.as_str(), |(name, _)| name);
        let name = name.split_once(':').map_or(name, |(name, _)| name);
        if name.chars().any(char::is_uppercase) {
            return Err(invalid(&format!(
                "invalid reference format: repository name ({name}) must be lowercase"
            )));
        }
        let (named, digest) = match rest.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (rest.as_str(), None),
        };
        let (path, tag) = match named.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (named, None),
        };
        let well_formed =
            is_domain(&domain) && is_path(path) && tag.is_none_or(is_tag) && digest.is_none_or(is_digest);
        if !well_formed {
            return Err(invalid("invalid reference format"));
        }
        if domain.len() + 1 + path.len() > MAX_NAME {
            return Err(invalid(&format!("repository name must not be more than {MAX_NAME} characters")));
        }
        Ok(Self {
            domain,
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }
}

/// Tells a registry host from the first part of a path: it has a dot, a port, is `localhost`, or has
/// upper case letters (which no path may have).
fn split_domain(text: &str) -> (String, String) {
    let (domain, rest) = match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.chars().any(char::is_uppercase) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, text),
    };
    let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
    if domain == DEFAULT_DOMAIN && !rest.contains('/') {
        (domain.to_owned(), format!("{OFFICIAL}{rest}"))
    } else {
        (domain.to_owned(), rest.to_owned())
    }
}

fn is_lower_hex(b: u8) -> bool {
    b.is_ascii_digit() || (b'a'..=b'f').contains(&b)
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = if let Some(literal) = domain.strip_prefix('[') {
        let Some((address, port)) = literal.split_once(']') else { return false };
        let plain = !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
        return plain && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    } else {
        domain.split_once(':').map_or((domain, None), |(host, port)| (host, Some(port)))
    };
    let component = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    host.split('.').all(component) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
}

/// Components of lower case letters and digits, joined inside by one `.`, one or two `_`, or any number of `-`.
fn is_path(path: &str) -> bool {
    path.split('/').all(|component| {
        let mut separator = String::new();
        let mut after_text = false;
        for c in component.chars() {
            if c.is_ascii_lowercase() || c.is_ascii_digit() {
                let joined = separator.is_empty()
                    || (after_text
                        && (matches!(separator.as_str(), "." | "_" | "__")
                            || separator.chars().all(|c| c == '-')));
                if !joined {
                    return false;
                }
                separator.clear();
                after_text = true;
            } else if matches!(c, '.' | '_' | '-') {
                separator.push(c);
            } else {
                return false;
            }
        }
        after_text && separator.is_empty()
    })
}

/// Whether `tag` may follow a `:`.
pub(crate) fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

/// Whether `digest` is a digest of an algorithm docker knows.
pub(crate) fn is_digest(digest: &str) -> bool {
    let Some((algorithm, hex)) = digest.split_once(':') else { return false };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    hex.len() == length && hex.bytes().all(is_lower_hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn normalises_as_docker() {
        let digest = format!("sha256:{HEX}");
        for (text, canonical, familiar) in [
            ("busybox", "docker.io/library/busybox", "busybox"),
            ("busybox:1.2", "docker.io/library/busybox:1.2", "busybox:1.2"),
            ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
            ("index.docker.io/library/busybox", "docker.io/library/busybox", "busybox"),
            ("me/app", "docker.io/me/app", "me/app"),
            ("docker.io/library/a/b", "docker.io/library/a/b", "library/a/b"),
            ("localhost/app", "localhost/app", "localhost/app"),
            ("127.0.0.1:5000/x:1", "127.0.0.1:5000/x:1", "127.0.0.1:5000/x:1"),
            ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
            ("Host/x", "Host/x", "Host/x"),
            ("a__b/c-_d".replace("-_", "--").as_str(), "docker.io/a__b/c--d", "a__b/c--d"),
            (
                &format!("busybox@{digest}"),
                &format!("docker.io/library/busybox@{digest}"),
                &format!("busybox@{digest}"),
            ),
            (&format!("a:t@{digest}"), &format!("docker.io/library/a:t@{digest}"), &format!("a:t@{digest}")),
        ] {
            let reference: Reference = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(reference.to_string(), canonical, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
        }
    }

    #[test]
    fn refuses_in_dockers_words() {
        let format = "invalid reference format";
        for text in [
            "",
            ":",
            "a:",
            "a:-x",
            "a//b",
            "/a",
            "a/",
            "a..b",
            "a_-b",
            "-a",
            "a-",
            "a___b",
            "a@sha256:12",
            "a b",
            "a.b-/c",
            "x.:1/a",
            "h:x/a",
            "a@b@c",
            "[::1/a",
            "../etc",
            "a:b:c",
            "é",
        ] {
            let error = text.parse::<Reference>().unwrap_err();
            assert_eq!(error.to_string(), format, "{text:?}");
        }
        let upper = "Foo".parse::<Reference>().unwrap_err().to_string();
        assert_eq!(upper, format!("{format}: repository name (library/Foo) must be lowercase"));
        let id = HEX.parse::<Reference>().unwrap_err().to_string();
        assert_eq!(
            id,
            format!("invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings")
        );
        let long = "a".repeat(250).parse::<Reference>().unwrap_err().to_string();
        assert_eq!(long, "repository name must not be more than 255 characters");
        assert!(format!("a:{}", "t".repeat(129)).parse::<Reference>().is_err());
    }

    #[test]
    fn default_tag_only_without_digest() {
        let plain: Reference = "a".parse().unwrap();
        assert_eq!(plain.tag_or_latest().familiar(), "a:latest");
        let digested = plain.digested(&format!("sha256:{HEX}")).unwrap();
        assert_eq!(digested.tag_or_latest(), digested);
        assert!(plain.tagged("a/b").is_err());
    }
}
