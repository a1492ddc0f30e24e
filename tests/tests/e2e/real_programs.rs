//! nginx, redis and postgres, as images have them.

use std::time::Duration;

use crate::support::{Container, docker, docker_with, eventually};

#[test]
fn nginx_serves() {
    docker_with("nginx");
    let container = Container::run_image("nginx", "", "nginx", &[]);
    let get = || docker().run(&["exec", &container.name, "curl", "-s", "http://127.0.0.1/"]);
    eventually("nginx answers", Duration::from_secs(60), || get().stdout.contains("Welcome to nginx"));
    assert!(container.logs().stdout.contains("GET / HTTP/1.1"), "the access log is the container's output");
    docker().run(&["stop", "-t", "20", &container.name]).ok();
    assert_eq!(container.inspect("{{.State.ExitCode}}"), "0", "SIGQUIT is the image's stop signal");
}

#[test]
fn redis_keeps_its_data_over_a_restart() {
    docker_with("redis");
    let container = Container::run_image("redis", "", "redis", &[]);
    let cli = |args: &[&str]| docker().run(&[&["exec", &container.name, "redis-cli"], args].concat()).stdout;
    eventually("redis answers", Duration::from_secs(60), || cli(&["ping"]) == "PONG\n");
    assert_eq!(cli(&["set", "key", "value"]), "OK\n");
    assert_eq!(cli(&["save"]), "OK\n");
    docker().run(&["restart", "-t", "10", &container.name]).ok();
    eventually("redis answers again", Duration::from_secs(60), || cli(&["ping"]) == "PONG\n");
    assert_eq!(cli(&["get", "key"]), "value\n");
}

#[test]
fn postgres_answers_queries() {
    docker_with("postgres");
    let container = Container::run_image("postgres", "--shm-size 128m", "postgres", &[]);
    let sql = |query: &str| {
        docker().run(&["exec", &container.name, "psql", "-h", "/tmp", "-U", "postgres", "-Atc", query]).stdout
    };
    eventually("postgres answers", Duration::from_secs(240), || sql("select 1") == "1\n");
    assert_eq!(sql("create table t as select generate_series(1, 1000) n"), "SELECT 1000\n");
    assert_eq!(sql("select sum(n) from t"), "500500\n");
    docker().run(&["stop", "-t", "60", &container.name]).ok();
    assert_eq!(container.inspect("{{.State.ExitCode}}"), "0");
}
