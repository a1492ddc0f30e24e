//! Names from archives made safe: relative, no `..`, no NUL, bounded.

use crate::error::Fault;

/// Longest name of one directory entry (Linux NAME_MAX, EROFS_NAME_LEN).
pub(crate) const NAME_MAX: usize = 255;

/// Splits an archive's path into components. Leading slashes are dropped as dockerd does (the path is taken
/// relative to the root), empty and `.` components vanish, `..` is refused even where it would not escape.
pub(crate) fn components(path: &[u8], max_len: usize) -> Result<Vec<&[u8]>, Fault> {
    if path.len() > max_len {
        return Err(Fault::PathTooLong);
    }
    let mut out = Vec::new();
    for part in path.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(Fault::DotDot),
            name => {
                check_name(name)?;
                out.push(name);
            }
        }
    }
    Ok(out)
}

/// Whether `name` can be a directory entry.
pub(crate) fn check_name(name: &[u8]) -> Result<(), Fault> {
    if name.contains(&0) {
        return Err(Fault::Nul);
    }
    if name.len() > NAME_MAX {
        return Err(Fault::NameTooLong);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(path: &str) -> Result<Vec<String>, Fault> {
        components(path.as_bytes(), 4095)
            .map(|parts| parts.iter().map(|p| String::from_utf8_lossy(p).into_owned()).collect())
    }

    #[test]
    fn relative_and_absolute_names_are_the_same() {
        for path in ["a/b", "/a/b", "./a//b/", "//a/./b/."] {
            assert_eq!(parts(path).unwrap(), ["a", "b"], "{path}");
        }
        assert!(parts("./").unwrap().is_empty());
        assert!(parts("").unwrap().is_empty());
        assert_eq!(parts("..a/b..").unwrap(), ["..a", "b.."]);
    }

    #[test]
    fn bad_names_are_refused() {
        assert_eq!(parts("../a"), Err(Fault::DotDot));
        assert_eq!(parts("a/../b"), Err(Fault::DotDot));
        assert_eq!(parts("a/.."), Err(Fault::DotDot));
        assert_eq!(parts("a\0b"), Err(Fault::Nul));
        assert_eq!(parts(&"x".repeat(256)), Err(Fault::NameTooLong));
        assert!(parts(&"x".repeat(255)).is_ok());
        assert_eq!(parts(&"x/".repeat(2048)), Err(Fault::PathTooLong));
    }
}
