//! Bodies of requests, parsed by the handlers' own functions.

use host_shim::fuzzing::{ROUTES, http_body};

use super::choice;
use crate::Reach;

pub(super) const WORDS: &[&str] = &[
    "\"Image\":\"x\"",
    "\"HostConfig\":{",
    "\"Cmd\":",
    "\"Env\":[\"A=b\"]",
    "\"PortBindings\":{\"80/tcp\":[{\"HostPort\":\"8080\"}]}",
    "\"Binds\":[\"/a:/b:ro\"]",
    "\"Mounts\":[{\"Type\":\"volume\",\"Target\":\"/x\"}]",
    "\"Memory\":",
    "\"NanoCpus\":",
    "\"Ulimits\":[{\"Name\":\"nofile\",\"Soft\":1,\"Hard\":2}]",
    "\"RestartPolicy\":{\"Name\":\"on-failure\",\"MaximumRetryCount\":3}",
    "\"NetworkingConfig\":{\"EndpointsConfig\":{}}",
    "\"Tmpfs\":{\"/t\":\"size=1m\"}",
    "\"Healthcheck\":{\"Test\":[\"NONE\"]}",
    "\"LogConfig\":{\"Type\":\"json-file\",\"Config\":{\"max-size\":\"1m\"}}",
    "\"Sysctls\":{}",
    "\"CapAdd\":[\"ALL\"]",
    "\"Devices\":[{\"PathOnHost\":\"/dev/null\"}]",
    "\"ShmSize\":",
    "null",
    "true",
    "{}",
    "[]",
    "\"SecurityOpt\":[\"seccomp={}\"]",
    "\\ud800",
    "\"StopTimeout\":",
];

pub(super) fn target(data: &[u8]) -> Reach {
    let (which, body) = choice(data);
    let route = ROUTES[usize::from(which) % ROUTES.len()];
    let parsed = serde_json::from_slice::<serde_json::Value>(body).is_ok();
    Reach::of(parsed, http_body(route, body))
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = [
        r#"{"Image":"busybox","Cmd":["sh","-c","true"],"Env":["A=b"],"Labels":{"a":"b"},"Tty":true,"HostConfig":{"Memory":67108864,"NanoCpus":500000000,"Binds":["/tmp:/x:ro"],"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8080"}]},"RestartPolicy":{"Name":"always","MaximumRetryCount":0},"NetworkMode":"default","LogConfig":{"Type":"json-file","Config":{"max-size":"10m","max-file":"3"}},"Ulimits":[{"Name":"nofile","Soft":1024,"Hard":2048}],"CapAdd":["NET_ADMIN"],"Tmpfs":{"/run":"size=64m,mode=1777"},"Sysctls":{"net.ipv4.ip_forward":"1"},"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true}]},"NetworkingConfig":{"EndpointsConfig":{"bridge":{"Aliases":["x"]}}}}"#,
        r#"{"image":"x","Cmd":"y","Entrypoint":[],"StopSignal":"SIGKILL","StopTimeout":5,"User":"0:0","WorkingDir":"/w","Healthcheck":{"Test":["CMD-SHELL","x"],"Interval":1000000000},"ExposedPorts":{"53/udp":{}},"Volumes":{"/v":{}}}"#,
    ]
    .map(|body| [b"\0", body.as_bytes()].concat())
    .to_vec();
    seeds.push([&[1][..], br#"{"Cmd":["a"],"AttachStdin":true,"Tty":true,"Env":["A=b"],"User":"u","Privileged":false,"WorkingDir":"/","DetachKeys":"ctrl-a"}"#].concat());
    seeds.push([&[2][..], br#"{"Detach":true,"Tty":true,"ConsoleSize":[24,80]}"#].concat());
    seeds.push([&[3][..], br#"{"Memory":1000000000,"MemorySwap":-1,"CpuShares":512,"RestartPolicy":{"Name":"no"},"PidsLimit":10}"#].concat());
    seeds
}
