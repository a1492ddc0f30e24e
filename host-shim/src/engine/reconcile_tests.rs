//! What a killed daemon left, put into a home by hand, and what the next one makes of it. No VM is needed: none lives.

use std::{fs, path::PathBuf, sync::Arc};

use tempfile::TempDir;

use super::{Engine, record::tests::record, record::*};
use crate::{
    config::{Config, Machine},
    home::Home,
    store::Store,
};

const BEFORE: &str = "2026-01-02T03:04:05.000000006Z";
const AFTER: &str = "2026-01-02T03:05:05.000000006Z";

struct Left {
    dir: TempDir,
    home: Home,
}

impl Left {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut home = Home::new(dir.path()).unwrap();
        home.furnish().unwrap();
        Self { dir, home }
    }

    /// A stored container with its folder.
    fn container(&self, id: &str, name: &str, change: impl FnOnce(&mut Record)) {
        let mut record = record(id, name);
        change(&mut record);
        Store::open(&self.home.store()).unwrap().insert(&record).unwrap();
        self.file(id, "disk.img", "disk");
    }

    fn file(&self, id: &str, name: &str, content: &str) {
        fs::create_dir_all(self.home.container(id)).unwrap();
        fs::write(self.home.container(id).join(name), content).unwrap();
    }

    fn exit(&self, id: &str, code: i32) {
        let record = serde_json::json!({
            "exit_code": code, "oom_killed": code == 137, "started_at": BEFORE, "finished_at": AFTER, "error": "", "pid": 9
        });
        self.file(id, "exit.json", &record.to_string());
    }

    async fn start(&self) -> Arc<Engine> {
        let nowhere = || PathBuf::from("/nonexistent");
        let machine = Machine {
            arca: nowhere(),
            kernel: nowhere(),
            initramfs: nowhere(),
            qemu: nowhere(),
            accelerator: runner::Accelerator::Tcg,
            accelerator_note: None,
            cpus: 1,
            memory_mib: 512,
        };
        let images = images::ImageStore::open(images::Options::new(self.home.images())).unwrap();
        Engine::start(self.home.clone(), Config::default(), machine, Arc::new(images)).await.unwrap()
    }
}

fn running(record: &mut Record) {
    record.state.started(9, BEFORE.into());
}

fn state(engine: &Engine, id: &str) -> State {
    engine.find(id).unwrap().record().state.clone()
}

/// SPEC D4, D9
#[tokio::test]
async fn exits_and_starts_that_were_not_written_down() {
    let left = Left::new();
    left.container("a1", "missed", running);
    left.exit("a1", 7);
    left.container("a2", "oom", running);
    left.exit("a2", 137);
    // Started, and ended, and nobody wrote down either.
    left.container("a3", "unknown", |_| ());
    left.exit("a3", 3);
    left.container("a4", "known", |record| {
        running(record);
        record.state.status = Status::Exited;
        record.state.exit_code = 5;
    });
    left.exit("a4", 6);
    left.container("a5", "lost", running);
    left.container("a6", "garbage", running);
    left.file("a6", "exit.json", "{\"exit_code\":");
    left.container("a7", "empty", |_| ());
    left.file("a7", "exit.json", "");
    let engine = left.start().await;
    for (id, code, oom) in [("a1", 7, false), ("a2", 137, true), ("a3", 3, false)] {
        let state = state(&engine, id);
        assert_eq!((state.status, state.exit_code, state.oom_killed), (Status::Exited, code, oom), "{id}");
        assert_eq!((state.started_at.as_str(), state.finished_at.as_str()), (BEFORE, AFTER), "{id}");
        let waited = engine.wait(&engine.find(id).unwrap(), super::wait::Condition::NotRunning).await;
        assert_eq!(waited.exit_code, code);
    }
    // Its exit was recorded: the record is the truth.
    assert_eq!(state(&engine, "a4").exit_code, 5);
    for id in ["a5", "a6"] {
        let state = state(&engine, id);
        assert_eq!((state.status, state.exit_code), (Status::Exited, 137), "{id}");
        assert!(!state.error.is_empty() && state.finished_at.as_str() > AFTER, "{id}: {state:?}");
    }
    assert_eq!(state(&engine, "a7").status, Status::Created);
}

/// SPEC D5, D15
#[tokio::test]
async fn removals_are_finished() {
    let left = Left::new();
    left.container("b1", "removing", |record| record.state.status = Status::Removing);
    left.container("b2", "rm", |record| {
        running(record);
        record.host.auto_remove = true;
    });
    left.exit("b2", 0);
    left.container("b3", "ended", |record| {
        running(record);
        record.state.status = Status::Exited;
        record.host.auto_remove = true;
    });
    // Made, and never started: as in Docker, it stays.
    left.container("b4", "made", |record| record.host.auto_remove = true);
    let engine = left.start().await;
    let names: Vec<String> = engine.all().iter().map(|container| container.record().name.clone()).collect();
    assert_eq!(names, ["made"]);
    assert_eq!(fs::read_dir(left.home.containers()).unwrap().count(), 1);
    drop(engine);
    assert_eq!(Store::open(&left.home.store()).unwrap().load().unwrap().records.len(), 1);
}

/// SPEC D2, D12, D13
#[tokio::test]
async fn what_no_record_names_is_cleared_and_nothing_else() {
    let left = Left::new();
    left.container("c1", "web", |_| ());
    left.file("c2", "disk.img", "half made");
    // Nothing that Arca makes.
    left.file("notes", "text", "mine");
    let run = left.home.run().to_owned();
    for name in ["0123456789ab", "c1"] {
        fs::create_dir_all(run.join(name)).unwrap();
        fs::write(run.join(name).join("runner.lock"), "{}").unwrap();
    }
    fs::write(left.home.templates().join(".ext4-x.tmp"), "half").unwrap();
    fs::write(left.home.templates().join("ext4-v1.img"), "whole").unwrap();
    drop(left.start().await);
    let names = |dir: PathBuf| {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(left.home.containers()), ["c1", "notes"]);
    assert_eq!(names(left.home.templates()), ["ext4-v1.img"]);
    assert!(names(run).is_empty());

    // The database is gone: what files are left may be all that somebody has.
    fs::remove_file(left.home.store()).unwrap();
    let engine = left.start().await;
    assert!(engine.all().is_empty());
    assert_eq!(names(left.dir.path().join("containers.lost-1")), ["c1", "notes"]);
    assert!(names(left.home.containers()).is_empty());
}
