//! Users and groups of a container by name, from its own `/etc/passwd` and `/etc/group`.
//!
//! The rules are those of docker and runc (moby/sys/user, `GetExecUser` and `GetAdditionalGroups`): a numeric user is a uid
//! even when a user has that number for a name, the first matching line wins, lines that make no sense are skipped.

use std::io::Read;
use std::path::Path;

use crate::files::root::Root;

/// Highest uid or gid docker takes.
const MAX_ID: u32 = i32::MAX as u32;
/// Most bytes read of a passwd or group file: it comes from an image.
const MAX_FILE: u64 = 4 << 20;

/// Longest user name in a table.
const MAX_SHOWN: usize = 256;

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Home directory of the passwd entry, when there is one.
    pub(crate) home: Option<String>,
    /// Supplementary groups: the primary one first (docker adds it since CVE-2022-36109), no gid twice.
    pub(crate) additional_gids: Vec<u32>,
}

/// A user or group that cannot be resolved, in docker's words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UsersError {
    /// Not numeric and not in the passwd file.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// Not numeric and not in the group file.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// A group of `--group-add` that is not numeric and not in the group file.
    #[error("Unable to find group {0}: no matching entries in group file")]
    NoAdditionalGroup(String),
    /// A number that is no id.
    #[error("uids and gids must be in range 0-2147483647")]
    Range,
}

#[derive(Debug)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

#[derive(Debug)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Resolves docker's `--user` and `--group-add` in the container whose root is `root`. An unreadable file is an empty one.
///
/// # Errors
/// A name without entry, or a number out of range.
pub(crate) fn resolve(root: &Path, user: &str, additional: &[String]) -> Result<Account, UsersError> {
    let (user, group) = user.split_once(':').unwrap_or((user, ""));
    let users = passwd(root);
    let groups = groups(root);

    let number = number(user);
    let found = users.iter().find(|entry| match (user, number) {
        ("", _) => entry.uid == 0,
        (_, Some(uid)) => i64::from(entry.uid) == uid,
        _ => entry.name == user,
    });
    let (uid, mut gid) = match (found, number) {
        (Some(entry), _) => (entry.uid, entry.gid),
        (None, _) if user.is_empty() => (0, 0),
        (None, Some(uid)) => (in_range(uid)?, 0),
        (None, None) => return Err(UsersError::NoUser(user.to_owned())),
    };

    let mut supplementary = Vec::new();
    if !group.is_empty() {
        gid = explicit_group(&groups, group)?;
    } else if let Some(entry) = found {
        let member = groups.iter().filter(|group| group.members.contains(&entry.name));
        supplementary.extend(member.map(|group| group.gid));
    }
    for name in additional {
        let named = groups.iter().find(|group| group.name == *name || group.gid.to_string() == *name);
        supplementary.push(match (named, self::number(name)) {
            (Some(group), _) => group.gid,
            (None, Some(gid)) => in_range(gid)?,
            (None, None) => return Err(UsersError::NoAdditionalGroup(name.clone())),
        });
    }
    let mut additional_gids = vec![gid];
    for gid in supplementary {
        if !additional_gids.contains(&gid) {
            additional_gids.push(gid);
        }
    }
    let home = found.map(|entry| entry.home.clone()).filter(|home| !home.is_empty());
    Ok(Account { uid, gid, home, additional_gids })
}

/// The names of the uids of a container, for tables of processes; the first entry of a uid names it. Names longer than
/// useradd(8) takes are not shown: every row would repeat them.
pub(crate) fn names(root: &Path) -> std::collections::HashMap<u32, String> {
    let mut names = std::collections::HashMap::new();
    for user in passwd(root).into_iter().filter(|user| user.name.len() <= MAX_SHOWN) {
        names.entry(user.uid).or_insert(user.name);
    }
    names
}

fn explicit_group(groups: &[Group], name: &str) -> Result<u32, UsersError> {
    let number = number(name);
    let found = groups.iter().find(|group| match number {
        Some(gid) => i64::from(group.gid) == gid,
        None => group.name == name,
    });
    match (found, number) {
        (Some(group), _) => Ok(group.gid),
        (None, Some(gid)) => in_range(gid),
        (None, None) => Err(UsersError::NoGroup(name.to_owned())),
    }
}

/// A number as Go's Atoi takes it; one too large for an i64 is no id either way.
fn number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn in_range(id: i64) -> Result<u32, UsersError> {
    u32::try_from(id).ok().filter(|&id| id <= MAX_ID).ok_or(UsersError::Range)
}

fn passwd(root: &Path) -> Vec<User> {
    // name:password:uid:gid:gecos:home:shell, passwd(5)
    let parse = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
        let uid = id(fields.nth(1)?)?;
        let gid = id(fields.next()?)?;
        Some(User { name, uid, gid, home: fields.nth(1).unwrap_or("").to_owned() })
    };
    read(root, "/etc/passwd").lines().filter_map(|line| parse(line.trim())).collect()
}

fn groups(root: &Path) -> Vec<Group> {
    // name:password:gid:member,member, group(5)
    let parse = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
        let gid = id(fields.nth(1)?)?;
        let members = fields.next().unwrap_or("").split(',').filter(|name| !name.is_empty());
        Some(Group { name, gid, members: members.map(str::to_owned).collect() })
    };
    read(root, "/etc/group").lines().filter_map(|line| parse(line.trim())).collect()
}

fn id(field: &str) -> Option<u32> {
    number(field).and_then(|id| in_range(id).ok())
}

