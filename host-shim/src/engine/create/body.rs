//! The body of `POST /containers/create`.

use serde::Deserialize;
use serde_json::Value;

use crate::{
    api::lenient,
    engine::model::{Config, HostConfig},
    error::{Error, Result},
};

/// A parsed request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Body {
    /// What an image could also say.
    pub config: Config,
    /// How it runs.
    pub host: HostConfig,
    /// `NetworkingConfig`, kept as it came.
    pub networking: Value,
}

/// The keys beside those of [`Config`].
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Rest {
    host_config: HostConfig,
    networking_config: Networking,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Networking {
    endpoints_config: serde_json::Map<String, Value>,
}

impl Body {
    /// Reads a parsed JSON body.
    ///
    /// # Errors
    /// 400 when a value has the wrong type.
    pub fn parse(value: Value) -> Result<Self> {
        if value.is_null() {
            return Err(Error::invalid("config cannot be empty in order to create a container"));
        }
        let invalid = |error: serde_json::Error| Error::invalid(format!("invalid JSON: {error}"));
        let config: Config = lenient::from_value(value.clone()).map_err(invalid)?;
        let rest: Rest = lenient::from_value(value).map_err(invalid)?;
        let networking = serde_json::json!({ "EndpointsConfig": rest.networking_config.endpoints_config });
        Ok(Self { config, host: rest.host_config, networking })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_clis_body() {
        let body = Body::parse(json!({
            "Hostname": "", "AttachStdout": true, "ExposedPorts": {"80/tcp": {}}, "Env": ["X=1"], "Cmd": ["sh"],
            "Image": "alpine", "Volumes": {}, "Entrypoint": null, "OnBuild": null, "Labels": {},
            "HostConfig": {"NetworkMode": "default", "AutoRemove": true, "MemorySwappiness": -1, "PidsLimit": 0},
            "NetworkingConfig": {"EndpointsConfig": {"default": {"IPAMConfig": null}}}
        }))
        .unwrap();
        assert!(body.config.attach_stdout);
        assert_eq!(body.config.cmd, Some(vec!["sh".into()]));
        assert_eq!(body.host.memory_swappiness, Some(-1));
        assert!(body.host.auto_remove);
        assert!(body.networking["EndpointsConfig"].get("default").is_some());
    }

    #[test]
    fn lax_as_go() {
        let body = Body::parse(
            json!({"image": "a", "cmd": "true", "entrypoint": "sh", "hostconfig": {"memory": 7}}),
        )
        .unwrap();
        assert_eq!((body.config.image.as_str(), body.host.memory), ("a", 7));
        assert_eq!(body.config.entrypoint, Some(vec!["sh".into()]));
        assert_eq!(
            Body::parse(Value::Null).unwrap_err().message,
            "config cannot be empty in order to create a container"
        );
        assert!(Body::parse(json!({"Image": 1})).unwrap_err().message.starts_with("invalid JSON: "));
    }
}
