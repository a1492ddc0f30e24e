//! The arguments of `ps`, as far as they choose columns. Which processes are shown is not theirs to say: all of the
//! container's, as dockerd filters them.

use super::columns::{Column, by_name};
use super::top::TopError;

/// A column with its header.
pub(super) type Titled = (Column, String);

const FULL: &[(&str, &str)] = &[
    ("user", "UID"),
    ("pid", "PID"),
    ("ppid", "PPID"),
    ("c", "C"),
    ("stime", "STIME"),
    ("tname", "TTY"),
    ("time", "TIME"),
    ("cmd", "CMD"),
];
const USER: &[(&str, &str)] = &[
    ("user", "USER"),
    ("pid", "PID"),
    ("pcpu", "%CPU"),
    ("pmem", "%MEM"),
    ("vsz", "VSZ"),
    ("rss", "RSS"),
    ("tname", "TTY"),
    ("stat", "STAT"),
    ("bsdstart", "START"),
    ("bsdtime", "TIME"),
    ("args", "COMMAND"),
];
const BSD: &[(&str, &str)] =
    &[("pid", "PID"), ("tname", "TTY"), ("stat", "STAT"), ("bsdtime", "TIME"), ("args", "COMMAND")];
const SHORT: &[(&str, &str)] = &[("pid", "PID"), ("tname", "TTY"), ("time", "TIME"), ("ucmd", "CMD")];

/// Letters without a column of their own: selection, width and order.
const SYSV_IGNORED: &str = "eAadHwyNn";
const BSD_IGNORED: &str = "axrTgwenfc";

/// The columns that `ps` would show.
///
/// # Errors
/// [`TopError::Ps`] in the words of procps, and docker's error for a table without PID.
pub(super) fn columns(args: &[String]) -> Result<Vec<Titled>, TopError> {
    let words: Vec<&str> = args.iter().flat_map(|arg| arg.split_ascii_whitespace()).collect();
    let words = if words.is_empty() { vec!["-ef"] } else { words };
    let mut chosen: Option<&[(&str, &str)]> = None;
    let mut formats = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let (letters, bsd) = match word.strip_prefix('-') {
            _ if matches!(word, "ww" | "-ww" | "--forest" | "--cumulative") => continue,
            Some(long) if long.starts_with('-') => {
                let Some(("-format", format)) = long.split_once('=') else {
                    return Err(TopError::Ps("error: unknown gnu long option".to_owned()));
                };
                parse_format(format, &mut formats)?;
                continue;
            }
            // "-aux" means "aux" unless there is a user "x" (ps(1)).
            Some(letters) => (letters, letters.contains('u') && !letters.contains('o')),
            None => (word, true),
        };
        if letters.is_empty() {
            return Err(TopError::Ps("error: garbage option".to_owned()));
        }
        for (at, letter) in letters.char_indices() {
            match letter {
                'o' => {
                    let attached = letters.get(at + 1..).unwrap_or_default();
                    let format = if attached.is_empty() { words.next() } else { Some(attached) };
                    let missing = || TopError::Ps("error: format specification must follow -o".to_owned());
                    parse_format(format.ok_or_else(missing)?, &mut formats)?;
                    break;
                }
                'u' if bsd => chosen = Some(USER),
                _ if bsd && BSD_IGNORED.contains(letter) => {
                    chosen = chosen.or(Some(BSD));
                }
                'f' | 'F' if !bsd => chosen = Some(FULL),
                _ if !bsd && SYSV_IGNORED.contains(letter) => {}
                _ if bsd => return Err(TopError::Ps("error: unsupported option (BSD syntax)".to_owned())),
                _ => return Err(TopError::Ps("error: unsupported SysV option".to_owned())),
            }
        }
    }
    let columns = if formats.is_empty() {
        let named = |&(name, title): &(&str, &str)| Some((by_name(name)?.0, title.to_owned()));
        chosen.unwrap_or(SHORT).iter().filter_map(named).collect()
    } else {
        formats
    };
    if columns.iter().any(|(_, title)| title == "PID") { Ok(columns) } else { Err(TopError::NoPid) }
}

/// `name,name=HEADER`: a header takes all the rest of its word.
fn parse_format(format: &str, columns: &mut Vec<Titled>) -> Result<(), TopError> {
    let (names, header) = match format.split_once('=') {
        Some((names, header)) => (names, Some(header)),
        None => (format, None),
    };
    let mut names = names.split(',').peekable();
    while let Some(name) = names.next() {
        let Some((column, title)) = by_name(&name.to_ascii_lowercase()) else {
            return Err(TopError::Ps(format!("error: unknown user-defined format specifier {name:?}")));
        };
        let title = match header {
            Some(header) if names.peek().is_none() => {
                if header.starts_with("PID") && column != Column::Pid {
                    return Err(TopError::Misleading(format!("{name}={header}")));
                }
                header.to_owned()
            }
            _ => title.to_owned(),
        };
        columns.push((column, title));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(args: &str) -> Result<String, String> {
        let columns = columns(&[args.to_owned()]).map_err(|error| error.to_string())?;
        Ok(columns.into_iter().map(|(_, title)| title).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn tables() {
        let full = "UID PID PPID C STIME TTY TIME CMD";
        let user = "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND";
        for (args, expected) in [
            ("", full),
            ("-ef", full),
            ("-e -f", full),
            ("-eF", full),
            ("aux", user),
            ("-aux", user),
            ("auxww", user),
            ("ax", "PID TTY STAT TIME COMMAND"),
            ("-e", "PID TTY TIME CMD"),
            ("-o pid,cmd", "PID CMD"),
            ("-eo pid,ppid,user,uid,comm", "PID PPID USER UID COMMAND"),
            ("-eopid,args", "PID COMMAND"),
            ("o stat,pid", "STAT PID"),
            ("-o pid -o time,etime", "PID TIME ELAPSED"),
            ("-o pid,rss=MEMORY", "PID MEMORY"),
            ("--format=pid,vsz,pcpu,pmem", "PID VSZ %CPU %MEM"),
            ("-o pid,nlwp,pgid,sid,tty", "PID NLWP PGID SID TT"),
        ] {
            assert_eq!(titles(args).as_deref(), Ok(expected), "{args}");
        }
    }

    #[test]
    fn errors() {
        for (args, expected) in [
            ("-Q", "error running ps: exit status 1: error: unsupported SysV option"),
            ("q!", "error running ps: exit status 1: error: unsupported option (BSD syntax)"),
            ("-o", "error running ps: exit status 1: error: format specification must follow -o"),
            ("--pid 1", "error running ps: exit status 1: error: unknown gnu long option"),
            (
                "-o pid,x",
                "error running ps: exit status 1: error: unknown user-defined format specifier \"x\"",
            ),
            ("-o cmd", "Couldn't find PID field in ps output"),
            ("-o pid=P", "Couldn't find PID field in ps output"),
            ("-o ppid=PID", "specifying \"ppid=PID\" is not allowed"),
        ] {
            assert_eq!(titles(args).unwrap_err(), expected, "{args}");
        }
    }

    proptest::proptest! {
        #[test]
        fn random_arguments_never_panic(args: Vec<String>, word in "-{0,2}[a-zA-Z,=%]{0,9}") {
            let _ = columns(&args);
            let _ = columns(&[word]);
        }
    }
}