fn read(root: &Path, path: &str) -> String {
    let open = || Some(Root::open(root).ok()?.read(path.as_bytes()).ok()?.take(MAX_FILE));
    let mut content = Vec::new();
    if let Some(mut file) = open() {
        // What could be read before an error still counts.
        let _ = file.read_to_end(&mut content);
    }
    String::from_utf8_lossy(&content).into_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn root(passwd: &[u8], group: &[u8]) -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("etc")).unwrap();
        std::fs::write(temp.path().join("etc/passwd"), passwd).unwrap();
        std::fs::write(temp.path().join("etc/group"), group).unwrap();
        temp
    }

    const PASSWD: &[u8] = b"# comment\nroot:x:0:0:root:/root:/bin/sh\nbad\nworse:x:many:1::/:\n\xff\xfe:x:1\n\
        bob:x:1000:1001:Bob,,,:/home/bob:/bin/sh\nbob:x:1:1::/other:\n42:x:77:77::/named42:\nhuge:x:4294967295:0::/:\n";
    const GROUP: &[u8] =
        b"root:x:0:root\nwheel:x:10:root,bob\nusers:x:100:alice,bob\nbob:x:1001:\nsix:x:6:bobby\nbad:x:\n";

    #[test]
    fn docker_user_table() {
        let root = root(PASSWD, GROUP);
        for (user, uid, gid, home, gids) in [
            ("", 0, 0, Some("/root"), &[0u32, 10][..]),
            ("root", 0, 0, Some("/root"), &[0, 10]),
            ("0", 0, 0, Some("/root"), &[0, 10]),
            ("bob", 1000, 1001, Some("/home/bob"), &[1001, 10, 100]),
            ("1000", 1000, 1001, Some("/home/bob"), &[1001, 10, 100]),
            ("bob:users", 1000, 100, Some("/home/bob"), &[100]),
            ("bob:10", 1000, 10, Some("/home/bob"), &[10]),
            ("1000:5000", 1000, 5000, Some("/home/bob"), &[5000]),
            ("5000", 5000, 0, None, &[0]),
            ("5000:wheel", 5000, 10, None, &[10]),
            (":wheel", 0, 10, Some("/root"), &[10]),
            ("bob:", 1000, 1001, Some("/home/bob"), &[1001, 10, 100]),
            // A number is a uid, also when a user is called so.
            ("42", 42, 0, None, &[0]),
            ("77", 77, 77, Some("/named42"), &[77]),
        ] {
            let account = resolve(root.path(), user, &[]).unwrap();
            let expected =
                Account { uid, gid, home: home.map(str::to_owned), additional_gids: gids.to_vec() };
            assert_eq!(account, expected, "{user}");
        }
    }

    #[test]
    fn errors_have_dockers_words() {
        let root = root(PASSWD, GROUP);
        let error = |user: &str, add: &[&str]| {
            let add: Vec<String> = add.iter().map(|&name| name.to_owned()).collect();
            resolve(root.path(), user, &add).unwrap_err().to_string()
        };
        assert_eq!(error("alice", &[]), "unable to find user alice: no matching entries in passwd file");
        assert_eq!(error("bob:x", &[]), "unable to find group x: no matching entries in group file");
        assert_eq!(error("bob", &["x"]), "Unable to find group x: no matching entries in group file");
        for user in ["-1", "2147483648", "1:4294967295", "huge:-5"] {
            let words = error(user, &[]);
            let expected = ["uids and gids must be in range 0-2147483647", "unable to find user huge"];
            assert!(expected.iter().any(|start| words.starts_with(start)), "{words}");
        }
    }

    #[test]
    fn added_groups() {
        let root = root(PASSWD, GROUP);
        let add = ["six", "100", "4444", "six"].map(str::to_owned);
        assert_eq!(resolve(root.path(), "5000", &add).unwrap().additional_gids, [0, 6, 100, 4444]);
    }

    #[test]
    fn files_missing_linked_or_odd() {
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(resolve(temp.path(), "", &[]).unwrap().uid, 0);
        assert_eq!(resolve(temp.path(), "7:8", &[]).unwrap().gid, 8);

        let inside = temp.path().join("root");
        std::fs::create_dir_all(inside.join("etc")).unwrap();
        std::fs::create_dir_all(inside.join("usr")).unwrap();
        std::fs::write(inside.join("usr/passwd"), "inner:x:5:5::/:\n").unwrap();
        std::fs::write(temp.path().join("passwd"), "outer:x:6:6::/:\n").unwrap();
        symlink("/usr/passwd", inside.join("etc/passwd")).unwrap();
        assert_eq!(resolve(&inside, "inner", &[]).unwrap().uid, 5);
        std::fs::remove_file(inside.join("etc/passwd")).unwrap();
        symlink("../../passwd", inside.join("etc/passwd")).unwrap();
        assert_eq!(resolve(&inside, "outer", &[]), Err(UsersError::NoUser("outer".into())));
        std::fs::remove_file(inside.join("etc/passwd")).unwrap();
        // Opening a pipe would wait for a writer for ever.
        rustix::fs::mknodat(
            rustix::fs::CWD,
            inside.join("etc/passwd"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        assert!(resolve(&inside, "inner", &[]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn random_files_never_panic(passwd: Vec<u8>, group: Vec<u8>, user in ".{0,12}") {
            let root = root(&passwd, &group);
            let _ = resolve(root.path(), &user, std::slice::from_ref(&user));
        }
    }
}
