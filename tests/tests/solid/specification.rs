//! docs/SPECIFICATION.md and the tests name the same promises.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Numbers such as `D12` in a text, up to the first word that is none.
fn numbers(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split([',', ' ']).map(str::trim).filter(|word| !word.is_empty()).map_while(|word| {
        let (letter, digits) = word.split_at_checked(1)?;
        let fits = letter.chars().all(|c| c.is_ascii_uppercase())
            && !digits.is_empty()
            && digits.bytes().all(|b| b.is_ascii_digit());
        fits.then(|| word.to_owned())
    })
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = entry.file_name().into_string().unwrap_or_default();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "build" {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// Promises and the files that have a test of each: a `/// SPEC D1, D2` line directly above a test.
fn tested(root: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut files = Vec::new();
    sources(root, &mut files);
    let mut tested: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate() {
            let Some(rest) = line.strip_prefix("/// SPEC ") else { continue };
            let attribute = lines[at..].iter().find(|line| !line.starts_with("///")).unwrap_or(&"");
            assert!(
                attribute.starts_with("#[") && attribute.contains("test"),
                "{}:{}: SPEC stands above something that is no test",
                file.display(),
                at + 1
            );
            for number in numbers(rest) {
                let name = file.strip_prefix(root).unwrap().display().to_string();
                tested.entry(number).or_default().insert(name);
            }
        }
    }
    tested
}

#[test]
fn every_promise_has_a_test_and_every_number_a_promise() {
    let root = tests::cache::checkout().canonicalize().unwrap();
    let text = fs::read_to_string(root.join("docs/SPECIFICATION.md")).unwrap();
    let mut promised = BTreeSet::new();
    for line in text.lines() {
        // "- **D1** The daemon MUST ..."
        let Some((number, sentence)) = line.strip_prefix("- **").and_then(|rest| rest.split_once("**"))
        else {
            continue;
        };
        assert!(
            ["MUST", "SHOULD", "MAY"].iter().any(|word| sentence.contains(word)),
            "{number} promises nothing: {sentence}"
        );
        assert!(promised.insert(number.to_owned()), "{number} is there twice");
    }
    assert!(promised.len() > 30, "only {} promises were found", promised.len());
    let tested = tested(&root);
    let untested: Vec<_> = promised.iter().filter(|number| !tested.contains_key(*number)).collect();
    let unknown: Vec<_> = tested.iter().filter(|(number, _)| !promised.contains(*number)).collect();
    assert!(untested.is_empty(), "promises without a test: {untested:?}");
    assert!(unknown.is_empty(), "tests of promises that are not made: {unknown:?}");
}
