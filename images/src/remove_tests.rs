use std::sync::Arc;

use super::*;
use crate::db::{ImageRecord, LayerRecord};

fn hex(n: u64) -> String {
    format!("{n:064x}")
}

fn id(n: u64) -> String {
    // The first 12 digits differ, as in real IDs.
    format!("sha256:{n:012x}{}", "0".repeat(52))
}

fn state(images: &[(u64, &[u64], &[&str])]) -> State {
    let mut state = State::default();
    for (n, layers, references) in images {
        let layers: Vec<_> = layers.iter().map(|l| format!("sha256:{}", hex(*l))).collect();
        for layer in &layers {
            state.layers.insert(layer.clone(), Arc::new(LayerRecord { blob: layer.clone(), size: 10 }));
        }
        let config = r#"{"created":"2020-01-01T00:00:00Z","config":{"Labels":{"a":"1"}}}"#.to_owned();
        let record =
            ImageRecord { config, manifests: vec![], layers, size: 10, parent: None, last_tag_time: None };
        state.images.insert(id(*n), Arc::new(record));
        for reference in *references {
            let reference: Reference = reference.parse().unwrap();
            state.references.insert(reference.to_string(), id(*n));
        }
    }
    state
}

fn unused(_: &str) -> Vec<ContainerUse> {
    Vec::new()
}

fn used_by(n: u64, running: bool) -> impl Fn(&str) -> Vec<ContainerUse> {
    move |image| {
        let user = ContainerUse { id: "abcdef012345".repeat(5), running };
        if image == id(n) { vec![user] } else { Vec::new() }
    }
}

fn lines(records: &[Removed]) -> Vec<String> {
    let line = |record: &Removed| match record {
        Removed::Untagged(name) => format!("Untagged: {name}"),
        Removed::Deleted(id) => format!("Deleted: {id}"),
    };
    records.iter().map(line).collect()
}

#[test]
fn a_name_takes_its_digests_and_the_image() {
    let digest = format!("busybox@sha256:{}", hex(7));
    let mut state = state(&[(1, &[1, 2], &["busybox", &digest]), (2, &[1], &["other:1"])]);
    state.references = std::mem::take(&mut state.references)
        .into_iter()
        .map(|(name, id)| (if name.ends_with("busybox") { format!("{name}:latest") } else { name }, id))
        .collect();
    let records = remove(&mut state, "busybox", false, false, &unused).unwrap();
    let chain = chains(&[format!("sha256:{}", hex(1)), format!("sha256:{}", hex(2))]);
    // The lower layer is the other image's too: it stays.
    let wanted = [
        "Untagged: busybox:latest".to_owned(),
        format!("Untagged: {digest}"),
        format!("Deleted: {}", id(1)),
        format!("Deleted: {}", chain[1]),
    ];
    assert_eq!(lines(&records), wanted);
    assert!(!state.images.contains_key(&id(1)) && state.images.contains_key(&id(2)));
}

#[test]
fn one_of_two_names_is_only_untagged() {
    let mut state = state(&[(1, &[1], &["a:1", "a:2"])]);
    assert_eq!(
        lines(&remove(&mut state, "a:1", false, false, &used_by(1, true)).unwrap()),
        ["Untagged: a:1"]
    );
    let error = remove(&mut state, "x", false, false, &unused).unwrap_err();
    assert_eq!(error.to_string(), "No such image: x:latest");
    assert_eq!(error.kind().status(), 404);
}

#[test]
fn conflicts_in_dockerds_words() {
    let one: &[(u64, &[u64], &[&str])] = &[(1, &[1], &["a:1"])];
    let two: &[(u64, &[u64], &[&str])] = &[(1, &[1], &["a:1", "b:1"])];
    let short = "000000000001";
    for (images, name, force, running, wanted) in [
        (
            one,
            "a:1",
            false,
            false,
            format!(
                "conflict: unable to remove repository reference \"a:1\" (must force) - container abcdef012345 is using its referenced image {short}"
            ),
        ),
        (
            one,
            short,
            false,
            false,
            format!(
                "conflict: unable to delete {short} (must be forced) - image is being used by stopped container abcdef012345"
            ),
        ),
        (
            one,
            short,
            true,
            true,
            format!(
                "conflict: unable to delete {short} (cannot be forced) - image is being used by running container abcdef012345"
            ),
        ),
        (
            two,
            short,
            true,
            true,
            format!(
                "conflict: unable to delete {short} (cannot be forced) - image is being used by running container abcdef012345"
            ),
        ),
    ] {
        let mut state = state(images);
        let error = remove(&mut state, name, force, false, &used_by(1, running)).unwrap_err();
        assert_eq!(error.to_string(), wanted);
        assert_eq!(error.kind().status(), 409);
    }
    let error = remove(&mut state(two), short, false, false, &unused).unwrap_err();
    let wanted = format!(
        "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
    );
    assert_eq!(error.to_string(), wanted);
    assert_eq!(remove(&mut state(two), short, true, false, &unused).unwrap().len(), 4);
}

#[test]
fn forced_images_live_on_for_stopped_containers() {
    let mut state = state(&[(1, &[1], &["a:1"])]);
    let records = remove(&mut state, "a:1", true, false, &used_by(1, false)).unwrap();
    assert_eq!(lines(&records), ["Untagged: a:1".to_owned(), format!("Deleted: {}", id(1))]);
    assert!(state.images.is_empty() && state.record(&id(1)).is_some());
    // A running one keeps the image itself, without a name.
    let mut state = self::state(&[(1, &[1], &["a:1"])]);
    let records = remove(&mut state, "a:1", true, false, &used_by(1, true)).unwrap();
    assert_eq!(lines(&records), ["Untagged: a:1"]);
    assert!(state.images.contains_key(&id(1)));
}

#[test]
fn prune_takes_what_is_dangling_or_unused() {
    let images: &[(u64, &[u64], &[&str])] = &[(1, &[1], &[]), (2, &[1, 2], &["a:1"]), (3, &[3], &["b:1"])];
    let mut dangling = state(images);
    let (records, reclaimed) = prune(&mut dangling, true, &PruneFilters::default(), &unused).unwrap();
    assert_eq!((lines(&records), reclaimed), (vec![format!("Deleted: {}", id(1))], 0));
    let mut all = state(images);
    let (_, reclaimed) = prune(&mut all, false, &PruneFilters::default(), &used_by(3, false)).unwrap();
    assert_eq!((all.images.len(), reclaimed), (1, 20));
    let mut none = state(images);
    for filters in [
        PruneFilters { labels: vec!["a=2".into()], ..PruneFilters::default() },
        PruneFilters { not_labels: vec!["a".into()], ..PruneFilters::default() },
        PruneFilters { until: Some(OffsetDateTime::UNIX_EPOCH), ..PruneFilters::default() },
    ] {
        assert!(prune(&mut none, false, &filters, &unused).unwrap().0.is_empty(), "{filters:?}");
    }
}
