//! What a container inherits from its image: moby's merge rules.

use std::collections::BTreeMap;

use images::ContainerConfig;

use super::env;
use crate::{
    engine::model::{
        Config, Healthcheck,
        config::{Empty, Set},
    },
    error::{Error, Result},
};

/// Fills what the user left open from the image. Returns what runs: entrypoint and command, never empty.
///
/// # Errors
/// 400 `no command specified`, or for too large an environment.
pub fn merge(user: &mut Config, image: &ContainerConfig) -> Result<Vec<String>> {
    inherit(&mut user.user, &image.user);
    inherit(&mut user.working_dir, &image.working_dir);
    inherit(&mut user.stop_signal, image.stop_signal.as_deref().unwrap_or_default());
    union(&mut user.exposed_ports, image.exposed_ports.as_ref());
    union(&mut user.volumes, image.volumes.as_ref());
    env::inherit(user.env.get_or_insert_default(), &image.env);
    env::check(user.env.as_deref())?;
    let labels = user.labels.get_or_insert_default();
    for (key, value) in image.labels.iter().flatten() {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    if user.stop_timeout.is_none() {
        user.stop_timeout = image.stop_timeout;
    }
    if user.shell.is_none() {
        user.shell.clone_from(&image.shell);
    }
    if user.on_build.is_none() {
        user.on_build.clone_from(&image.on_build);
    }
    merge_command(user, image);
    merge_healthcheck(user, image);
    let args: Vec<String> = user.entrypoint.iter().chain(&user.cmd).flatten().cloned().collect();
    if args.is_empty() { Err(Error::invalid("no command specified")) } else { Ok(args) }
}

fn inherit(user: &mut String, image: &str) {
    if user.is_empty() {
        image.clone_into(user);
    }
}

fn union<V>(user: &mut Option<Set>, image: Option<&BTreeMap<String, V>>) {
    if let Some(image) = image.filter(|image| !image.is_empty()) {
        user.get_or_insert_default().extend(image.keys().map(|key| (key.clone(), Empty {})));
    }
}

/// A user's entrypoint drops the image's command; `[""]` drops the image's entrypoint.
fn merge_command(user: &mut Config, image: &ContainerConfig) {
    let empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
    if empty(&user.entrypoint) {
        if empty(&user.cmd) {
            user.cmd.clone_from(&image.cmd);
            user.args_escaped = image.args_escaped;
        }
        if user.entrypoint.is_none() {
            user.entrypoint.clone_from(&image.entrypoint);
        }
    }
    if user.entrypoint.as_deref().is_some_and(|entrypoint| entrypoint == [""]) {
        user.entrypoint = None;
    }
}

fn merge_healthcheck(user: &mut Config, image: &ContainerConfig) {
    let Some(image) = &image.healthcheck else { return };
    let test = Some(image.test.clone()).filter(|test| !test.is_empty());
    match &mut user.healthcheck {
        None => {
            user.healthcheck = Some(Healthcheck {
                test,
                interval: image.interval,
                timeout: image.timeout,
                start_period: image.start_period,
                start_interval: image.start_interval,
                retries: image.retries,
            });
        }
        Some(own) => {
            if own.test.as_ref().is_none_or(Vec::is_empty) {
                own.test = test;
            }
            for (own, image) in [
                (&mut own.interval, image.interval),
                (&mut own.timeout, image.timeout),
                (&mut own.start_period, image.start_period),
                (&mut own.start_interval, image.start_interval),
                (&mut own.retries, image.retries),
            ] {
                if *own == 0 {
                    *own = image;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &[&str]) -> Option<Vec<String>> {
        Some(items.iter().map(ToString::to_string).collect())
    }

    fn image() -> ContainerConfig {
        ContainerConfig {
            cmd: list(&["-c", "true"]),
            entrypoint: list(&["sh"]),
            env: vec!["PATH=/bin".into(), "A=image".into()],
            user: "app".into(),
            ..ContainerConfig::default()
        }
    }

    #[test]
    fn commands() {
        for (entrypoint, cmd, args) in [
            (None, None, &["sh", "-c", "true"][..]),
            (None, list(&["x"]), &["sh", "x"]),
            (list(&["e"]), None, &["e"]),
            (list(&["e"]), list(&["x"]), &["e", "x"]),
            (list(&[""]), list(&["x"]), &["x"]),
            (list(&[]), None, &["-c", "true"]),
        ] {
            let mut user = Config { entrypoint, cmd, ..Config::default() };
            assert_eq!(merge(&mut user, &image()).unwrap(), args);
        }
        let mut user = Config { entrypoint: list(&[""]), ..Config::default() };
        assert_eq!(merge(&mut user, &image()).unwrap_err().message, "no command specified");
    }

    #[test]
    fn env_and_labels_prefer_the_user() {
        let mut image = image();
        image.labels = Some(BTreeMap::from([("l".into(), "image".into()), ("m".into(), "image".into())]));
        let mut user = Config {
            env: list(&["A=user", "B"]),
            labels: Some(BTreeMap::from([("l".into(), "user".into())])),
            ..Config::default()
        };
        merge(&mut user, &image).unwrap();
        assert_eq!(user.env, list(&["A=user", "B", "PATH=/bin"]));
        assert_eq!((user.label("l"), user.label("m")), (Some("user"), Some("image")));
        assert_eq!(user.user, "app");
    }

    #[test]
    fn healthchecks_are_filled() {
        let mut image = image();
        image.healthcheck = Some(images::Healthcheck {
            test: vec!["CMD".into(), "x".into()],
            interval: 5,
            ..Default::default()
        });
        let mut user = Config {
            healthcheck: Some(Healthcheck { retries: 2, ..Default::default() }),
            ..Config::default()
        };
        merge(&mut user, &image).unwrap();
        let health = user.healthcheck.unwrap();
        assert_eq!((health.test, health.interval, health.retries), (list(&["CMD", "x"]), 5, 2));
    }
}
