//! A program that does all it should not. As `/init` of a VM it is a hostile guest, by the word in its `/mode`; run with
//! arguments it is a hostile process of a container.

#![allow(
    unsafe_code,
    missing_docs,
    missing_debug_implementations,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::exit,
    clippy::print_stdout,
    clippy::infinite_loop,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_lossless,
    reason = "a saboteur may do anything and fall over; the tests that use it say what it does"
)]

mod guest;
mod process;

fn main() {
    let mut args = std::env::args().skip(1);
    match args.next() {
        // The kernel hands PID 1 the words of its command line that it does not know itself.
        Some(tool) if std::env::args().next().is_some_and(|name| name.contains("saboteur")) => {
            process::main(&tool, &args.collect::<Vec<_>>());
        }
        _ => guest::main(),
    }
}
