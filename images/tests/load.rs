//! Archives: docker's and OCI's, compressed, with links, and hostile ones.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;

use common::*;
use images::{Error, ImageStore, Loaded};

fn archive(files: &[(&str, &[u8])], links: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    for (name, target) in links {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, name, target).unwrap();
    }
    tar.into_inner().unwrap()
}

async fn load(store: &ImageStore, bytes: &[u8]) -> Result<Vec<Loaded>, Error> {
    Box::pin(store.load(bytes, Arc::new(()))).await
}

fn image() -> TestImage {
    let tar = layer("file", b"content");
    TestImage::new(vec![(tar.clone(), gzip(&tar)), (tar.clone(), gzip(&tar))])
}

fn docker(image: &TestImage, tags: &serde_json::Value) -> Vec<u8> {
    let manifest =
        serde_json::json!([{"Config": "c.json", "RepoTags": tags, "Layers": ["a/layer.tar", "b/layer.tar"]}]);
    let manifest = manifest.to_string();
    archive(
        &[
            ("c.json", &image.config),
            ("a/layer.tar", &image.layers[0].0),
            ("manifest.json", manifest.as_bytes()),
            ("repositories", b"{}"),
        ],
        &[("b/layer.tar", "../a/layer.tar")],
    )
}

fn oci(image: &TestImage, name: &str) -> Vec<u8> {
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [{"mediaType": OCI_MANIFEST, "digest": digest(&image.manifest),
        "size": image.manifest.len(), "annotations": {"org.opencontainers.image.ref.name": name}}]});
    let index = index.to_string();
    let path = |bytes: &[u8]| format!("blobs/sha256/{}", digest(bytes).split_at(7).1);
    let (c, m, l) = (path(&image.config), path(&image.manifest), path(&image.layers[0].1));
    archive(
        &[
            ("oci-layout", b"{}"),
            (&c, &image.config),
            (&m, &image.manifest),
            (&l, &image.layers[0].1),
            ("index.json", index.as_bytes()),
        ],
        &[],
    )
}

#[tokio::test]
async fn docker_archives_also_compressed() {
    let image = image();
    let plain = docker(&image, &serde_json::json!(["docker.io/library/x:1", "y:2"]));
    for bytes in [plain.clone(), gzip(&plain), zstd(&plain)] {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let loaded = load(&store, &bytes).await.unwrap();
        assert_eq!(loaded, [Loaded::Tag("x:1".into()), Loaded::Tag("y:2".into())]);
        assert_eq!(store.get("y:2").unwrap().id, image.id());
        assert_eq!(store.disks(&image.id()).await.unwrap().len(), 2);
        assert_eq!(files(&dir.path().join("tmp")), 0);
    }
}

#[tokio::test]
async fn names_move_and_are_optional() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let first = image();
    assert_eq!(
        load(&store, &docker(&first, &serde_json::Value::Null)).await.unwrap(),
        [Loaded::Id(first.id())]
    );
    load(&store, &docker(&first, &serde_json::json!(["x:1"]))).await.unwrap();
    let tar = layer("other", b"other");
    let second = TestImage::new(vec![(tar.clone(), tar.clone()), (tar.clone(), tar)]);
    let messages = Arc::new(Messages::default());
    let bytes = docker(&second, &serde_json::json!(["x:1"]));
    Box::pin(store.load(bytes.as_slice(), messages.clone())).await.unwrap();
    let renamed = format!(
        "The image x:1 already exists, renaming the old one with ID {} to empty string\n",
        first.id()
    );
    assert!(messages.states().contains(&renamed), "{:?}", messages.states());
    assert_eq!(messages.states().last().unwrap(), "Loaded image: x:1\n");
    assert!(store.get(&first.id()).unwrap().repo_tags.is_empty());
    assert_eq!(store.tag(&first.id(), "z", "").unwrap(), "z:latest");
    assert_eq!(store.get("z").unwrap().id, first.id());
}

#[tokio::test]
async fn oci_layouts() {
    let image = image();
    for (name, wanted) in
        [("docker.io/library/x:1", Loaded::Tag("x:1".into())), ("latest", Loaded::Id(image.id()))]
    {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        assert_eq!(load(&store, &oci(&image, name)).await.unwrap(), [wanted]);
    }
}

