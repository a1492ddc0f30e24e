//! The container's life in a VM: started on request, then watched to its durable exit record.

use std::{
    path::Path,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use proto::{
    runner::{LogConfig, Stage, StartContainerRequest, StartContainerResponse},
    sandbox::{
        CreateProcessRequest, ProcessSpec, SeedRandomRequest, SetTimeRequest, StartProcessRequest,
        WaitProcessRequest, WaitProcessResponse,
    },
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tonic::Status;

use crate::{
    Error, ExitRecord, clock,
    exit::write_exit,
    guest::{call, is_lost},
    logs::LogWriter,
    runner::{Runner, Started},
    state::{Event, State},
    stdio::{Pump, Wanted},
};

/// Deadlines of the guest's calls.
const SHORT: Duration = Duration::from_secs(10);
/// Mounting disks may replay a journal.
const PREPARE: Duration = Duration::from_secs(120);
const START: Duration = Duration::from_secs(60);
/// Time the output of an ended process may take into the log.
const LAST_OUTPUT: Duration = Duration::from_secs(20);
/// Time the disk has for the exit record before it is told all the same.
const DURABLE: Duration = Duration::from_secs(10);
/// Entropy for the guest: the kernel's pool has 256 bits.
const SEED_BYTES: usize = 64;
/// Docker's exit code of a process that was killed with its machine.
pub(crate) const KILLED: i32 = 137;

/// Starts the container, or answers what an earlier request for the same one came to. The work goes on when the caller
/// leaves.
pub(crate) async fn start(
    runner: &Arc<Runner>,
    request: StartContainerRequest,
) -> Result<StartContainerResponse, Status> {
    runner.machine.wait(Stage::Ready).await?;
    let mut outcome = claim(runner, request)?;
    let started =
        outcome.wait_for(Option::is_some).await.map_err(|_| Status::unavailable("the runner ends"))?;
    started.clone().unwrap_or_else(|| Err(Status::internal("no outcome")))
}

/// Joins the attempt under way (or done) for this container, or begins one.
fn claim(runner: &Arc<Runner>, request: StartContainerRequest) -> Result<watch::Receiver<Started>, Status> {
    let mut container = runner.container.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((id, outcome)) = &*container {
        if *id != request.container_id {
            return Err(Status::already_exists(format!("this VM runs container {id}")));
        }
        // A failed attempt may be repeated.
        if !matches!(&*outcome.borrow(), Some(Err(_))) {
            return Ok(outcome.clone());
        }
    }
    let (sender, outcome) = watch::channel(None);
    *container = Some((request.container_id.clone(), outcome.clone()));
    drop(container);
    let runner = Arc::clone(runner);
    tokio::spawn(async move {
        let result = tokio::select! {
            result = run(&runner, request) => result.map_err(Error::into_status),
            lost = runner.machine.wait(Stage::Exited) => Err(lost_while_starting(lost)),
        };
        sender.send_replace(Some(result));
    });
    Ok(outcome)
}

/// Why a start came to nothing, for its client.
fn lost_while_starting(end: Result<State, Status>) -> Status {
    let why = match end {
        Ok(state) => state.exit.map(|exit| exit.error).unwrap_or_default(),
        Err(status) => status.message().to_owned(),
    };
    Status::aborted(if why.is_empty() { "the VM was lost".into() } else { why })
}

async fn run(runner: &Arc<Runner>, request: StartContainerRequest) -> Result<StartContainerResponse, Error> {
    let StartContainerRequest { container_id: id, prepare, process, log, stdin_once } = request;
    let (Some(mut prepare), Some(spec)) = (prepare, process) else {
        return Err(Error::Spec("StartContainer without prepare or process".into()));
    };
    prepare.container_id.clone_from(&id);
    let guest = runner.guest().ok_or_else(|| Error::Lost("it has not booted".into()))?;
    let log = log.map(|log| open_log(&log)).transpose()?.flatten();

    // Before any code of the container: a clone of a template has the template's clock and random numbers.
    call("clock set in the guest", SHORT, || {
        let (seconds, nanos) = clock::now();
        let mut guest = guest.clone();
        async move {
            guest.set_time(SetTimeRequest { seconds, nanoseconds: i32::try_from(nanos).unwrap_or(0) }).await
        }
    })
    .await?;
    let seed = seed()?;
    call("entropy taken by the guest", SHORT, || {
        let (mut guest, seed) = (guest.clone(), seed.clone());
        async move { guest.seed_random(SeedRandomRequest { seed: seed.into() }).await }
    })
    .await?;
    call("root file system in the guest", PREPARE, || {
        let (mut guest, prepare) = (guest.clone(), prepare.clone());
        async move { guest.prepare(prepare).await }
    })
    .await?;
    let create =
        CreateProcessRequest { container_id: id.clone(), process_id: id.clone(), spec: Some(spec.clone()) };
    call("process made in the guest", SHORT, || {
        let (mut guest, create) = (guest.clone(), create.clone());
        async move { guest.create_process(create).await }
    })
    .await?;

    let source = runner.stdin_source.lock().unwrap_or_else(PoisonError::into_inner).take();
    // A second attempt after a failed one: its clients have left, there is no input.
    let source = source.unwrap_or_else(|| tokio::sync::mpsc::channel(1).1);
    let mut pump =
        Pump::new(guest.clone(), &id, wanted(&spec, stdin_once), log, Arc::clone(&runner.hub), source);
    pump.open().await?;
    let start = StartProcessRequest { container_id: id.clone(), process_id: id.clone() };
    let answer = call("process started in the guest", START, || {
        let (mut guest, start) = (guest.clone(), start.clone());
        async move { guest.start_process(start).await }
    })
    .await?;
    let started_at = clock::format(clock::now());
    let pump = tokio::spawn(pump.run());
    runner.machine.advance(Event::Running { pid: answer.pid, started_at: started_at.clone() });
    let watched = Arc::clone(runner);
    tokio::spawn(async move { watch_exit(&watched, &id, pump).await });
    Ok(StartContainerResponse { pid: answer.pid, started_at })
}

fn wanted(spec: &ProcessSpec, stdin_once: bool) -> Wanted {
    Wanted {
        stdin: spec.stdin,
        stdout: spec.stdout,
        stderr: spec.stderr && !spec.terminal,
        // As dockerd: a terminal is not closed by a client that leaves.
        stdin_once: stdin_once && !spec.terminal,
    }
}

fn open_log(config: &LogConfig) -> Result<Option<LogWriter>, Error> {
    if config.path.is_empty() {
        return Ok(None);
    }
    LogWriter::open(Path::new(&config.path), config.max_size, config.max_file).map(Some)
}

fn seed() -> Result<Vec<u8>, Error> {
    let mut seed = vec![0; SEED_BYTES];
    let mut filled = 0;
    while filled < SEED_BYTES {
        filled += rustix::rand::getrandom(&mut seed[filled..], rustix::rand::GetRandomFlags::empty())
            .map_err(|error| Error::file("read", Path::new("getrandom"))(error.into()))?;
    }
    Ok(seed)
}

/// Waits for the end of the main process and makes it durable: first its output, then its record.
async fn watch_exit(runner: &Runner, id: &str, mut pump: JoinHandle<Result<(), Error>>) {
    let ended = tokio::select! {
        ended = wait_process(runner, id) => ended,
        // The VM's end is told by whoever watches the VM.
        _ = runner.machine.wait(Stage::Exited) => {
            pump.abort();
            return;
        }
    };
    let learned = clock::now();
    runner.hub.last_words();
    let mut error = String::new();
    match timeout(LAST_OUTPUT, &mut pump).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(lost))) => error = format!("the end of the output was lost: {lost}"),
        Ok(Err(panicked)) => error = format!("the end of the output was lost: {panicked}"),
        Err(_) => {
            pump.abort();
            error = format!("the output did not end within {LAST_OUTPUT:?} of the process");
        }
    }
    let (exit_code, oom_killed, finished) = match ended {
        Ok(ended) => (ended.exit_code & 0xff, ended.oom_killed, finished_at(runner, &ended, learned)),
        Err(status) => {
            error = format!("the guest lost the process: {}", proto::detail::words(status.message()));
            (KILLED, false, learned)
        }
    };
    record_exit(runner, exit_code, oom_killed, finished, error).await;
}

