//! The body of `arca runner`.

use std::{
    io,
    path::Path,
    process::ExitCode,
    sync::{Arc, PoisonError},
    time::Duration,
};

use proto::{
    runner::{Stage, runner_server::RunnerServer},
    sandbox::{DeleteProcessRequest, PowerOffRequest, SignalProcessRequest},
};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Status, transport::Server};

use crate::{
    Error, VmSpec, clock,
    container::{KILLED, record_exit},
    guest::{self, call},
    lock::Lock,
    runner::Runner,
    service::Service,
    setup, silence,
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
/// Time a VM that was killed has to be gone. A thread of QEMU in a call of a file system that hangs is not gone even then.
const REAPED: Duration = Duration::from_secs(5);
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
    let spec = match setup::specification(spec_path) {
        Ok(spec) => spec,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let _log = setup::Log::start(&spec.state_dir);
    match setup::prepare(&spec).and_then(|lock| run(spec, lock)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(spec: VmSpec, lock: Lock) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // The only blocking work are dialled names, closes and the exit record.
        .max_blocking_threads(3)
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
    // A disk that hangs is not waited for.
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
        ready = guest::ready(vm.as_ref(), &runner.spec) => ready,
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
        how = vm.wait() => lost(runner, &format!("the VM ended: {how}")).await,
        () = guest::until_silent(vm.as_ref()) => hung(runner, vm.as_ref()).await,
        _ = runner.machine.wait(Stage::Exited) => {
            power_off(runner, vm.as_ref()).await;
        }
        grace = runner.shutdown_requested() => shut_down(runner, vm.as_ref(), Duration::from_millis(grace.into())).await,
    }
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

/// The guest does not answer any more, however alive its hypervisor looks.
async fn hung(runner: &Runner, vm: &dyn Vm) {
    let why = format!("the guest did not answer for {:?}{}", silence::LIMIT, vm.condition());
    tracing::error!("{why}: the VM is ended");
    stop_hard(vm).await;
    lost(runner, &why).await;
}

/// The VM is gone unasked: a running process was killed with it.
async fn lost(runner: &Runner, why: &str) {
    let reason = match runner.vm() {
        Some(vm) => with_tail(why, vm.as_ref()),
        None => why.to_owned(),
    };
    if runner.machine.get().stage == Stage::Running {
        tracing::error!("{reason}");
        record_exit(runner, KILLED, false, clock::now(), reason).await;
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
        )
        .await;
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

/// Kills the VM. What the kernel does not let go yet holds nothing up: the disk stays locked by QEMU itself until it is gone.
async fn stop_hard(vm: &dyn Vm) {
    vm.kill();
    if timeout(REAPED, vm.wait()).await.is_err() {
        tracing::error!(
            "the VM was killed and is not gone after {REAPED:?}{}: it is not waited for",
            vm.condition()
        );
    }
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

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use tonic::transport::{Channel, Endpoint};

    use super::*;
    use crate::{Accelerator, exit::read_exit};

    /// One that the kernel does not let go.
    struct Undead;

    #[async_trait]
    impl Vm for Undead {
        fn pid(&self) -> u32 {
            1
        }
        fn channel(&self, _port: u32) -> Channel {
            Endpoint::from_static("http://127.0.0.1:1").connect_lazy()
        }
        async fn wait(&self) -> String {
            std::future::pending().await
        }
        fn kill(&self) {}
        fn waits_for_room(&self) -> bool {
            false
        }
        fn condition(&self) -> String {
            ": QEMU waits for the host's disk".into()
        }
        fn tail(&self, _lines: usize) -> String {
            String::new()
        }
    }

    fn running(state_dir: &Path) -> Arc<Runner> {
        let runner = Runner::new(VmSpec {
            vm_id: "a".into(),
            run_dir: state_dir.to_owned(),
            state_dir: state_dir.to_owned(),
            kernel: "/k".into(),
            initramfs: "/i".into(),
            qemu: "qemu".into(),
            accelerator: Accelerator::Tcg,
            cpus: 1,
            memory_mib: 128,
            disks: Vec::new(),
            boot_timeout_ms: 1,
        });
        runner.machine.advance(Event::Booting { hypervisor_pid: 1 });
        runner.machine.advance(Event::Ready { boot_ms: 1 });
        runner.machine.advance(Event::Running { pid: 1, started_at: clock::format(clock::now()) });
        runner
    }

    /// SPEC V2
    #[tokio::test(start_paused = true)]
    async fn a_vm_that_cannot_be_killed_is_recorded_all_the_same() {
        for ended in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let runner = running(dir.path());
            let end = async {
                if ended {
                    hung(&runner, &Undead).await;
                } else {
                    shut_down(&runner, &Undead, Duration::from_secs(1)).await;
                }
            };
            timeout(REAPED * 4, end).await.unwrap();
            assert_eq!(runner.machine.get().stage, Stage::Exited);
            assert_eq!(read_exit(dir.path()).unwrap().unwrap().exit_code, KILLED);
        }
    }
}
