//! Custom seccomp profiles: `--security-opt seccomp=FILE`.

use super::choice;
use crate::Reach;

pub(super) const WORDS: &[&str] = &[
    "\"defaultAction\":\"SCMP_ACT_ERRNO\"",
    "\"defaultErrnoRet\":38",
    "\"architectures\":[\"SCMP_ARCH_X86_64\"]",
    "\"archMap\":",
    "\"syscalls\":[{",
    "\"names\":[\"read\",\"write\"]",
    "\"action\":\"SCMP_ACT_ALLOW\"",
    "\"args\":[{\"index\":0,\"value\":1,\"valueTwo\":2,\"op\":\"SCMP_CMP_MASKED_EQ\"}]",
    "\"includes\":{\"caps\":[\"CAP_SYS_ADMIN\"],\"minKernel\":\"4.8\"}",
    "\"excludes\":{}",
    "SCMP_CMP_NE",
    "SCMP_ACT_TRACE",
    "\"errnoRet\":",
    "null",
    "\"name\":\"read\"",
];

pub(super) fn target(data: &[u8]) -> Reach {
    let (caps, json) = choice(data);
    let parsed = serde_json::from_slice::<serde_json::Value>(json).is_ok();
    let caps: &[String] =
        if caps & 1 == 0 { &[] } else { &["CAP_SYS_ADMIN".to_owned(), "CAP_CHOWN".to_owned()] };
    Reach::of(parsed, guest_init::fuzzing::seccomp(json, caps).is_some())
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let plain = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],"syscalls":[{"names":["read","write","exit_group"],"action":"SCMP_ACT_ALLOW"},{"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":8,"op":"SCMP_CMP_EQ"}]},{"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}],"excludes":{"caps":["CAP_SYS_ADMIN"]}}]}"#;
    let open = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"name":"mkdir","action":"SCMP_ACT_ERRNO","errnoRet":13},{"names":["socket"],"action":"SCMP_ACT_TRAP","args":[{"index":0,"value":16,"op":"SCMP_CMP_GE"},{"index":1,"value":3,"op":"SCMP_CMP_NE"}],"includes":{"minKernel":"4.8"}}]}"#;
    [0, 1].iter().flat_map(|caps| [plain, open].map(|text| [&[*caps], text.as_bytes()].concat())).collect()
}
