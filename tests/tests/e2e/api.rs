//! The API as other clients see it: bollard, and raw HTTP.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use bollard::{
    ClientVersion,
    models::ContainerCreateBody,
    query_parameters::{
        CreateContainerOptionsBuilder, ListContainersOptionsBuilder, LogsOptionsBuilder,
        RemoveContainerOptionsBuilder, StartContainerOptions, WaitContainerOptions,
    },
};
use futures::StreamExt;
use serde_json::Value;

use crate::support::{Container, docker};

/// One raw exchange; status line, headers and body as text.
fn raw(request: &str) -> String {
    let mut stream = UnixStream::connect(docker().socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

pub(crate) fn get(path: &str) -> String {
    raw(&format!("GET {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"))
}

fn post(path: &str, content_type: &str, body: &str) -> String {
    raw(&format!(
        "POST {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

fn json(answer: &str) -> Value {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let body = if head.to_lowercase().contains("transfer-encoding: chunked") {
        unchunk(body)
    } else {
        body.to_owned()
    };
    serde_json::from_str(body.trim()).unwrap_or_else(|e| panic!("{e}: {answer}"))
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        whole.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}

#[test]
fn ping_and_versions() {
    let ping = get("/_ping");
    assert!(ping.starts_with("HTTP/1.1 200 OK\r\n") && ping.ends_with("OK"), "{ping}");
    let lower = ping.to_lowercase();
    for header in
        ["api-version: 1.51", "ostype: linux", "docker-experimental: false", "cache-control: no-cache"]
    {
        assert!(lower.contains(header), "{header} lacks: {ping}");
    }
    assert!(
        get("/v1.99/version")
            .contains("client version 1.99 is too new. Maximum supported API version is 1.51")
    );
    assert!(
        get("/v1.23/version")
            .contains("client version 1.23 is too old. Minimum supported API version is 1.24")
    );
    assert!(get("/v1.24/version").starts_with("HTTP/1.1 200"));
}

#[test]
fn what_is_wrong_is_told_as_dockerd_tells_it() {
    let missing = get("/v1.51/nosuchroute");
    assert!(
        missing.starts_with("HTTP/1.1 404") && json(&missing)["message"] == "page not found",
        "{missing}"
    );
    assert!(post("/v1.51/containers/create", "text/plain", "{}").starts_with("HTTP/1.1 400"));
    assert!(post("/v1.51/containers/create", "application/json", "{\"Image\":").starts_with("HTTP/1.1 400"));
    assert!(
        post("/v1.51/containers/create", "application/json", "{\"Image\":5}").starts_with("HTTP/1.1 400")
    );
    let image =
        post("/v1.51/containers/create", "application/json", "{\"Image\":\"nosuch:1\",\"Cmd\":\"x\"}");
    assert!(
        image.starts_with("HTTP/1.1 404") && json(&image)["message"] == "No such image: nosuch:1",
        "{image}"
    );
    let container = get("/v1.51/containers/nosuch/json");
    assert_eq!(json(&container)["message"], "No such container: nosuch");
    let swarm = get("/v1.51/services");
    assert!(
        swarm.starts_with("HTTP/1.1 503") && swarm.contains("This node is not a swarm manager."),
        "{swarm}"
    );
    assert!(get("/v1.51/volumes/nosuch").starts_with("HTTP/1.1 404"));
    assert!(get("/v1.51/networks/nosuch").starts_with("HTTP/1.1 404"));
    assert!(get("/v1.51/plugins").starts_with("HTTP/1.1 200"));
}

#[test]
fn info_says_what_this_engine_is() {
    let info = json(&get("/v1.51/info"));
    assert_eq!(info["OSType"], "linux");
    assert_eq!(info["Architecture"], "x86_64");
    assert!(info["Containers"].is_u64() && info["NCPU"].is_u64());
    if crate::support::arca().is_some() {
        let warnings = info["Warnings"].to_string();
        assert!(
            warnings.contains("--network none"),
            "docker info warns that there is no network yet: {warnings}"
        );
    }
}

#[test]
fn inspect_has_every_field_of_the_reference() {
    let container = Container::run("fields", "", "sleep 300");
    let inspect = json(&get(&format!("/v1.51/containers/{}/json", container.name)));
    for field in [
        "Id",
        "Created",
        "Path",
        "Args",
        "State",
        "Image",
        "ResolvConfPath",
        "HostnamePath",
        "HostsPath",
        "LogPath",
        "Name",
        "RestartCount",
        "Driver",
        "Platform",
        "MountLabel",
        "ProcessLabel",
        "AppArmorProfile",
        "ExecIDs",
        "HostConfig",
        "GraphDriver",
        "Mounts",
        "Config",
        "NetworkSettings",
    ] {
        assert!(inspect.get(field).is_some(), "{field} lacks");
    }
    for field in [
        "Binds",
        "CapAdd",
        "PidsLimit",
        "MemorySwappiness",
        "MaskedPaths",
        "LogConfig",
        "RestartPolicy",
        "NanoCpus",
    ] {
        assert!(inspect["HostConfig"].get(field).is_some(), "HostConfig.{field} lacks");
    }
    assert_eq!(inspect["Path"], "sh");
    assert_eq!(inspect["State"]["FinishedAt"], "0001-01-01T00:00:00Z");
}

#[tokio::test]
async fn bollard_runs_a_container() {
    let socket = docker().socket().to_owned();
    let client = bollard::Docker::connect_with_unix(
        &socket,
        120,
        &ClientVersion { major_version: 1, minor_version: 44 },
    )
    .unwrap();
    let version = client.version().await.unwrap();
    assert_eq!(version.api_version.unwrap(), "1.51");
    let container = Container::named("bollard");
    let options = CreateContainerOptionsBuilder::default().name(&container.name).build();
    let body = ContainerCreateBody {
        image: Some("busybox".into()),
        cmd: Some(vec!["sh".into(), "-c".into(), "echo from bollard; exit 3".into()]),
        ..Default::default()
    };
    client.create_container(Some(options), body).await.unwrap();
    client.start_container(&container.name, None::<StartContainerOptions>).await.unwrap();
    let waited = client.wait_container(&container.name, None::<WaitContainerOptions>).next().await.unwrap();
    match waited {
        Ok(done) => assert_eq!(done.status_code, 3),
        Err(bollard::errors::Error::DockerContainerWaitError { code, .. }) => assert_eq!(code, 3),
        Err(error) => panic!("{error}"),
    }
    let logs = LogsOptionsBuilder::default().stdout(true).build();
    let lines: Vec<_> =
        client.logs(&container.name, Some(logs)).map(|line| line.unwrap().to_string()).collect().await;
    assert_eq!(lines, ["from bollard\n"]);
    let list = ListContainersOptionsBuilder::default().all(true).build();
    assert!(
        client
            .list_containers(Some(list))
            .await
            .unwrap()
            .iter()
            .any(|c| c.names == Some(vec![format!("/{}", container.name)]))
    );
    let remove = RemoveContainerOptionsBuilder::default().force(true).build();
    client.remove_container(&container.name, Some(remove)).await.unwrap();
}
