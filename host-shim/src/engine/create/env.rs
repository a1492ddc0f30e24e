//! Environment variables: how lists of them merge, and how many there may be. All linear: an image's list is not ours.

use std::collections::{HashMap, HashSet};

use crate::error::{Error, Result};

/// Most variables of a process.
const MOST: usize = 10_000;
/// Most bytes of them: what a kernel takes as arguments and environment at Docker's stack limit of 8 MiB.
const MOST_BYTES: usize = 2 << 20;

fn key(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(key, _)| key)
}

/// Refuses an environment that no process could be given.
///
/// # Errors
/// 400 with what is allowed.
pub fn check(env: Option<&[String]>) -> Result<()> {
    let env = env.unwrap_or_default();
    let bytes = env.iter().fold(0, |sum: usize, entry| sum.saturating_add(entry.len() + 1));
    if env.len() <= MOST && bytes <= MOST_BYTES {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "invalid environment: {} variables of {bytes} bytes, those of the image included; at most {MOST} of {MOST_BYTES} bytes \
         can be given to a process",
        env.len()
    )))
}

/// What the image sets and the user does not.
pub fn inherit(own: &mut Vec<String>, image: &[String]) {
    let mut known: HashSet<&str> = own.iter().map(|entry| key(entry)).collect();
    let added: Vec<String> = image.iter().filter(|entry| known.insert(key(entry))).cloned().collect();
    own.extend(added);
}

/// moby's `ReplaceOrAppendEnvVars`: a name without `=` removes the variable.
pub(crate) fn replace_or_append<'a>(env: &'a mut Vec<String>, overrides: impl Iterator<Item = &'a String>) {
    let mut entries: Vec<Option<&str>> = env.iter().map(|entry| Some(entry.as_str())).collect();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (place, entry) in env.iter().enumerate() {
        places.entry(key(entry)).or_insert(place);
    }
    for entry in overrides {
        let new = entry.contains('=').then_some(entry.as_str());
        match places.get(key(entry)).and_then(|place| entries.get_mut(*place)) {
            Some(place) => *place = new,
            None if new.is_some() => {
                places.insert(key(entry), entries.len());
                entries.push(new);
            }
            None => {}
        }
    }
    *env = entries.into_iter().flatten().map(str::to_owned).collect();
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn overrides_replace_append_and_remove() {
        let mut env = list(&["A=1", "B=2", "C=3"]);
        replace_or_append(&mut env, list(&["B=x", "D=4", "A", "D=5", "E"]).iter());
        assert_eq!(env, ["B=x", "C=3", "D=5"]);
    }

    #[test]
    fn too_many_are_refused() {
        assert!(check(None).is_ok());
        let most: Vec<String> = (0..MOST).map(|n| format!("V{n}=1")).collect();
        assert!(check(Some(&most)).is_ok());
        let more = [most, list(&["W=1"])].concat();
        assert!(check(Some(&more)).unwrap_err().message.contains("10001 variables"));
        assert!(check(Some(&["x".repeat(MOST_BYTES)])).is_err());
    }

    #[test]
    fn long_lists_merge_in_no_time() {
        let image: Vec<String> = (0..200_000).map(|n| format!("VARIABLE_{n}=1")).collect();
        let begun = Instant::now();
        let mut env = list(&["VARIABLE_7=own"]);
        inherit(&mut env, &image);
        assert_eq!((env.len(), env[0].as_str()), (image.len(), "VARIABLE_7=own"));
        replace_or_append(&mut env, image.iter());
        assert_eq!((env.len(), env[0].as_str()), (image.len(), "VARIABLE_7=1"));
        // Quadratic, it would take minutes.
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
}
