//! The coverage-guided driver: one program for all targets, `ARCA_FUZZ_TARGET` names the one. See scripts/fuzz.sh.
#![no_main]

use std::sync::OnceLock;

use fuzz::{Target, target};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static TARGET: OnceLock<Option<&'static Target>> = OnceLock::new();
    let name = || std::env::var("ARCA_FUZZ_TARGET").ok().and_then(|name| target(&name));
    let Some(target) = TARGET.get_or_init(name) else {
        eprintln!("ARCA_FUZZ_TARGET names no target");
        std::process::exit(2)
    };
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
