//! `arca daemon run`

use std::{process::ExitCode, sync::Arc};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{CliResult, lock::DaemonLock, logging};
use crate::{
    api::{
        self,
        server::{Limits, Socket},
    },
    config::{Config, Machine},
    engine::Engine,
    error::{Error, Result},
    home::Home,
};

/// Runs the daemon until SIGTERM or SIGINT.
pub(super) fn run(detached: bool) -> CliResult {
    if detached {
        // Fails only for a leader of a group, which a child of `start` is not.
        let _ = nix::unistd::setsid();
    }
    let home = Home::from_env()?;
    let config = Config::load(&home)?;
    home.create().map_err(|e| {
        Error::system(format!("cannot make the folder {}: set ARCA_HOME to another", home.root().display()))
            .because(e)
    })?;
    let lock = DaemonLock::take(&home)?;
    logging::start(config.log_level);
    // File descriptors: a few for each VM and each attached client.
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(home, config))?;
    // Tasks that hang must not hold the process.
    runtime.shutdown_background();
    drop(lock);
    Ok(ExitCode::SUCCESS)
}

async fn serve(home: Home, config: Config) -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let machine = Machine::find(&config, &home).await?;
    let images = images(&home, &config).await?;
    let socket_path = config.socket(&home);
    tracing::info!(
        home = %home.root().display(), accelerator = machine.accelerator.as_str(), kernel = %machine.kernel.display(),
        "starting"
    );
    let engine = Engine::start(home, config, machine, images).await?;
    // Last: whoever can connect is served.
    let socket = Socket::bind(&socket_path)?;
    tracing::info!(socket = %socket_path.display(), "ready");

    let stop = CancellationToken::new();
    let router = api::router(engine.clone());
    let serving = tokio::spawn(api::server::serve(socket, router, Limits::default(), stop.clone()));
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
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

fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, "cannot raise the number of open files");
    }
}
