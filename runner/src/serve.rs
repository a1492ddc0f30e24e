//! The body of `arca runner`.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, PoisonError},
    time::Duration,
};

use proto::{
    dial, ports,
    runner::{Stage, runner_server::RunnerServer},
    sandbox::{DeleteProcessRequest, GetInfoRequest, PowerOffRequest, SignalProcessRequest},
};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Status, transport::Server};
use tracing_subscriber::EnvFilter;

use crate::{
    Error, VmSpec, clock,
    container::{KILLED, record_exit},
    exit,
    guest::call,
    launch::is_orphan,
    lock::Lock,
    runner::Runner,
    service::Service,
    spec::{RUNNER_SOCKET, VSOCK_SOCKET},
    state::Event,
    vmm::{Vm, Vmm, qemu::Qemu},
};

/// Time an orderly power-off may take before the VM is killed.
const POWER_OFF: Duration = Duration::from_secs(5);
/// Time answers under way have once the VM is gone.
const LINGER: Duration = Duration::from_secs(2);
/// Time an attached client has to read the last output.
const LAST_READ: Duration = Duration::from_secs(60);
/// Grace on SIGTERM.
const SIGNAL_GRACE_MS: u32 = 10_000;
/// `SIGKILL` in the guest (signal(7)).
const SIGKILL: u32 = 9;
/// Lines of the console in a failure's reason.
const TAIL_LINES: usize = 15;

/// Runs one VM as `spec_path` says, until it is gone. Call it from the main thread of a process of its own: its children die
/// with the thread that started them.
#[must_use]
pub fn serve(spec_path: &Path) -> ExitCode {
    let filter = EnvFilter::try_from_env("ARCA_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // Somebody may have set one; then it is used.
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(io::stderr).try_init();
    match prepare(spec_path).and_then(|(spec, lock)| run(spec, lock)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Becomes a session of its own, reads the specification, takes the lock and clears what an earlier run left.
fn prepare(spec_path: &Path) -> Result<(VmSpec, Lock), Error> {
    if let Err(error) = rustix::process::setsid() {
        tracing::debug!(%error, "already leads a group");
    }
    // Sockets, logs and records are the owner's only.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let spec = VmSpec::read(spec_path)?;
    spec.check()?;
    for folder in [&spec.run_dir, &spec.state_dir] {
        std::fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
    }
    let lock = Lock::take(&spec.run_dir, &spec.vm_id)?;
    if is_orphan() {
        return Err(Error::Lost("the daemon that wanted it has ended".into()));
    }
    exit::clear_exit(&spec.state_dir)?;
    // Short, relative socket paths: a socket's address has 108 bytes.
    std::env::set_current_dir(&spec.run_dir).map_err(Error::file("enter", &spec.run_dir))?;
    Ok((spec, lock))
}

fn run(spec: VmSpec, lock: Lock) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // The only blocking work are dialled names and closes.
        .max_blocking_threads(2)
        .build()
        .map_err(Error::file("create", Path::new("tokio runtime")))?;
    let result = runtime.block_on(async {
        let runner = Runner::new(spec);
        let server = listen(&runner)?;
        on_signals(&runner)?;
        live(&runner).await;
        end(&runner, server, lock).await;
        Ok(())
    });
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// Binds the socket and answers from now on.
fn listen(runner: &Arc<Runner>) -> Result<JoinHandle<()>, Error> {
    let path = Path::new(RUNNER_SOCKET);
    remove_sockets(&[RUNNER_SOCKET]);
    let listener = UnixListener::bind(path).map_err(Error::file("bind", path))?;
    let gone = Arc::clone(runner);
    let server = Server::builder()
        .add_service(RunnerServer::new(Service(Arc::clone(runner))))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async move {
            let mut gone = gone.gone.subscribe();
            // The sender lives in the runner itself.
            let _ = gone.wait_for(|gone| *gone).await;
        });
    Ok(tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "the runner's socket");
        }
    }))
}

fn on_signals(runner: &Arc<Runner>) -> Result<(), Error> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).map_err(Error::file("watch", Path::new("signals")))?;
        let runner = Arc::clone(runner);
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                runner.request_shutdown(SIGNAL_GRACE_MS);
            }
        });
    }
    Ok(())
}

/// From boot to the end of the VM.
async fn live(runner: &Arc<Runner>) {
    let vm: Arc<dyn Vm> = match Qemu.boot(&runner.spec).await {
        Ok(vm) => Arc::from(vm),
        Err(error) => return fail(runner, error.to_string()),
    };
    let begin = Instant::now();
    runner.set_vm(Arc::clone(&vm));
    runner.machine.advance(Event::Booting { hypervisor_pid: vm.pid() });
    let boot = tokio::select! {
        ready = ready(runner) => ready,
        how = vm.wait() => Err(Error::Lost(format!("{how} while booting"))),
        _ = runner.shutdown_requested() => Err(Error::Lost("shut down while booting".into())),
    };
    match boot {
        Ok(()) => {
            let boot_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(boot_ms, "guest answers");
            runner.machine.advance(Event::Ready { boot_ms });
        }
        Err(error) => {
            fail(runner, with_tail(&error.to_string(), vm.as_ref()));
            return stop_hard(vm.as_ref()).await;
        }
    }
    tokio::select! {
        how = vm.wait() => lost(runner, &how),
        _ = runner.machine.wait(Stage::Exited) => {
            power_off(runner, vm.as_ref()).await;
        }
        grace = runner.shutdown_requested() => shut_down(runner, vm.as_ref(), Duration::from_millis(grace.into())).await,
    }
}

