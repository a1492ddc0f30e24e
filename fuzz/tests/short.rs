//! Every target takes its seeds and a thousand mutations of them, the same ones each time.

use std::path::Path;

use fuzz::{
    short::{Budget, run},
    targets::ALL,
};

#[test]
fn no_target_finds_anything_in_a_moment() {
    let program = Path::new(env!("CARGO_BIN_EXE_fuzz"));
    let mut findings = Vec::new();
    for target in ALL {
        if let Err(finding) = run(program, target, Budget::Inputs(1000), 1).unwrap() {
            findings.push((target.name, finding));
        }
    }
    assert!(findings.is_empty(), "{findings:#?}");
}
