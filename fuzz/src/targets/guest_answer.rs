//! What the daemon makes of a guest's answers: numbers, stats of paths, refusals.

use host_shim::fuzzing::{guest_path_stat, guest_refusal, guest_stats};
use prost::Message;
use proto::sandbox::{ErrorDetail, PathStat, StatsResponse};

use super::{choice, line};
use crate::Reach;

pub(super) fn target(data: &[u8]) -> Reach {
    let (which, bytes) = choice(data);
    match which % 3 {
        0 => match StatsResponse::decode(bytes) {
            Ok(stats) => Reach::of(true, guest_stats(&stats)),
            Err(_) => Reach::Refused,
        },
        1 => match PathStat::decode(bytes) {
            Ok(stat) => Reach::of(true, guest_path_stat(&stat)),
            Err(_) => Reach::Refused,
        },
        _ => {
            let (message, detail) = line(bytes);
            let parsed = ErrorDetail::decode(detail).is_ok();
            let code = i32::from(which / 3 % 17);
            let message = String::from_utf8_lossy(message);
            let status = tonic::Status::with_details(code.into(), message, detail.to_vec().into());
            Reach::of(parsed, guest_refusal(&status) && parsed)
        }
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let stats = StatsResponse {
        cpu_usage_ns: 5,
        memory_stat: [("anon".to_owned(), 5)].into(),
        pids_limit: 3,
        ..Default::default()
    };
    let stat = PathStat {
        name: "hosts".into(),
        size: u64::MAX,
        mode: 0o644,
        mtime_seconds: i64::MAX,
        mtime_nanoseconds: -1,
        link_target: "x".into(),
    };
    let detail = ErrorDetail { exit_code: 127, subject: "x".into() }.encode_to_vec();
    vec![
        [&[0][..], &stats.encode_to_vec()].concat(),
        [&[1][..], &stat.encode_to_vec()].concat(),
        [&[2 + 3 * 9][..], b"exec: \"x\": not found\n", &detail].concat(),
    ]
}
