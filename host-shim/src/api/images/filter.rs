//! Filters of image lists.

use glob::{MatchOptions, Pattern};
use images::Image;
use time::OffsetDateTime;

use crate::{
    api::query::{Filters, moment},
    engine::Engine,
    error::{Error, Result},
};

/// As Go's `path.Match`: `*` stops at a slash.
const MATCH: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// What of the list is wanted.
pub(super) struct Selection<'a> {
    filters: &'a Filters,
    dangling: Option<bool>,
    before: Option<OffsetDateTime>,
    since: Option<OffsetDateTime>,
    references: Vec<Pattern>,
}

impl<'a> Selection<'a> {
    pub(super) fn new(engine: &Engine, filters: &'a Filters) -> Result<Self> {
        let created = |key: &str| -> Result<Option<OffsetDateTime>> {
            match filters.get(key).first() {
                Some(name) => Ok(engine.images.get(name)?.created),
                None => Ok(None),
            }
        };
        let (mut before, since) = (created("before")?, created("since")?);
        for text in filters.get("until") {
            let until = date(moment(text).map_err(as_moby)?)?;
            before = Some(before.map_or(until, |b| b.min(until)));
        }
        let pattern = |p: &String| Pattern::new(p).map_err(|_| Error::system("syntax error in pattern"));
        Ok(Self {
            filters,
            dangling: if filters.has("dangling") { Some(filters.bool_or("dangling", false)?) } else { None },
            before,
            since,
            references: filters.get("reference").iter().map(pattern).collect::<Result<_>>()?,
        })
    }

    /// Whether `image` is wanted. With a reference filter only the names that match are left in it.
    pub(super) fn keep(&self, image: &mut Image) -> bool {
        let labels = image.config.config.labels.as_ref();
        if !self.filters.labels("label", |key| labels.and_then(|all| all.get(key)).map(String::as_str)) {
            return false;
        }
        if self.before.is_some_and(|t| image.created.is_some_and(|c| c >= t))
            || self.since.is_some_and(|t| image.created.is_none_or(|c| c <= t))
        {
            return false;
        }
        // Without tags, digests do not make an image less dangling only if there are none.
        let dangling = image.repo_tags.is_empty() && image.repo_digests.is_empty();
        if self.dangling.is_some_and(|wanted| wanted != dangling) {
            return false;
        }
        if self.references.is_empty() {
            return true;
        }
        image.repo_tags.retain(|name| self.named(name));
        image.repo_digests.retain(|name| self.named(name));
        !image.repo_tags.is_empty() || !image.repo_digests.is_empty()
    }

    /// moby's `FamiliarMatch`: the pattern meets the whole name, or the name without tag and digest.
    fn named(&self, name: &str) -> bool {
        let repository = repository(name);
        self.references.iter().any(|p| p.matches_with(name, MATCH) || p.matches_with(repository, MATCH))
    }
}

/// The filter `until` of a prune.
pub(crate) fn until(filters: &Filters) -> Result<Option<OffsetDateTime>> {
    filters.until().map_err(as_moby)?.map(date).transpose()
}

fn date(nanos: i128) -> Result<OffsetDateTime> {
    let failed = |error| Error::system("failed to parse value as time or duration").because(error);
    OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(failed)
}

/// 500 for what is no time, as moby answers where it is about images.
fn as_moby(error: Error) -> Error {
    Error::system(error.message)
}

/// `a/b` of `a/b:tag` and `a/b@digest`; a colon before a slash is a port.
pub(super) fn repository(name: &str) -> &str {
    let name = name.split_once('@').map_or(name, |(n, _)| n);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_match_as_moby_does() {
        let selection = |pattern: &str| Selection {
            filters: Box::leak(Box::default()),
            dangling: None,
            before: None,
            since: None,
            references: vec![Pattern::new(pattern).unwrap()],
        };
        for (pattern, name, want) in [
            ("busybox", "busybox:latest", true),
            ("busy*", "busybox:latest", true),
            ("busy*:l*", "busybox:latest", true),
            ("*", "me/app:1", false),
            ("*/*", "me/app:1", true),
            ("127.0.0.1:5000/x", "127.0.0.1:5000/x@sha256:aa", true),
            ("busybox:1", "busybox:latest", false),
        ] {
            assert_eq!(selection(pattern).named(name), want, "{pattern} {name}");
        }
    }
}
