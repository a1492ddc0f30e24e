//! The steps from a fresh launcher to the container's command, in the order that rights and namespaces demand.

use std::{
    convert::Infallible,
    ffi::CString,
    fs,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
};

use nix::errno::Errno;

use super::{
    command::{self, DEFAULT_PATH},
    config::{Config, FdRole, Process},
    failure::{Failure, go_text},
    identity, init, namespaces, root, seccomp, stdio, word,
};
use crate::{sys::fdpass, users};

/// Exit code of a command that the kernel refused to execute, as runc leaves it.
const EXEC_FAILED: i32 = 255;

/// Becomes the process.
pub(super) fn run(
    socket: &UnixStream,
    config: &Config,
    fds: Vec<(FdRole, OwnedFd)>,
) -> Result<Infallible, Failure> {
    let process = &config.process;
    // While the guest's own /proc, cgroups and program are still in sight.
    fs::write("/proc/self/oom_score_adj", process.oom_score_adj.to_string())
        .map_err(|e| Failure::setup("oom_score_adj", e))?;
    fs::write(&config.cgroup_procs, "0").map_err(|e| Failure::setup("join cgroup", e))?;
    let own_program = fs::File::open("/proc/self/exe").map_err(|e| Failure::setup("open own program", e))?;

    let mut streams = Vec::new();
    for (role, fd) in fds {
        match role {
            FdRole::Stdio(number) => streams.push((number, fd)),
            FdRole::Namespaces(flags) => namespaces::join(&fd, flags)?,
        }
    }
    let _ = rustix::process::setsid();
    if let Some(first) = &config.first {
        namespaces::make(first)?;
        root::assemble(first)?;
    }
    if let Some(size) = process.terminal {
        let terminal = stdio::open_terminal(size, config.first.is_some())?;
        fdpass::send(socket, &[word::TERMINAL], &[terminal.master.as_raw_fd()])
            .map_err(|e| Failure::setup("pass terminal", e))?;
        drop(terminal.master);
        for number in 0..3 {
            stdio::put(terminal.slave.as_raw_fd(), number)?;
        }
    } else {
        for (number, fd) in &streams {
            stdio::put(fd.as_raw_fd(), *number)?;
        }
    }
    drop(streams);

    let account =
        users::resolve(Path::new("/"), &process.user, &process.additional_groups).map_err(Failure::plain)?;
    let env = environment(process, account.home.as_deref());
    stdio::give_to(account.uid)?;
    identity::limits(process)?;
    identity::priority(config.boost)?;
    let mut in_cwd = enter(&process.cwd);
    if process.no_new_privileges {
        identity::no_new_privileges()?;
    } else {
        // Needs CAP_SYS_ADMIN, which is gone after the next step.
        seccomp::install(&config.seccomp)?;
    }
    identity::become_user(&account, &process.capabilities)?;
    if in_cwd.is_err() {
        // A directory only the user may enter (a network file system that squashes root).
        in_cwd = enter(&process.cwd);
    }
    in_cwd?;
    let path = env.iter().find_map(|word| word.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let name = process.args.first().ok_or_else(|| Failure::plain("no command specified"))?;
    let program = if process.init { None } else { Some(command::look_up(name, path)?) };
    if process.no_new_privileges {
        seccomp::install(&config.seccomp)?;
    }

    let strings =
        |words: &[String]| words.iter().map(|w| CString::new(w.as_str())).collect::<Result<Vec<_>, _>>();
    let zero = |_| Failure::plain("argument or environment variable with a NUL byte");
    let env = strings(&env).map_err(zero)?;
    let args = strings(&process.args).map_err(zero)?;
    let _ = fdpass::send(socket, &[word::READY], &[]);
    identity::default_signals();
    let error = match program {
        Some(path) => {
            let path = CString::new(path.into_os_string().into_encoded_bytes()).map_err(|_| zero_path())?;
            let Err(error) = nix::unistd::execve(&path, &args, &env);
            error
        }
        None => init::exec(&own_program, &args, &env),
    };
    // The launch has been reported: like runc's, this message goes where the command's own would.
    eprintln!("exec {name}: {}", go_text(&error.into()));
    // SAFETY: _exit(2) ends this process without running anything.
    unsafe { libc::_exit(EXEC_FAILED) }
}

fn zero_path() -> Failure {
    Failure::plain("command with a NUL byte")
}

/// Goes to the working directory, making it when it is missing, as runc does.
fn enter(cwd: &str) -> Result<(), Failure> {
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    if fs::metadata(cwd).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
        let _ = fs::create_dir_all(cwd);
    }
    std::env::set_current_dir(cwd)
        .map_err(|e| Failure::setup(format_args!("chdir to cwd ({cwd:?}) set in config.json failed"), e))?;
    // CVE-2024-21626: a descriptor inherited from outside the root must not become the working directory.
    match nix::unistd::getcwd() {
        Ok(path) if path.is_absolute() => Ok(()),
        Ok(_) | Err(Errno::ENOENT) => Err(Failure::cannot_run(
            "current working directory is outside of container mount namespace root".into(),
        )),
        Err(error) => Err(Failure::setup("getcwd", error)),
    }
}

/// Docker's environment, completed.
fn environment(process: &Process, home: Option<&str>) -> Vec<String> {
    let mut env = process.env.clone();
    let mut complete = |name: &str, value: &str| {
        let prefix = format!("{name}=");
        if !env.iter().any(|word| word.starts_with(&prefix)) {
            env.push(prefix + value);
        }
    };
    complete("PATH", DEFAULT_PATH);
    if process.terminal.is_some() {
        complete("TERM", "xterm");
    }
    complete("HOME", home.unwrap_or("/"));
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_completed_not_overridden() {
        let process = Process { env: vec!["HOME=/x".into(), "A=b".into()], ..Process::default() };
        let env = environment(&process, Some("/root"));
        assert_eq!(env, ["HOME=/x", "A=b", &format!("PATH={DEFAULT_PATH}")]);
        let process = Process { terminal: Some((80, 24)), ..Process::default() };
        let env = environment(&process, None);
        assert_eq!(env, [&format!("PATH={DEFAULT_PATH}"), "TERM=xterm", "HOME=/"]);
    }
}
