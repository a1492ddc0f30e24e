//! Image names, as clients and archives give them. What is taken must be the same after writing it out.

use crate::Reach;

pub(super) fn target(data: &[u8]) -> Reach {
    let Ok(text) = std::str::from_utf8(data) else { return Reach::Refused };
    let accepted = images::fuzzing::reference(text);
    Reach::of(true, accepted)
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    [
        "busybox",
        "library/busybox:1.36",
        "localhost:5000/a/b_c__d-e.f:T.1-x",
        "[::1]:5000/x@sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
        "docker.io/a:b@sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
        "5f70bf18a086",
        "linux/arm64/v8",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
