//! See the library.

fn main() -> std::process::ExitCode {
    guest_init::main()
}
