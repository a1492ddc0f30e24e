//! What commands print. Whoever reads it may leave early (`arca doctor | head -1`), and the disk behind it may be full: neither
//! is a reason to panic, as `println!` does.

use std::io::Write;

/// Prints a line to standard output.
pub(super) fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints a line to standard error.
pub(super) fn complain(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A word that a shell reads back as it is.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=@%,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_read_words_back() {
        for word in ["/plain/p.sock", "with blank", "it's", "a\"b$c`d`", ""] {
            let out = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", quoted(word))])
                .output();
            assert_eq!(String::from_utf8(out.unwrap().stdout).unwrap(), word);
        }
        assert_eq!(quoted("/a/b.sock"), "/a/b.sock");
    }
}
