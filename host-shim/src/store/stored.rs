//! One stored record: bytes of the database, believed only after a look.

use serde::Deserialize;

use crate::engine::{
    create::validate,
    record::{Record, VERSION},
};

/// Why a stored container is not served. Its record and its files stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not what Arca writes.
    #[error("its record is damaged: {0}")]
    Damaged(String),
    /// Written by a newer Arca.
    #[error("a newer Arca wrote it (record version {0}, this one reads {VERSION}): upgrade Arca")]
    Newer(u32),
}

/// The only field that every version has, whatever else it means.
#[derive(Deserialize)]
struct Head {
    version: u32,
}

/// Reads the record stored under `id`.
///
/// # Errors
/// [`Unreadable`]: no JSON, other fields, an id that is not `id` or not hexadecimal (it names folders), a bad name, a
/// newer version.
pub fn parse(id: &str, bytes: &[u8]) -> Result<Record, Unreadable> {
    let damaged = |what: String| Unreadable::Damaged(what);
    let head: Head = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    if head.version > VERSION {
        return Err(Unreadable::Newer(head.version));
    }
    let record: Record = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    if record.id != id {
        return Err(damaged(format!("it says that it is container {:?}", record.id)));
    }
    if !is_id(id) {
        return Err(damaged("its id is not hexadecimal".into()));
    }
    if validate::name(&record.name).ok() != Some(record.name.as_str()) {
        return Err(damaged(format!("its name is {:?}", record.name)));
    }
    if record.args.is_empty() {
        return Err(damaged("it has no command".into()));
    }
    Ok(record)
}

/// The image that a record names which is otherwise not understood.
pub(super) fn image_id(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Image {
        image_id: String,
    }
    serde_json::from_slice::<Image>(bytes).ok().map(|image| image.image_id)
}

/// Whether this can be the id of a container, and so the name of a folder.
pub(crate) fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::engine::record::{fuzz, tests::record};

    fn bytes() -> Vec<u8> {
        serde_json::to_vec(&record("a", "web")).unwrap()
    }

    fn with(field: &str, value: Value) -> Vec<u8> {
        let mut json: Value = serde_json::from_slice(&bytes()).unwrap();
        json[field] = value;
        serde_json::to_vec(&json).unwrap()
    }

    /// SPEC D12
    #[test]
    fn only_what_arca_wrote_is_believed() {
        assert_eq!(parse("a", &bytes()).unwrap(), record("a", "web"));
        // A later Arca of the same version may have more to say.
        assert_eq!(parse("a", &with("flavour", json!("new"))).unwrap(), record("a", "web"));
        assert_eq!(parse("a", &with("version", json!(VERSION + 1))), Err(Unreadable::Newer(VERSION + 1)));
        for (id, bytes) in [
            ("a", b"".to_vec()),
            ("a", b"{}".to_vec()),
            ("a", b"null".to_vec()),
            ("a", vec![0; 4096]),
            ("b", bytes()),
            ("..", with("id", json!(".."))),
            ("", with("id", json!(""))),
            ("a", with("name", json!("/web"))),
            ("a", with("name", json!("../web"))),
            ("a", with("args", json!([]))),
            ("a", with("state", json!("running"))),
            ("a", with("created", json!(7))),
            ("a", with("version", json!(-1))),
        ] {
            let shown = String::from_utf8_lossy(&bytes).into_owned();
            assert!(matches!(parse(id, &bytes), Err(Unreadable::Damaged(_))), "{id}: {shown}");
        }
    }

    proptest! {
        /// SPEC D12
        #[test]
        fn damage_anywhere_is_no_panic(cut in 0_usize..2000, at in 0_usize..2000, byte: u8) {
            let whole = bytes();
            let cut = cut.min(whole.len());
            if cut < whole.len() {
                prop_assert!(matches!(parse("a", &whole[..cut]), Err(Unreadable::Damaged(_))));
            }
            let mut one = whole.clone();
            let at = at % one.len();
            one[at] = byte;
            // A changed letter in a label is no damage that can be seen; it must only not be misread as another container.
            if let Ok(record) = parse("a", &one) {
                prop_assert_eq!(record.id, "a");
            }
            fuzz(&one);
        }

        #[test]
        fn numbers_may_be_absurd(number in any::<i64>(), text in ".{0,20}") {
            let mut absurd = record("a", "web");
            absurd.host.memory = number;
            absurd.host.nano_cpus = number;
            absurd.host.cpuset_cpus.clone_from(&text);
            absurd.state.started_at = text;
            fuzz(&serde_json::to_vec(&absurd).unwrap());
        }
    }
}