/// Waits until the guest's service answers.
async fn ready(runner: &Runner) -> Result<(), Error> {
    let within = Duration::from_millis(runner.spec.boot_timeout_ms.max(1));
    let late = || Error::Timeout { stage: "answer of the guest", after: within, tail: String::new() };
    let boot = async {
        // A plain dial first: cheaper to repeat than a gRPC channel.
        let socket: PathBuf = runner.spec.vsock_socket();
        dial::connect_until(&socket, ports::GUEST_CONTROL, Instant::now() + within)
            .await
            .map_err(|_| late())?;
        tracing::debug!("guest listens");
        let guest = runner.guest().ok_or_else(late)?;
        call("answer of the guest", within, || {
            let mut guest = guest.clone();
            async move { guest.get_info(GetInfoRequest {}).await }
        })
        .await
    };
    let info = timeout(within, boot).await.map_err(|_| late())??;
    tracing::info!(version = info.version, kernel = info.kernel_release, uptime_ms = info.uptime_ms, "guest");
    Ok(())
}

/// A reason with the console's end.
fn with_tail(reason: &str, vm: &dyn Vm) -> String {
    match vm.tail(TAIL_LINES) {
        tail if tail.is_empty() => format!("{reason}; the console is empty"),
        tail => format!("{reason}; the console ends with:\n{tail}"),
    }
}

/// The VM did not come up, or is gone without having run anything.
fn fail(runner: &Runner, reason: String) {
    tracing::error!("{reason}");
    runner.machine.advance(Event::Failed(reason.clone()));
    runner.hub.end(Err(Status::failed_precondition(reason)));
}

/// The VM is gone unasked: a running process was killed with it.
fn lost(runner: &Runner, how: &str) {
    let reason = match runner.vm() {
        Some(vm) => with_tail(&format!("the VM ended: {how}"), vm.as_ref()),
        None => how.to_owned(),
    };
    if runner.machine.get().stage == Stage::Running {
        tracing::error!("{reason}");
        record_exit(runner, KILLED, false, clock::now(), reason);
    } else {
        fail(runner, reason);
    }
}

/// Ends a VM on request: a running process is killed and its exit recorded first.
async fn shut_down(runner: &Arc<Runner>, vm: &dyn Vm, grace: Duration) {
    let orderly = async {
        if runner.machine.get().stage == Stage::Running {
            kill_main(runner, grace).await;
            // Its exit is recorded by its watcher, or below.
            let _ = runner.machine.wait(Stage::Exited).await;
        }
        power_off(runner, vm).await;
    };
    let finished = timeout(grace, orderly).await.is_ok();
    stop_hard(vm).await;
    if runner.machine.get().stage == Stage::Running {
        record_exit(
            runner,
            KILLED,
            false,
            clock::now(),
            format!("the VM was powered off by force after {grace:?}"),
        );
    } else if !runner.machine.get().is_final() {
        tracing::info!(finished, "shut down without a container");
        fail(runner, "the VM was shut down".into());
    }
}

async fn kill_main(runner: &Runner, within: Duration) {
    let (Some(guest), Some(id)) = (runner.guest(), runner.container_id()) else { return };
    let request =
        SignalProcessRequest { container_id: id.clone(), process_id: id, signal: SIGKILL, all: true };
    let killed = call("signal in the guest", within, || {
        let (mut guest, request) = (guest.clone(), request.clone());
        async move { guest.signal_process(request).await }
    });
    if let Err(error) = killed.await {
        tracing::warn!("the main process was not killed: {error}");
    }
}

/// Tells the guest that its exit is known and to power off; kills the VM at the deadline.
async fn power_off(runner: &Runner, vm: &dyn Vm) {
    let begin = Instant::now();
    let ask = async {
        let Some(mut guest) = runner.guest() else { return };
        if let Some(id) = runner.container_id() {
            let request = DeleteProcessRequest { container_id: id.clone(), process_id: id };
            if let Err(status) = guest.delete_process(request).await {
                tracing::debug!("process not deleted: {}", status.message());
            }
        }
        if let Err(status) = guest.power_off(PowerOffRequest {}).await {
            // The power may go before the answer gets through.
            tracing::debug!("power-off: {}", status.message());
        }
    };
    let orderly = async {
        ask.await;
        vm.wait().await
    };
    // The VM may also go while it is being asked.
    let ended = tokio::select! {
        ended = timeout(POWER_OFF, orderly) => ended.is_ok(),
        _ = vm.wait() => true,
    };
    if !ended {
        tracing::warn!("no power-off within {POWER_OFF:?}: {}", with_tail("killed", vm));
        stop_hard(vm).await;
    }
    tracing::info!(ms = begin.elapsed().as_millis(), orderly = ended, "VM powered off");
}

async fn stop_hard(vm: &dyn Vm) {
    vm.kill();
    vm.wait().await;
}

/// The VM is gone: answers under way get through, then nothing of the runner is left.
async fn end(runner: &Arc<Runner>, mut server: JoinHandle<()>, lock: Lock) {
    {
        let mut container = runner.container.lock().unwrap_or_else(PoisonError::into_inner);
        // A start under way learns from the machine's stage that it failed; nothing more is started.
        container.take_if(|(_, outcome)| outcome.borrow().is_none());
    }
    runner.gone.send_replace(true);
    // From here on the next runner of this VM may come.
    remove_sockets(&[RUNNER_SOCKET, VSOCK_SOCKET]);
    drop(lock);
    if timeout(LINGER, &mut server).await.is_ok() {
        return;
    }
    let deadline = Instant::now() + LAST_READ;
    while runner.hub.is_pending() && Instant::now() < deadline {
        sleep(Duration::from_millis(50)).await;
    }
    server.abort();
}

fn remove_sockets(names: &[&str]) {
    for name in names {
        match std::fs::remove_file(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, name, "socket not removed");
            }
            _ => {}
        }
    }
}
