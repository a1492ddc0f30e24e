//! From a path to the directory that holds its last component, never outside the tree.
//!
//! Symlinks in the parent path are followed inside the tree: absolute targets start at the tree's root and
//! `..` stops there (as containerd's `fs.RootPath`). Only symlinks *of the same layer* are followed when
//! something is put: one from a lower layer is replaced by a directory, because that is what stacking the
//! two layers shows, and a disk must not depend on how many layers were merged into it.

use super::{Id, Kind, MAX_DEPTH, Meta, ROOT, Tree};
use crate::error::Fault;
use crate::path::check_name;
use crate::xattr::Xattrs;

/// Linux's MAXSYMLINKS.
const MAX_SYMLINKS: usize = 40;
/// Path components that symlinks may add to one path: forty targets of two thousand components each would make
/// every entry below them cost milliseconds.
const MAX_STEPS: usize = 1024;

/// What to do about a parent that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Make it; a non-directory of a lower layer makes way.
    Make,
    /// Stop: the answer is `None`.
    Stop,
    /// Stop, and follow symlinks of lower layers too (to look up hard link targets).
    StopFollowAll,
}

impl Tree {
    /// The directory named by `path`, whose components are clean.
    pub(crate) fn directory(
        &mut self,
        path: &[&[u8]],
        layer: u32,
        missing: Missing,
    ) -> Result<Option<Id>, Fault> {
        let mut stack = vec![ROOT];
        let mut todo: Vec<Box<[u8]>> = path.iter().rev().map(|&part| part.into()).collect();
        let (mut links, mut steps) = (0, 0);
        while let Some(part) = todo.pop() {
            match &*part {
                b"" | b"." => continue,
                b".." => {
                    if stack.len() > 1 {
                        stack.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let here = stack.last().copied().unwrap_or(ROOT);
            let there = self.name(here, &part);
            let same_layer = there.is_some_and(|name| name.layer == layer);
            match there.map(|name| (name.id, &self.get(name.id).kind)) {
                Some((id, Kind::Dir(_))) => {
                    stack.push(id);
                    continue;
                }
                Some((_, Kind::Symlink(target))) if same_layer || missing == Missing::StopFollowAll => {
                    links += 1;
                    if links > MAX_SYMLINKS {
                        return Err(Fault::SymlinkLoop);
                    }
                    if target.starts_with(b"/") {
                        stack.truncate(1);
                    }
                    let before = todo.len();
                    let parts = target.rsplit(|&b| b == b'/').filter(|part| !matches!(part, [] | [b'.']));
                    todo.extend(parts.map(Box::from));
                    steps += todo.len() - before;
                    if steps > MAX_STEPS {
                        return Err(Fault::SymlinkLoop);
                    }
                    continue;
                }
                Some((_, Kind::Whiteout)) | None => {}
                Some(_) if same_layer && missing == Missing::Make => return Err(Fault::NotADirectory),
                Some(_) => {}
            }
            if missing != Missing::Make {
                return Ok(None);
            }
            check_name(&part)?;
            if stack.len() > MAX_DEPTH {
                return Err(Fault::TooDeep);
            }
            stack.push(self.put_dir(here, &part, layer, Meta::IMPLICIT_DIR, Xattrs::default()));
        }
        Ok(stack.last().copied())
    }

    /// The inode of a path whose last component is not followed.
    pub(crate) fn lookup(&mut self, path: &[&[u8]], layer: u32) -> Result<Option<Id>, Fault> {
        let Some((last, parents)) = path.split_last() else { return Ok(Some(ROOT)) };
        let parent = self.directory(parents, layer, Missing::StopFollowAll)?;
        Ok(parent.and_then(|dir| self.name(dir, last)).map(|name| name.id))
    }
}
