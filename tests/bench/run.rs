//! `docker run`, split into stages, against a Docker Engine in the same run.

use std::{path::Path, time::Duration};

use anyhow::{Result, bail};
use proto::{
    dial,
    runner::{GetStatusRequest, runner_client::RunnerClient},
};
use tests::{daemon::Daemon, docker::Docker};

use crate::figures::Series;

const ROUNDS: usize = 10;

/// What a user waits for.
#[derive(Default)]
struct Stages {
    whole: Series,
    create: Series,
    start: Series,
    boot: Series,
    exec: Series,
    stop: Series,
    remove: Series,
}

pub(crate) fn bench() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.load("busybox")?;
    let boot = |id: &str| boot_time(&daemon.home().join("run").join(&id[..12]).join("runner.sock"));
    let reference =
        std::env::var("REFERENCE_HOST").ok().map(|host| Docker::new(host, Path::new("/nonexistent")));
    let (mut ours, mut theirs) = (Stages::default(), Stages::default());
    for _ in 0..ROUNDS {
        round(daemon.docker(), &mut ours, &boot)?;
        if let Some(reference) = &reference {
            round(reference, &mut theirs, &|_| Ok(None))?;
        }
    }
    for (name, our, their) in [
        ("docker run --rm busybox true", &ours.whole, &theirs.whole),
        ("docker create", &ours.create, &theirs.create),
        ("docker start", &ours.start, &theirs.start),
        ("docker exec true", &ours.exec, &theirs.exec),
        ("docker stop -t 0", &ours.stop, &theirs.stop),
        ("docker rm", &ours.remove, &theirs.remove),
    ] {
        println!("{name:<32} {our}");
        if reference.is_some() {
            println!("{:<32} {their}   ratio {:.1}", "  Docker Engine", our.ratio(their));
        }
    }
    println!("{:<32} {}", "  of start: hypervisor to answer", ours.boot);
    if reference.is_none() {
        println!("REFERENCE_HOST is not set: no Docker Engine to compare with");
    }
    for n in [1, 10, 20] {
        let our = parallel(daemon.docker(), n)?;
        print!("{n:>2} x docker run --rm, at once      {our}");
        match &reference {
            Some(reference) => {
                let their = parallel(reference, n)?;
                println!("   Docker Engine {:.1} ms, ratio {:.1}", their.median(), our.ratio(&their));
            }
            None => println!(),
        }
    }
    Ok(())
}

fn round(
    docker: &Docker,
    stages: &mut Stages,
    boot: &impl Fn(&str) -> Result<Option<Duration>>,
) -> Result<()> {
    let name = format!("bench-{}", std::process::id());
    let run = |args: &[&str]| -> Result<String> {
        let out = docker.run(args);
        if out.code != 0 {
            bail!("docker {}: {}", args.join(" "), out.stderr);
        }
        Ok(out.ok().to_owned())
    };
    stages.whole.measure(|| run(&["run", "--rm", "--network", "none", "busybox", "true"]))?;
    let id = stages
        .create
        .measure(|| run(&["create", "--network", "none", "--name", &name, "busybox", "sleep", "600"]))?;
    stages.start.measure(|| run(&["start", &name]))?;
    if let Some(time) = boot(&id)? {
        stages.boot.push(time);
    }
    stages.exec.measure(|| run(&["exec", &name, "true"]))?;
    stages.stop.measure(|| run(&["stop", "-t", "0", &name]))?;
    stages.remove.measure(|| run(&["rm", &name]))?;
    Ok(())
}

/// What the runner measured from the hypervisor's start to the guest's first answer.
fn boot_time(socket: &Path) -> Result<Option<Duration>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(async {
        RunnerClient::new(dial::unix_channel(socket.to_owned())).get_status(GetStatusRequest {}).await
    })?;
    Ok(Some(Duration::from_millis(status.into_inner().boot_ms)))
}

/// Wall time of `n` containers run at once, three times.
fn parallel(docker: &Docker, n: usize) -> Result<Series> {
    let mut series = Series::default();
    for _ in 0..3 {
        let failed = series.measure(|| {
            let threads: Vec<_> = (0..n)
                .map(|_| {
                    let docker = docker.clone();
                    std::thread::spawn(move || {
                        let args = ["run", "--rm", "--network", "none", "busybox", "true"];
                        docker.run_with(&args, Vec::new(), Duration::from_secs(300)).code
                    })
                })
                .collect();
            Ok(threads.into_iter().filter_map(|thread| thread.join().ok()).filter(|code| *code != 0).count())
        })?;
        if failed > 0 {
            bail!("{failed} of {n} containers failed");
        }
    }
    Ok(series)
}
