//! See the library.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    guest_init::main()
}
