//! Many at once, and very short ones.

use crate::support::{Container, docker};

#[test]
fn twenty_at_once() {
    let docker = docker();
    let started: Vec<_> = (0..20)
        .map(|n| {
            let container = Container::named("many");
            let name = container.name.clone();
            let thread = std::thread::spawn(move || {
                docker.run_with(
                    &["run", "-d", "--name", &name, "busybox", "sh", "-c", &format!("echo {n}; sleep 600")],
                    Vec::new(),
                    std::time::Duration::from_secs(300),
                )
            });
            (container, thread)
        })
        .collect();
    let containers: Vec<_> =
        started.into_iter().map(|(container, thread)| (container, thread.join().unwrap())).collect();
    for (n, (container, out)) in containers.iter().enumerate() {
        out.ok();
        assert_eq!(container.exec("hostname").ok().len(), 12);
        assert_eq!(container.logs().ok(), n.to_string());
    }
}

/// A container that lives some 10 ms gives its true exit code and all it wrote.
#[test]
fn short_lives_lose_nothing() {
    let docker = docker();
    let failures: Vec<String> = (0..2)
        .map(|half| {
            std::thread::spawn(move || {
                let mut failures = Vec::new();
                for n in 0..50 {
                    let code = (half * 50 + n) % 200;
                    let script = format!("echo out {code}; echo err {code} >&2; exit {code}");
                    let out = docker.run(&["run", "--rm", "busybox", "sh", "-c", &script]);
                    if (out.code, out.stdout.as_str(), out.stderr.as_str())
                        != (code, format!("out {code}\n").as_str(), format!("err {code}\n").as_str())
                    {
                        failures.push(format!("{code}: {out:?}"));
                    }
                }
                failures
            })
        })
        .collect::<Vec<_>>()
        .into_iter()
        .flat_map(|thread| thread.join().unwrap())
        .collect();
    assert!(failures.is_empty(), "{} of 100: {failures:#?}", failures.len());
}
