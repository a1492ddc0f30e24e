//! `runner runner --spec FILE`: what `arca runner` does, without the rest of `arca`. For trying a VM by hand.

use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    match std::env::args().collect::<Vec<_>>().as_slice() {
        [_, command, option, spec] if command == "runner" && option == "--spec" => {
            runner::serve(Path::new(spec))
        }
        _ => {
            eprintln!("usage: runner runner --spec FILE");
            ExitCode::from(2)
        }
    }
}
