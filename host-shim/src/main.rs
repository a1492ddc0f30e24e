//! `arca`: the daemon, a runner for each VM, and the command line, in one program.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    host_shim::cli::main()
}