/// The guest's answer, through any number of lost connections.
async fn wait_process(runner: &Runner, id: &str) -> Result<WaitProcessResponse, Status> {
    loop {
        let Some(mut guest) = runner.guest() else { return Err(Status::unavailable("no VM")) };
        let request = WaitProcessRequest { container_id: id.to_owned(), process_id: id.to_owned() };
        match guest.wait_process(request).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) if is_lost(&status) => sleep(Duration::from_millis(50)).await,
            Err(status) => return Err(status),
        }
    }
}

/// The guest's time where it lies within the process's life as the host saw it.
fn finished_at(runner: &Runner, ended: &WaitProcessResponse, learned: clock::Stamp) -> clock::Stamp {
    let guest = (ended.exited_at_seconds, u32::try_from(ended.exited_at_nanoseconds).unwrap_or(0));
    let started = clock::parse(&runner.machine.get().started_at).unwrap_or_default();
    if (started..=learned).contains(&guest) { guest } else { learned }
}

/// Makes the exit durable, then known, then ends the attached clients' streams.
pub(crate) async fn record_exit(
    runner: &Runner,
    exit_code: i32,
    oom_killed: bool,
    finished: clock::Stamp,
    error: String,
) {
    let state = runner.machine.get();
    if state.stage != Stage::Running {
        return;
    }
    if runner.recording.swap(true, Ordering::AcqRel) {
        // Known once the first one has written it.
        let _ = runner.machine.wait(Stage::Exited).await;
        return;
    }
    let record = ExitRecord {
        exit_code,
        oom_killed,
        started_at: state.started_at,
        finished_at: clock::format(finished),
        error,
        pid: state.main_pid,
    };
    let (dir, written) = (runner.spec.state_dir.clone(), record.clone());
    let writing = tokio::task::spawn_blocking(move || write_exit(&dir, &written));
    // A disk that fails or hangs must not keep the container running for ever: the daemon that waits still learns it.
    match timeout(DURABLE, writing).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => tracing::error!(%error, ?record, "exit record is not durable"),
        Ok(Err(error)) => tracing::error!(%error, ?record, "exit record is not durable"),
        Err(_) => tracing::error!(
            ?record,
            "exit record is not durable: the disk did not take it within {DURABLE:?}"
        ),
    }
    runner.machine.advance(Event::Exited(record));
    runner.hub.end(Ok(()));
}
