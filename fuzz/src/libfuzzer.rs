//! The coverage-guided driver: one program for all targets. `ARCA_FUZZ_TARGET` names the one (without it their names are
//! printed), `ARCA_FUZZ_CORPUS` a folder that gets its seeds first. See scripts/fuzz.sh.
#![no_main]

use std::{env, path::Path, process, sync::OnceLock};

use fuzz::{Target, target, targets::ALL};

static TARGET: OnceLock<&'static Target> = OnceLock::new();

#[allow(clippy::exit, clippy::print_stdout, reason = "libFuzzer has the main function")]
fn init() {
    let Ok(name) = env::var("ARCA_FUZZ_TARGET") else {
        ALL.iter().for_each(|target| println!("{}", target.name));
        process::exit(0)
    };
    let Some(target) = target(&name) else {
        eprintln!("no target {name:?}");
        process::exit(2)
    };
    if let Some(Err(error)) = env::var_os("ARCA_FUZZ_CORPUS").map(|dir| target.write_seeds(Path::new(&dir))) {
        eprintln!("cannot write the seeds: {error}");
        process::exit(2)
    }
    // Called once.
    let _ = TARGET.set(target);
}

libfuzzer_sys::fuzz_target!(init: init(), |data: &[u8]| {
    let Some(target) = TARGET.get() else { return };
    match target.repair {
        Some(repair) => {
            let mut data = data.to_vec();
            repair(&mut data);
            (target.run)(&data);
        }
        None => {
            (target.run)(data);
        }
    }
});
