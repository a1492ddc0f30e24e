//! What a killed daemon left, put into a home by hand, and what the next one makes of it. No VM is needed: none lives.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use super::{Engine, START, record::tests::record, record::*};
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
        self.start_by(Instant::now() + START).await
    }

    /// A lock as of a runner with this pid; held until it is dropped.
    fn runner(&self, id: &str, pid: u32) -> Flock<File> {
        let dir = self.home.vm_run(id);
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("runner.lock");
        fs::write(&path, serde_json::json!({"pid": pid, "vm_id": id}).to_string()).unwrap();
        Flock::lock(File::open(&path).unwrap(), FlockArg::LockExclusiveNonblock).unwrap()
    }

    async fn start_by(&self, deadline: Instant) -> Arc<Engine> {
        Engine::start(self.home.clone(), Config::default(), Machine::nowhere(), self.images(), deadline)
            .await
            .unwrap()
    }

    fn images(&self) -> Arc<images::ImageStore> {
        Arc::new(images::ImageStore::open(images::Options::new(self.home.images())).unwrap())
    }
}

fn running(record: &mut Record) {
    record.state.started(9, BEFORE.into());
}

fn names(dir: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
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

/// SPEC D13
#[tokio::test]
async fn files_of_containers_are_put_aside_before_there_is_a_database() {
    let left = Left::new();
    left.file("c1", "disk.img", "all that somebody has");
    // The daemon is killed, or refuses, at any later moment of its start: here at once, as the database cannot be made.
    fs::create_dir(left.home.store().with_extension("new")).unwrap();
    let machine = Machine::nowhere();
    let deadline = Instant::now() + START;
    let (home, images) = (left.home.clone(), left.images());
    Engine::start(home, Config::default(), machine, images, deadline).await.unwrap_err();
    fs::remove_dir(left.home.store().with_extension("new")).unwrap();
    // They must be safe already: with a database there, they would be leftovers.
    assert_eq!(names(left.dir.path().join("containers.lost-1/c1")), ["disk.img"]);
    left.start().await;
    left.start().await;
    assert_eq!(names(left.dir.path().join("containers.lost-1/c1")), ["disk.img"]);
    assert!(names(left.home.containers()).is_empty());
    assert!(!left.dir.path().join("containers.lost-2").exists());
}

/// SPEC D13
#[tokio::test]
async fn with_an_older_database_nothing_is_lost_that_had_a_vm() {
    let left = Left::new();
    left.container("c1", "before", |_| ());
    // Made since: one ran, one was only copied into, one has neither.
    for (id, file) in [("c2", "vm.json"), ("c3", "files"), ("c4", "disk.img")] {
        left.file(id, "disk.img", "disk");
        left.file(id, file, "x");
    }
    left.start().await;
    left.start().await;
    assert_eq!(names(left.home.containers()), ["c1"]);
    assert_eq!(names(left.dir.path().join("containers.lost-1")), ["c2", "c3"]);
    assert_eq!(names(left.dir.path().join("containers.lost-1/c2")), ["disk.img", "vm.json"]);
    assert!(!left.dir.path().join("containers.lost-2").exists());
}

/// SPEC D11, D14
#[tokio::test]
async fn a_runner_that_does_not_die_keeps_its_lock_and_nobody_waiting() {
    let left = Left::new();
    left.container("d1", "web", |_| ());
    let mut process = Command::new("sleep").arg("1000").spawn().unwrap();
    // The process can be killed; the lock is this test's, as if it hung in the kernel.
    let stray = left.runner("0123456789ab", process.id());
    let begin = Instant::now();
    let engine = left.start_by(begin + Duration::from_millis(500)).await;
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    timeout(Duration::from_secs(30), tokio::task::spawn_blocking(move || process.wait()))
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    sleep(Duration::from_secs(3)).await;
    assert!(left.home.run().join("0123456789ab/runner.lock").exists());
    drop(stray);

    let container = engine.find("d1").unwrap();
    let held = left.runner("d1", u32::MAX);
    assert!(timeout(Duration::from_millis(500), engine.gone(&container)).await.is_err());
    assert!(left.home.vm_run("d1").join("runner.lock").exists());
    drop(held);
    timeout(Duration::from_secs(10), engine.gone(&container)).await.unwrap();
    assert!(!left.home.vm_run("d1").exists());
}

/// SPEC D3
#[tokio::test]
async fn a_request_waits_until_it_is_known_what_lives() {
    let left = Left::new();
    left.container("e1", "web", running);
    let engine = left.start().await;
    let container = engine.find("e1").unwrap();
    assert!(*container.settled.borrow());
    container.settled.send_replace(false);
    let (top, kill) = (engine.top(&container, ""), engine.kill(&container, "web", "KILL"));
    let wanted = super::attach::Wanted { stdin: false, stdout: true, stderr: true };
    let attach = engine.attach(&container, wanted);
    tokio::pin!(top, kill, attach);
    let moment = Duration::from_millis(100);
    assert!(timeout(moment, &mut top).await.is_err());
    assert!(timeout(moment, &mut kill).await.is_err());
    assert!(timeout(moment, &mut attach).await.is_err());
    assert!(container.take_waiting().is_empty());
    container.settled.send_replace(true);
    top.await.unwrap_err();
    kill.await.unwrap_err();
    attach.await.unwrap();
}

/// SPEC D1, D9
#[tokio::test]
async fn a_start_that_failed_did_not_happen() {
    let left = Left::new();
    left.container("f1", "web", |_| ());
    let engine = left.start().await;
    let container = engine.find("f1").unwrap();
    // The process had begun when the start failed: its runner writes down how it ended.
    container.seen.send_modify(|seen| seen.busy = true);
    left.exit("f1", 143);
    let vm = runner::Handle::unverified(&left.home.vm_run("f1"), "f1");
    engine.undo(&container, &vm).await;
    assert!(!container.seen().busy);
    drop((container, engine));
    assert_eq!(state(&*left.start().await, "f1").status, Status::Created);
}

/// SPEC E17
#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_start() {
    let left = Left::new();
    left.container("a1", "web", |_| ());
    left.container("a2", "db", |_| ());
    let engine = left.start().await;
    let (one, other) = (engine.find("a1").unwrap(), engine.find("a2").unwrap());
    let _starting = (one.files.lock().await, other.files.lock().await);
    timeout(Duration::from_secs(15), engine.shutdown()).await.unwrap();
}
