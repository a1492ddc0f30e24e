//! One daemon for all tests of this program, and containers that are removed whatever happens.

use std::{
    collections::HashSet,
    path::Path,
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use tests::{
    daemon::Daemon,
    docker::{Docker, Output},
};

pub(crate) use tests::wait::eventually;

enum Engine {
    Arca(Daemon),
    Other(Docker),
}

static ENGINE: LazyLock<Engine> = LazyLock::new(|| match std::env::var("ARCA_E2E_HOST") {
    Ok(host) => Engine::Other(Docker::new(host, Path::new("/nonexistent"))),
    Err(_) => Engine::Arca(Daemon::start().unwrap()),
});

static LOADED: Mutex<Option<HashSet<String>>> = Mutex::new(None);
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The docker CLI for the engine under test, with busybox loaded.
pub(crate) fn docker() -> &'static Docker {
    docker_with("busybox")
}

/// The docker CLI for the engine under test, with one more image loaded.
pub(crate) fn docker_with(image: &str) -> &'static Docker {
    let docker = match &*ENGINE {
        Engine::Arca(daemon) => daemon.docker(),
        Engine::Other(docker) => docker,
    };
    let mut loaded = LOADED.lock().unwrap();
    for image in ["busybox", image] {
        if loaded.get_or_insert_default().insert(image.to_owned()) {
            let path = tests::cache::images().join(format!("{image}.docker.tar"));
            assert!(path.is_file(), "{} is missing: cargo run -p tests --bin test-images", path.display());
            docker.run(&["load", "-q", "-i", path.to_str().unwrap()]).ok();
        }
    }
    docker
}

/// The daemon, when it is Arca that is under test.
pub(crate) fn arca() -> Option<&'static Daemon> {
    match &*ENGINE {
        Engine::Arca(daemon) => Some(daemon),
        Engine::Other(_) => None,
    }
}

/// `docker run --rm busybox sh -c SCRIPT` with options before the image.
#[track_caller]
pub(crate) fn sh(options: &str, script: &str) -> Output {
    let mut args = vec!["run", "--rm"];
    args.extend(options.split_whitespace());
    args.extend(["busybox", "sh", "-c", script]);
    docker().run(&args)
}

/// A container that goes away with the value.
pub(crate) struct Container {
    pub(crate) name: String,
}

impl Container {
    /// A name no other test uses; nothing is created yet.
    pub(crate) fn named(what: &str) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self { name: format!("{what}-{}-{number}", std::process::id()) }
    }

    /// `docker run -d OPTIONS busybox sh -c SCRIPT`
    #[track_caller]
    pub(crate) fn run(what: &str, options: &str, script: &str) -> Self {
        Self::run_image(what, options, "busybox", &["sh", "-c", script])
    }

    /// `docker run -d OPTIONS IMAGE COMMAND...`
    #[track_caller]
    pub(crate) fn run_image(what: &str, options: &str, image: &str, command: &[&str]) -> Self {
        let container = Self::named(what);
        let mut args = vec!["run", "-d", "--name", &container.name];
        args.extend(options.split_whitespace());
        args.push(image);
        args.extend(command);
        docker().run(&args).ok();
        container
    }

    /// One `docker inspect -f` value.
    #[track_caller]
    pub(crate) fn inspect(&self, format: &str) -> String {
        docker().run(&["inspect", "-f", format, &self.name]).ok().to_owned()
    }

    /// `docker exec NAME sh -c SCRIPT`
    #[track_caller]
    pub(crate) fn exec(&self, script: &str) -> Output {
        docker().run(&["exec", &self.name, "sh", "-c", script])
    }

    /// `docker logs`, both streams as the container wrote them.
    #[track_caller]
    pub(crate) fn logs(&self) -> Output {
        docker().run(&["logs", &self.name])
    }

    /// `docker wait`: the exit code.
    #[track_caller]
    pub(crate) fn wait(&self) -> String {
        docker().run(&["wait", &self.name]).ok().to_owned()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = docker().run(&["rm", "-f", "-v", &self.name]);
    }
}
