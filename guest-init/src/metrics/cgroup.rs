//! Reading the files of a cgroup v2 directory, and text files of /proc in general.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Most bytes read of one file: those of the kernel are far smaller, but their number of lines depends on the workload.
const MAX_FILE: u64 = 1 << 20;
/// Most cgroups a container's tree is followed to.
const MAX_GROUPS: usize = 4096;

/// The content of a file of the kernel, empty when it cannot be read.
pub(super) fn text(path: &Path) -> String {
    head(path, MAX_FILE)
}

/// The first bytes of a file of the kernel.
pub(super) fn head(path: &Path, limit: u64) -> String {
    let mut content = Vec::new();
    if let Ok(file) = File::open(path) {
        // What came before an error still counts.
        let _ = file.take(limit).read_to_end(&mut content);
    }
    String::from_utf8_lossy(&content).into_owned()
}

/// A file with one number; `None` when it is missing or says `max`.
pub(super) fn number(path: &Path) -> Option<u64> {
    text(path).trim().parse().ok()
}

/// A file of `key number` lines.
pub(super) fn pairs(path: &Path) -> impl Iterator<Item = (String, u64)> {
    let lines: Vec<_> = text(path).lines().filter_map(pair).collect();
    lines.into_iter()
}

fn pair(line: &str) -> Option<(String, u64)> {
    let (key, value) = line.trim().split_once([' ', '\t'])?;
    Some((key.to_owned(), value.trim().parse().ok()?))
}

/// The processes of a cgroup and all below it, in rising order. A container may make cgroups of its own.
pub(super) fn pids(cgroup: &Path) -> Vec<u32> {
    let mut pids = Vec::new();
    let mut todo = vec![cgroup.to_path_buf()];
    let mut seen = 0;
    while let Some(directory) = todo.pop() {
        seen += 1;
        pids.extend(
            text(&directory.join("cgroup.procs")).lines().filter_map(|line| line.trim().parse::<u32>().ok()),
        );
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        let groups = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        todo.extend(groups.map(|entry| entry.path()).take(MAX_GROUPS.saturating_sub(seen + todo.len())));
    }
    pids.sort_unstable();
    pids.dedup();
    pids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_of_groups() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("a/b")).unwrap();
        for (file, content) in
            [("cgroup.procs", "12\n0\n"), ("a/cgroup.procs", "x\n7\n"), ("a/b/cgroup.procs", "12\n9")]
        {
            std::fs::write(temp.path().join(file), content).unwrap();
        }
        assert_eq!(pids(temp.path()), [0, 7, 9, 12]);
        assert!(pids(&temp.path().join("none")).is_empty());
    }

    #[test]
    fn odd_lines_are_skipped() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("f");
        std::fs::write(&file, "a 1\nb\nc -2\nd  7 \n").unwrap();
        assert_eq!(pairs(&file).collect::<Vec<_>>(), [("a".to_owned(), 1), ("d".to_owned(), 7)]);
        assert_eq!(number(&file), None);
    }
}
