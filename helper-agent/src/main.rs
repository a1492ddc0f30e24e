//! `arca-helper`: runs in the helper VM, beside OVS and OVN.

#![forbid(unsafe_code)]

mod server;

fn main() -> std::process::ExitCode {
    match server::run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("arca-helper: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
