//! A program that does all it should not. As `/init` of a VM it is a hostile guest, by the word in its `/mode`; run with
//! arguments it is a hostile process of a container.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a saboteur may fall over; the tests that use it say what it does"
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
