//! All messages of all services: what decodes is encoded to something that decodes to the same.

use std::fmt::Debug;

use prost::Message;
use proto::{runner, sandbox, tapforwarder};

use super::choice;
use crate::Reach;

fn check<M: Message + Default + PartialEq + Debug>(bytes: &[u8]) -> Reach {
    let Ok(message) = M::decode(bytes) else { return Reach::Refused };
    let again = M::decode(&message.encode_to_vec()[..]);
    assert_eq!(again.as_ref().ok(), Some(&message), "a message does not survive being written");
    // Logs show messages.
    let _ = format!("{message:?}");
    Reach::of(true, message != M::default())
}

macro_rules! messages {
    ($($package:ident: $($message:ident)*;)*) => {
        /// Every message; a test compares with the .proto files.
        const ALL: &[(&str, fn(&[u8]) -> Reach)] =
            &[$($((concat!(stringify!($package), ".", stringify!($message)), check::<$package::$message>)),*),*];
    };
}

messages! {
    sandbox: ErrorDetail GetInfoRequest GetInfoResponse SetTimeRequest SetTimeResponse SeedRandomRequest
        SeedRandomResponse PrepareRequest PrepareResponse Rootfs Mount ManagedFile Device Resources
        ReleaseRequest ReleaseResponse UpdateResourcesRequest UpdateResourcesResponse ProcessSpec Rlimit
        SeccompProfile CreateProcessRequest CreateProcessResponse StartProcessRequest StartProcessResponse
        WaitProcessRequest WaitProcessResponse SignalProcessRequest SignalProcessResponse
        ResizeProcessRequest ResizeProcessResponse DeleteProcessRequest DeleteProcessResponse StdioRequest
        StdioOpen StdinChunk OutputAck StdioResponse StdioOpened OutputChunk StdinAck PauseRequest
        PauseResponse ResumeRequest ResumeResponse StatsRequest StatsResponse BlockIo NetworkIo TopRequest
        TopResponse TopRow ArchiveGetRequest ArchiveGetResponse PathStat ArchivePutRequest ArchivePutOpen
        ArchivePutResponse ArchiveStatRequest ArchiveStatResponse ChangesRequest ChangesResponse Change
        SyncRequest SyncResponse PowerOffRequest PowerOffResponse;
    runner: GetStatusRequest GetStatusResponse WaitStageRequest StartContainerRequest LogConfig
        StartContainerResponse AttachRequest AttachOpen AttachResponse WaitExitRequest ExitRecord
        ShutdownRequest ShutdownResponse;
    tapforwarder: AttachNetworkRequest AttachNetworkResponse DetachNetworkRequest DetachNetworkResponse
        ListNetworksRequest ListNetworksResponse NetworkInfo NetworkCounters GetStatusRequest
        GetStatusResponse UpdateDnsMappingsRequest NetworkPeers ContainerDnsInfo UpdateDnsMappingsResponse;
}

pub(super) fn target(data: &[u8]) -> Reach {
    let (which, bytes) = choice(data);
    match ALL.get(usize::from(which) % ALL.len()) {
        Some((_, check)) => check(bytes),
        None => Reach::Refused,
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let strings = || vec!["a".to_owned(), "b=c".to_owned()];
    let process = sandbox::ProcessSpec {
        args: strings(),
        env: strings(),
        user: "u:g".into(),
        capabilities: vec!["CAP_CHOWN".into()],
        rlimits: vec![sandbox::Rlimit { name: "nofile".into(), soft: 1, hard: u64::MAX }],
        oom_score_adj: Some(-5),
        seccomp: Some(sandbox::SeccompProfile { kind: 2, json: b"{}"[..].into() }),
        ..Default::default()
    };
    let prepare = sandbox::PrepareRequest {
        container_id: "c".into(),
        rootfs: Some(sandbox::Rootfs { lower: strings(), writable: "w".into(), readonly: true }),
        mounts: vec![sandbox::Mount { kind: 0, target: "/t".into(), options: strings() }],
        managed_files: vec![sandbox::ManagedFile {
            target: "/etc/hosts".into(),
            content: b"x"[..].into(),
            mode: 0o644,
        }],
        sysctls: [("a".to_owned(), "1".to_owned())].into(),
        resources: Some(sandbox::Resources { memory: Some(-1), cpu_quota_us: Some(5), ..Default::default() }),
        devices: vec![sandbox::Device {
            path: "/dev/null".into(),
            kind: 0,
            major: 1,
            minor: 3,
            mode: 0o666,
            permissions: "rw".into(),
        }],
        ..Default::default()
    };
    let stats = sandbox::StatsResponse {
        cpu_usage_ns: u64::MAX,
        memory_stat: [("anon".to_owned(), 5)].into(),
        block_io: vec![sandbox::BlockIo { major: 8, read_bytes: 9, ..Default::default() }],
        network_io: vec![sandbox::NetworkIo { interface: "eth0".into(), rx_bytes: 7, ..Default::default() }],
        ..Default::default()
    };
    let create = sandbox::CreateProcessRequest {
        process_id: "p".into(),
        spec: Some(process.clone()),
        ..Default::default()
    };
    let start = runner::StartContainerRequest {
        container_id: "c".into(),
        prepare: Some(prepare.clone()),
        process: Some(process),
        ..Default::default()
    };
    let changes = sandbox::ChangesResponse { changes: vec![sandbox::Change { kind: 1, path: "/x".into() }] };
    let messages = [
        ("sandbox.PrepareRequest", prepare.encode_to_vec()),
        ("sandbox.CreateProcessRequest", create.encode_to_vec()),
        ("sandbox.StatsResponse", stats.encode_to_vec()),
        ("sandbox.ChangesResponse", changes.encode_to_vec()),
        ("runner.StartContainerRequest", start.encode_to_vec()),
        (
            "runner.ExitRecord",
            runner::ExitRecord { exit_code: -1, error: "e".into(), ..Default::default() }.encode_to_vec(),
        ),
        ("sandbox.ErrorDetail", sandbox::ErrorDetail { exit_code: 127, subject: "s".into() }.encode_to_vec()),
    ];
    let mut seeds = Vec::new();
    for (name, bytes) in messages {
        let which = ALL.iter().position(|(known, _)| *known == name).unwrap_or(0);
        seeds.push([&[which.to_le_bytes()[0]][..], &bytes].concat());
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_is_missing() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/proto/arca");
        let mut count = 0;
        for package in
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap())
        {
            let text = std::fs::read_to_string(format!("{dir}/{package}/v1/{package}.proto")).unwrap();
            for name in text.lines().filter_map(|line| line.strip_prefix("message ")) {
                let name = name.split([' ', '{']).next().unwrap().replace("DNS", "Dns");
                let full = format!("{package}.{name}");
                assert!(ALL.iter().any(|(known, _)| *known == full), "{full} is not fuzzed");
                count += 1;
            }
        }
        assert_eq!(count, ALL.len());
        assert!(count < 256, "one byte chooses");
    }
}
