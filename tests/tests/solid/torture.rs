//! Random operations, each cut by a SIGKILL of the daemon at a random moment; after every restart the promises hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::json;
use tests::{daemon::Daemon, registry::Registry, strays};

use crate::support::{eventually, fresh};

/// Rounds go on for so long, unless `ARCA_TORTURE_ROUNDS` says how many there are.
const TIME: Duration = Duration::from_secs(90);
/// A daemon answers within this time of its start. What is promised (D11) is measured where nothing runs beside it.
const ANSWER: Duration = Duration::from_secs(60);
/// Power-off of VMs that nobody wants.
const SETTLED: Duration = Duration::from_secs(40);
/// From the start of a docker CLI to its first request.
const CLIENT: Duration = Duration::from_millis(30);
/// Containers at one time.
const MANY: usize = 6;

/// What is done while the daemon is killed. Each takes at most so many milliseconds when nothing disturbs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Operation {
    Pull,
    Load,
    Create,
    Run,
    RunRm,
    Start,
    Exec,
    Remove,
    Stop,
    Restart,
    Pause,
    Rename,
    Update,
    CopyRunning,
    CopyStopped,
    RemoveImage,
}

use Operation::{
    CopyRunning, CopyStopped, Create, Exec, Load, Pause, Pull, Remove, RemoveImage, Rename, Restart, Run,
    RunRm, Start, Stop, Update,
};

const ALL: [(Operation, u64); 16] = [
    (Pull, 1500),
    (Load, 1500),
    (Create, 150),
    (Run, 4000),
    (RunRm, 6000),
    (Start, 4000),
    (Exec, 600),
    (Remove, 1200),
    (Stop, 2500),
    (Restart, 5000),
    (Pause, 200),
    (Rename, 60),
    (Update, 200),
    (CopyRunning, 500),
    (CopyStopped, 4000),
    (RemoveImage, 300),
];

struct Torture {
    rng: StdRng,
    daemon: Daemon,
    /// Lives as long as pulls are made.
    _registry: Registry,
    /// `127.0.0.1:PORT/busybox`
    remote: String,
    names: u32,
    /// Containers with `--rm`: they go when they end.
    leaving: BTreeSet<String>,
    counts: BTreeMap<Operation, u32>,
}