/// SPEC I6
#[tokio::test]
async fn archives_that_lie_or_swell() {
    let image = image();
    let config = |name: &str, layers: &[&str]| serde_json::json!({"Config": name, "Layers": layers});
    let with = |manifest: &serde_json::Value, links: &[(&str, &str)]| {
        let manifest = manifest.to_string();
        let files =
            [("c", &image.config[..]), ("l", &image.layers[0].0), ("manifest.json", manifest.as_bytes())];
        archive(&files, links)
    };
    let good = config("c", &["l", "l"]);
    let large = vec![b' '; 3 << 20];
    let many = serde_json::json!(vec![config("large", &[]); 500]).to_string();
    let tags: Vec<_> = (0..2000).map(|n| format!("x:{n}")).collect();
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(1 << 40);
    header.set_cksum();
    let index =
        |entry: &serde_json::Value| serde_json::json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
    let descriptor = |digest: &str, size: usize| serde_json::json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": size});
    let path = format!("blobs/sha256/{}", digest(&image.manifest).trim_start_matches("sha256:"));
    let named = |digest: &str| index(&descriptor(digest, image.manifest.len()));
    for (what, bytes, text) in [
        ("no such configuration", with(&serde_json::json!([config("x", &[])]), &[]), "lacks the file"),
        ("no such layer", with(&serde_json::json!([config("c", &["l", "m"])]), &[]), "lacks the file"),
        (
            "too few layers",
            with(&serde_json::json!([config("c", &["l"])]), &[]),
            "don't match image configuration",
        ),
        ("a loop", with(&serde_json::json!([config("a", &[])]), &[("a", "b"), ("b", "a")]), "do not end"),
        ("an absolute link", with(&serde_json::json!([good]), &[("a", "/etc/passwd")]), "leads out"),
        ("absolute", with(&serde_json::json!([config("/etc/passwd", &[])]), &[]), "leads out"),
        (
            "configurations without end",
            archive(&[("large", &large), ("manifest.json", many.as_bytes())], &[]),
            "exceed 67108864 bytes",
        ),
        ("2000 images", with(&serde_json::json!(vec![config("c", &[]); 2000]), &[]), "more than 1000 images"),
        (
            "2000 names",
            with(&serde_json::json!([{"Config": "c", "RepoTags": tags}]), &[]),
            "more than 1000 names",
        ),
        ("a name of a terabyte", header.as_bytes().to_vec(), "larger than 1 MiB"),
        ("names of a kilometre", archive(&[(&"n/".repeat(3000), b"")], &[]), "longer than 4096 bytes"),
        ("only version 1", archive(&[("repositories", b"{}")], &[]), "version 1 format is not supported"),
        ("nothing known", archive(&[("hello", b"{}")], &[]), "neither manifest.json"),
        (
            "a missing blob",
            archive(&[("index.json", named(&digest(b"x")).as_bytes())], &[]),
            "lacks the file",
        ),
        (
            "a digest that is a path",
            archive(&[("index.json", named("sha256:../../../etc/passwd").as_bytes())], &[]),
            "invalid or unsupported digest",
        ),
        (
            "another content than its digest",
            archive(&[(&path, b"{}"), ("index.json", named(&digest(&image.manifest)).as_bytes())], &[]),
            "does not have this digest",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let error = load(&store, &bytes).await.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(text), "{what}: {error}");
        assert!(store.list().unwrap().is_empty(), "{what}");
        assert_eq!((files(&dir.path().join("disks")), files(&dir.path().join("tmp"))), (0, 0), "{what}");
    }
    // Of two files of one name the last counts; one file may be several layers, and is taken once.
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let manifest = serde_json::json!([good]).to_string();
    let twice = archive(
        &[
            ("c", b"no configuration"),
            ("manifest.json", b"[]"),
            ("c", &image.config),
            ("l", &image.layers[0].0),
            ("manifest.json", manifest.as_bytes()),
        ],
        &[],
    );
    assert_eq!(load(&store, &twice).await.unwrap(), [Loaded::Id(image.id())]);
    // What an archive may have at most, packed or not.
    let mut options = options(dir.path());
    options.max_image = 20_000;
    drop(store);
    let store = ImageStore::open(options).unwrap();
    for bytes in [vec![0; 30_000], gzip(&vec![0; 30_000])] {
        let error = load(&store, &bytes).await.unwrap_err().to_string();
        assert!(error.contains("larger than the 20000 bytes"), "{error}");
    }
    assert_eq!(files(&dir.path().join("tmp")), 0);
}

#[tokio::test]
async fn hostile_archives_are_refused_and_leave_nothing() {
    let image = image();
    let mut lying = image.config.clone();
    let at = lying.windows(8).position(|w| w == b"diff_ids").unwrap() + 20;
    lying[at] = if lying[at] == b'0' { b'1' } else { b'0' };
    let lying = TestImage { config: lying, manifest: image.manifest.clone(), layers: image.layers.clone() };
    let bad_blob = TestImage {
        config: image.config.clone(),
        manifest: image.manifest.clone(),
        layers: image
            .layers
            .iter()
            .map(|(tar, blob)| (tar.clone(), [blob.as_slice(), b"x"].concat()))
            .collect(),
    };
    let missing = serde_json::json!([{"Config": "../../etc/passwd", "Layers": []}]).to_string();
    let whole = docker(&image, &serde_json::json!(["x:1"]));
    for (what, bytes) in [
        ("diff ID", docker(&lying, &serde_json::json!(["x:1"]))),
        ("blob", oci(&bad_blob, "x:1")),
        ("escape", archive(&[("manifest.json", missing.as_bytes())], &[])),
        ("link", archive(&[("manifest.json", b"[]")], &[("a", "../../x")])),
        ("cut", whole[..2000].to_vec()),
        ("cut gzip", gzip(&whole)[..200].to_vec()),
        ("empty", Vec::new()),
        ("no archive", b"hello".to_vec()),
        ("tag", docker(&image, &serde_json::json!(["X:1"]))),
        ("nested", archive(&[("manifest.json", "[".repeat(100_000).as_bytes())], &[])),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let error = load(&store, &bytes).await.expect_err(what);
        assert!(store.list().unwrap().is_empty(), "{what}: {error}");
        assert_eq!((files(&dir.path().join("disks")), files(&dir.path().join("tmp"))), (0, 0), "{what}");
    }
}
