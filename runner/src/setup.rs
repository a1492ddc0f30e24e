//! Before the VM: the runner's log, its session, its lock, and room for what it will have to write.

use std::{io, path::Path, time::Duration};

use tracing_subscriber::{EnvFilter, fmt::writer::BoxMakeWriter};

use crate::{
    Error, VmSpec, backlog::Backlog, bounded::Bounded, exit, launch::is_orphan, lock::Lock, spec::RUNNER_LOG,
};

/// Time the last lines of the log have.
const FLUSH: Duration = Duration::from_secs(1);

/// Open files: as many clients as the vsock device takes, and the runner's own.
const FILES: u64 = 4096;

/// The runner's own log; its last lines are waited for when this is dropped.
#[derive(Debug)]
pub(crate) struct Log(Option<Backlog>);

impl Log {
    /// Starts it: bounded, in the state folder; on standard error where that cannot be.
    pub(crate) fn start(state_dir: &Path) -> Self {
        let path = state_dir.join(RUNNER_LOG);
        let open = || Backlog::start("runner.log", Bounded::open(&path, false)?);
        let log = open().inspect_err(|error| eprintln!("cannot write {}: {error}", path.display())).ok();
        let writer = match log.clone() {
            Some(log) => BoxMakeWriter::new(move || log.clone()),
            None => BoxMakeWriter::new(io::stderr),
        };
        let filter = EnvFilter::try_from_env("ARCA_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
        // Somebody may have set one; then it is used.
        let _ =
            tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(writer).try_init();
        Self(log)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(log) = &self.0 {
            log.flush(FLUSH);
        }
    }
}

/// Becomes a session of its own and reads the specification.
pub(crate) fn specification(spec_path: &Path) -> Result<VmSpec, Error> {
    if let Err(error) = rustix::process::setsid() {
        tracing::debug!(%error, "already leads a group");
    }
    // Sockets, logs and records are the owner's only.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let spec = VmSpec::read(spec_path)?;
    spec.check()?;
    // Before a folder is made anew that the next daemon has removed, and again with the lock held.
    refuse_orphans()?;
    for folder in [&spec.run_dir, &spec.state_dir] {
        std::fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
    }
    Ok(spec)
}

fn refuse_orphans() -> Result<(), Error> {
    if is_orphan() { Err(Error::Lost("the daemon that wanted it has ended".into())) } else { Ok(()) }
}

/// Takes the lock, clears what an earlier run left and takes room for what this one will have to write.
pub(crate) fn prepare(spec: &VmSpec) -> Result<Lock, Error> {
    let lock = Lock::take(&spec.run_dir, &spec.vm_id)?;
    refuse_orphans()?;
    exit::clear_exit(&spec.state_dir)?;
    exit::reserve(&spec.state_dir)?;
    limits();
    // Short, relative socket paths: a socket's address has 108 bytes.
    std::env::set_current_dir(&spec.run_dir).map_err(Error::file("enter", &spec.run_dir))?;
    Ok(lock)
}

/// A core of the runner would hold the guest's memory, which it shares. Each client of the guest takes a descriptor.
fn limits() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = getrlimit(Resource::Nofile).maximum;
    let files = most.map_or(FILES, |most| most.min(FILES));
    for (resource, current, maximum) in
        [(Resource::Core, Some(0), Some(0)), (Resource::Nofile, Some(files), most)]
    {
        if let Err(error) = setrlimit(resource, Rlimit { current, maximum }) {
            tracing::warn!(%error, ?resource, "limit not set");
        }
    }
}