pub(crate) fn run() {
    let seed = std::env::var("ARCA_TORTURE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    let rounds: Option<u32> = std::env::var("ARCA_TORTURE_ROUNDS").ok().and_then(|n| n.parse().ok());
    println!("ARCA_TORTURE_SEED={seed}");
    let registry = Registry::start().unwrap();
    let archive = tests::cache::images().join("busybox.docker.tar");
    let remote = registry.push(&archive, "busybox:latest").unwrap();
    let daemon = fresh(&json!({}));
    let mut torture = Torture {
        rng: StdRng::seed_from_u64(seed),
        daemon,
        _registry: registry,
        remote,
        names: 0,
        leaving: BTreeSet::new(),
        counts: BTreeMap::new(),
    };
    for name in ["first", "second"] {
        torture.docker(&format!("run -d --name {name} busybox sleep 10000000"));
    }
    let begin = Instant::now();
    let mut round = 0;
    while rounds.map_or_else(|| begin.elapsed() < TIME, |rounds| round < rounds) {
        round += 1;
        torture.round(round);
    }
    torture.end();
    println!("{round} rounds in {:?}: {:?}", begin.elapsed(), torture.counts);
}

impl Torture {
    fn docker(&self, words: &str) -> String {
        self.daemon.docker().sh(words).ok().to_owned()
    }

    /// Containers in these states.
    fn containers(&self, states: &[&str]) -> Vec<String> {
        let all = self.docker("ps -a --no-trunc --format {{.ID}}={{.State}}");
        let fits = |line: &&str| line.split_once('=').is_some_and(|(_, state)| states.contains(&state));
        all.lines().filter(fits).map(|line| line[..64].to_owned()).collect()
    }

    fn any(&mut self, states: &[&str]) -> Option<String> {
        let fitting = self.containers(states);
        fitting.choose(&mut self.rng).cloned()
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("t{}", self.names)
    }

    fn round(&mut self, round: u32) {
        let (operation, longest, words) = loop {
            let (operation, longest) = *ALL.choose(&mut self.rng).unwrap();
            if let Some(words) = self.words(operation) {
                break (operation, longest, words);
            }
        };
        *self.counts.entry(operation).or_default() += 1;
        // The client needs a moment before it asks for anything.
        let delay = CLIENT + Duration::from_millis(self.rng.random_range(0..longest));
        println!("{round}: docker {words}, killed after {delay:?}");
        let words: Vec<&str> = words.split_whitespace().collect();
        let before = self.containers(&["created", "running", "paused", "exited"]);
        let client = self.daemon.docker().background(&words).unwrap();
        std::thread::sleep(delay);
        self.daemon.kill9().unwrap();
        let said = client.wait(Duration::from_secs(20)).unwrap();
        let took = self.daemon.start_again().unwrap();
        assert!(took < ANSWER, "the daemon needed {took:?}");
        self.check(operation, &words, &before, said.code);
    }

    /// What to do; `None` when there is nothing to do it to.
    fn words(&mut self, operation: Operation) -> Option<String> {
        let stopped = ["created", "exited"];
        let many = self.containers(&["created", "running", "paused", "exited"]).len() >= MANY;
        fs::write(self.daemon.home().join("client/file"), "to be copied").unwrap();
        Some(match operation {
            Pull => {
                let _ = self.daemon.docker().run(&["rmi", "-f", &self.remote]);
                format!("pull -q {}", self.remote)
            }
            Load => format!("load -q -i {}/debian.docker.tar", tests::cache::images().display()),
            Create if !many => format!("create --name {} busybox sleep 100000", self.name()),
            Run if !many => format!("run -d --name {} busybox sleep 100000", self.name()),
            RunRm => format!("run --rm --name {} busybox sleep 1", self.name()),
            Start => format!("start {}", self.any(&stopped)?),
            Exec => format!("exec {} sleep 0.2", self.any(&["running"])?),
            Remove => format!("rm -f {}", self.any(&["created", "running", "paused", "exited"])?),
            Stop => format!("stop -t 1 {}", self.any(&["running"])?),
            Restart => format!("restart -t 0 {}", self.any(&["running", "exited"])?),
            Pause => match self.any(&["paused"]) {
                Some(frozen) => format!("unpause {frozen}"),
                None => format!("pause {}", self.any(&["running"])?),
            },
            Rename => format!("rename {} {}", self.any(&["created", "running", "exited"])?, self.name()),
            Update => format!("update --cpu-shares 700 {}", self.any(&["created", "running", "exited"])?),
            CopyRunning => self.copy(&["running"])?,
            CopyStopped => self.copy(&stopped)?,
            RemoveImage => format!("rmi -f {}", self.remote),
            Create | Run => return None,
        })
    }

    fn copy(&mut self, states: &[&str]) -> Option<String> {
        let id = self.any(states)?;
        Some(if self.rng.random() {
            format!("cp {}/client/file {id}:/file", self.daemon.home().display())
        } else {
            format!("cp {id}:/bin {}/client/bin", self.daemon.home().display())
        })
    }

    fn check(&mut self, operation: Operation, words: &[&str], before: &[String], code: i32) {
        let after = self.containers(&["created", "running", "paused", "exited"]);
        // Nothing vanished but what was to be removed.
        for id in before {
            let wanted = (operation == Remove && words[2] == id) || self.leaving.contains(id);
            assert!(after.contains(id) || wanted, "{id} has vanished");
            if operation == Remove && words[2] == id && code == 0 {
                assert!(!after.contains(id), "{id} was removed, and is back");
            }
        }
        // Nothing came but what was asked for, and what was answered is there.
        let new: Vec<&String> = after.iter().filter(|id| !before.contains(id)).collect();
        assert!(new.len() <= usize::from([Create, Run, RunRm].contains(&operation)), "{new:?}");
        if [Create, Run].contains(&operation) && code == 0 {
            assert_eq!(new.len(), 1, "it was answered and is not there");
        }
        if operation == RunRm {
            self.leaving.extend(new.into_iter().cloned());
        }
        eventually("those with --rm go when they end", SETTLED, || {
            !self.containers(&["running", "exited", "removing"]).iter().any(|id| self.leaving.contains(id))
        });
        strays::assert_none(&self.daemon, SETTLED);
        strays::assert_consistent(&self.daemon);
        for id in self.containers(&["running"]) {
            let answer = self.daemon.docker().run(&["exec", &id, "echo", "here"]);
            assert!(answer.stdout == "here\n", "{id}: {answer:?}");
        }
    }

    /// Everything that is left works: starts, stops, goes.
    fn end(&mut self) {
        for id in self.containers(&["paused"]) {
            self.docker(&format!("unpause {id}"));
        }
        for id in self.containers(&["created", "exited"]) {
            self.docker(&format!("start {id}"));
        }
        for id in self.containers(&["running", "exited"]) {
            let gone = self.daemon.docker().run(&["rm", "-f", &id]);
            assert!(gone.code == 0 || self.leaving.contains(&id), "{gone:?}");
        }
        assert_eq!(self.docker("ps -aq"), "");
        assert_eq!(self.docker(&format!("pull -q {}", self.remote)), self.remote);
        self.docker(&format!("run --rm {} true", self.remote));
        strays::assert_none(&self.daemon, SETTLED);
        let log = self.daemon.log();
        assert!(!log.contains("panicked"), "{log}");
    }
}
