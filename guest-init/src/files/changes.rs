//! `Changes`: what a container changed of its image, from the upper directory of its overlay.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use proto::sandbox::{Change, change::Kind};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::FilesError;
use super::node::Node;
use super::root::{MAX_NAMES, NAME_COST, Root, join, names};

/// Lists changes as `docker diff` does: a directory before its content, names sorted, the directory of an added or deleted
/// file listed as modified.
///
/// `lowers` are the layers, lowest first. `managed` are paths that Arca makes or mounts in every container: they are not
/// listed, nor what is below them, nor directories that hold nothing else. A container that runs may change files
/// meanwhile: what vanishes is left out.
///
/// # Errors
/// When the upper directory or a layer cannot be opened.
pub(crate) fn changes(
    upper: &Path,
    lowers: &[PathBuf],
    managed: &HashSet<String>,
) -> Result<Vec<Change>, FilesError> {
    let upper = Root::open(upper)?;
    let layers = lowers.iter().rev().map(|layer| Root::open(layer)).collect::<Result<Vec<_>, _>>()?;
    let managed: HashSet<&[u8]> = managed.iter().map(|path| path.trim_end_matches('/').as_bytes()).collect();
    let mut list = List::default();
    let top = View { path: Vec::new(), layers: (0..layers.len()).collect() };
    let mut todo = vec![top.visit(&upper)?];
    while let Some(directory) = todo.last_mut() {
        let Some(name) = directory.names.pop() else {
            todo.pop();
            continue;
        };
        let path = join_absolute(&directory.view.path, &name);
        if list.size > MAX_NAMES {
            return Err(FilesError::at(&path, Errno::TOOBIG));
        }
        if managed.contains(path.as_slice()) {
            continue;
        }
        let lower = directory.view.lower(&layers, &path);
        let node = upper.node(&path).ok();
        let Some(node) = node.filter(|node| !node.is_whiteout()) else {
            // Deleted, or hidden by an opaque directory; a name that was never in a layer was only come and gone.
            if lower.is_some() {
                list.add(path, Kind::Deleted);
            }
            continue;
        };
        let kind = match &lower {
            None => Some(Kind::Added),
            Some(lower) if same_directory(&lower.node, &node) => None,
            Some(_) => Some(Kind::Modified),
        };
        let holds_managed = managed.iter().any(|managed| below(managed, &path));
        if let Some(kind) = kind {
            // Made or touched by mounting managed files in it perhaps; listed with its first other change.
            if holds_managed {
                list.held.insert(path.clone(), kind);
            } else {
                list.add(path.clone(), kind);
            }
        }
        if node.is_directory() {
            let opaque = node.is_opaque();
            let layers_below =
                lower.filter(|lower| lower.node.is_directory()).map_or_else(Vec::new, |l| l.layers);
            let node_path = path.clone();
            let view = View { path, layers: layers_below };
            let mut below = match view.visit_node(&node) {
                Ok(below) => below,
                Err(Errno::TOOBIG) => return Err(FilesError::at(node_path, Errno::TOOBIG)),
                Err(_) => continue,
            };
            if opaque {
                below.hide_lower(&layers);
            }
            todo.push(below);
            let waiting: usize = todo.iter().map(|directory| directory.names.len()).sum();
            if waiting * 2 * NAME_COST > MAX_NAMES {
                return Err(FilesError::at(node_path, Errno::TOOBIG));
            }
        }
    }
    Ok(list.changes)
}

/// Docker leaves out a directory that only was copied up: its mode and time are those of the image. (It compares the size
/// too, which says nothing across file systems.)
fn same_directory(lower: &Node, upper: &Node) -> bool {
    lower.is_directory()
        && upper.is_directory()
        && lower.stat.st_mode == upper.stat.st_mode
        && (lower.stat.st_uid, lower.stat.st_gid) == (upper.stat.st_uid, upper.stat.st_gid)
        && (lower.stat.st_mtime, lower.stat.st_mtime_nsec) == (upper.stat.st_mtime, upper.stat.st_mtime_nsec)
}

/// A directory and the layers, highest first, in which it is visible.
struct View {
    path: Vec<u8>,
    layers: Vec<usize>,
}

/// What the image has at a path.
struct Lower {
    node: Node,
    /// Layers a directory is merged from.
    layers: Vec<usize>,
}

/// A directory being listed.
struct Directory {
    view: View,
    /// Names to come, last first.
    names: Vec<Vec<u8>>,
}

impl View {
    fn visit(self, upper: &Root) -> Result<Directory, FilesError> {
        let node = upper.follow(b"/").map_err(|errno| FilesError::at("/", errno))?;
        self.visit_node(&node).map_err(|errno| FilesError::at("/", errno))
    }

    fn visit_node(self, node: &Node) -> rustix::io::Result<Directory> {
        let mut names = names(&node.list()?)?;
        names.reverse();
        Ok(Directory { view: self, names })
    }

    /// Looks a child up in the image: the highest layer that knows it decides, directories are merged down to an opaque one.
    fn lower(&self, layers: &[Root], path: &[u8]) -> Option<Lower> {
        let mut found: Option<Lower> = None;
        for &index in &self.layers {
            let Ok(node) = layers[index].node(path) else { continue };
            if node.is_whiteout() || (found.is_some() && !node.is_directory()) {
                break;
            }
            let last = node.kind() != FileType::Directory || node.is_opaque();
            found.get_or_insert(Lower { node, layers: Vec::new() }).layers.push(index);
            if last {
                break;
            }
        }
        found
    }
}

impl Directory {
    /// Adds the names of the layers that an opaque directory hides.
    fn hide_lower(&mut self, layers: &[Root]) {
        let mut all: HashSet<Vec<u8>> = self.names.drain(..).collect();
        for &index in &self.view.layers {
            let listed = layers[index].node(&self.view.path).and_then(|node| names(&node.list()?));
            all.extend(listed.unwrap_or_default());
        }
        self.names = all.into_iter().collect();
        self.names.sort_unstable_by(|a, b| b.cmp(a));
    }
}

#[derive(Default)]
struct List {
    changes: Vec<Change>,
    /// Directories in the list.
    listed: HashSet<Vec<u8>>,
    /// Directories that changed, but are not in the list as that may be the work of managed files only.
    held: HashMap<Vec<u8>, Kind>,
    /// Memory all that takes.
    size: usize,
}

impl List {
    fn add(&mut self, path: Vec<u8>, kind: Kind) {
        let slash = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        let parent = path[..slash].to_vec();
        if !parent.is_empty() && !self.listed.contains(&parent) {
            if let Some(held) = self.held.remove(&parent) {
                self.add(parent, held);
            } else if kind != Kind::Modified {
                self.push(parent, Kind::Modified);
            }
        }
        self.push(path, kind);
    }

    fn push(&mut self, path: Vec<u8>, kind: Kind) {
        let text = String::from_utf8_lossy(&path).into_owned();
        self.size += text.len() + path.len() + NAME_COST;
        self.changes.push(Change { kind: kind.into(), path: text });
        self.listed.insert(path);
    }
}

fn join_absolute(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { [b"/", name].concat() } else { join(directory, name) }
}

fn below(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests;
