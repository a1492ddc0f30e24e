//! `arca daemon run`

use std::{os::unix::fs::DirBuilderExt, path::Path, process::ExitCode, sync::Arc, time::Duration};

use nix::fcntl::{Flock, FlockArg};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{
    CliResult, chain, client, limits,
    lock::{DaemonLock, pid_text},
    logging,
    output::say,
};
use crate::{
    api::{
        self,
        server::{Limits, Socket},
    },
    config::{Config, Machine},
    engine::{self, Engine},
    error::{Error, Result},
    home::Home,
};

/// Runs the daemon until SIGTERM or SIGINT.
pub(super) fn run(detached: bool) -> CliResult {
    let result = daemon(detached);
    if detached && let Err(error) = &result {
        // For `arca daemon start`, which reads this: the log's disk may be full.
        say(format_args!("arca: {}", chain(error.as_ref())));
    }
    result
}

fn daemon(detached: bool) -> CliResult {
    if detached {
        // Fails only for a leader of a group, which a child of `start` is not.
        let _ = nix::unistd::setsid();
    }
    let mut home = Home::from_env()?;
    home.create()?;
    let config = Config::load(&home)?;
    let mut lock = DaemonLock::take(&home)?;
    logging::start(config.log_level);
    limits::raise();
    home.furnish()?;
    lock.tell(&config.socket(&home))?;
    limits::check_files()?;
    limits::check_threads()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve(home, config, detached));
    // Tasks that hang must not hold the process.
    runtime.shutdown_background();
    result?;
    drop(lock);
    Ok(ExitCode::SUCCESS)
}

async fn serve(home: Home, config: Config, detached: bool) -> Result<()> {
    let deadline = tokio::time::Instant::now() + engine::START;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let socket_path = config.socket(&home);
    refuse_served(&socket_path)?;
    let (machine, images) = tokio::try_join!(Machine::find(&config, &home), images(&home, &config))?;
    tracing::info!(
        home = %home.root().display(), accelerator = machine.accelerator.as_str(), kernel = %machine.kernel.display(),
        "starting"
    );
    let engine = Engine::start(home, config, machine, images, deadline).await?;
    // Last: whoever can connect is served.
    let socket = bind(&socket_path)?;
    tracing::info!(socket = %socket_path.display(), "ready");

    let stop = CancellationToken::new();
    let router = api::router(engine.clone());
    let serving = tokio::spawn(api::server::serve(socket, router, Limits::of_process(), stop.clone()));
    let name = loop {
        tokio::select! {
            _ = terminate.recv() => break "SIGTERM",
            _ = interrupt.recv() => break "SIGINT",
            // The terminal is gone.
            _ = hangup.recv() => if !detached { break "SIGHUP" },
        }
        tracing::info!("SIGHUP: the configuration is read at a start only");
    };
    tracing::info!(signal = name, "stopping; containers go on running");
    stop.cancel();
    if let Err(error) = serving.await {
        tracing::error!(%error, "the API server was lost");
    }
    engine.shutdown().await;
    tracing::info!("stopped");
    Ok(())
}

/// Refuses a socket that another daemon serves, before anything is touched.
fn refuse_served(path: &Path) -> Result<()> {
    if !api::socket::is_served(path) {
        return Ok(());
    }
    Err(Error::system(format!(
        "another daemon{} answers on {}: stop it, or set socketPath in config.json",
        pid_text(client::server(path)),
        path.display()
    )))
}

/// Binds the API socket. The look at a stale one and its replacement are one step, for daemons that start at the same time:
/// under a lock of the socket's folder.
fn bind(path: &Path) -> Result<Socket> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let _alone = match std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder) {
        Ok(()) => std::fs::File::open(folder).ok().and_then(lock_for_a_moment),
        // The bind below says why.
        Err(_) => None,
    };
    refuse_served(path)?;
    Socket::bind(path)
}

/// Who holds it for longer is no daemon; then there is no lock.
fn lock_for_a_moment(mut folder: std::fs::File) -> Option<Flock<std::fs::File>> {
    for _ in 0..100 {
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Some(lock),
            Err((unlocked, _)) => folder = unlocked,
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

async fn images(home: &Home, config: &Config) -> Result<Arc<images::ImageStore>> {
    let options = images::Options {
        mirrors: config.registry_mirrors.clone(),
        insecure_registries: config.insecure_registries.clone(),
        limits: config.layer_limits(),
        // One slot is for what the container writes.
        max_lower_disks: runner::DISK_SLOTS - 1,
        ..images::Options::new(home.images())
    };
    let opened = tokio::task::spawn_blocking(move || images::ImageStore::open(options)).await;
    let store = opened.map_err(|e| Error::system("opening the image store was lost").because(e))??;
    Ok(Arc::new(store))
}
