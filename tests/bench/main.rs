//! Benchmarks: ratios against a peer measured in the same run. Absolute times on a shared machine are noise.
//!
//! `cargo run --release -p tests --bin bench [boot] [run] [memory] [sizes]`; without words, all of them.
//! `REFERENCE_HOST=unix://...` names a Docker Engine to measure `docker run` against.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::string_slice, reason = "a program for a terminal")]

mod boot;
mod figures;
mod memory;
mod run;
mod sizes;

use anyhow::Result;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |word: &str| words.is_empty() || words.iter().any(|w| w == word);
    for (name, bench) in [
        ("sizes", sizes::bench as fn() -> Result<()>),
        ("boot", boot::bench),
        ("run", run::bench),
        ("memory", memory::bench),
    ] {
        if wanted(name) {
            println!("== {name}");
            bench()?;
        }
    }
    Ok(())
}
