//! Where a registry is and how it may be reached: mirrors, schemes, certificates, proxies.

use std::{net::IpAddr, sync::Once};

use reqwest::{Client, Url, redirect};

use crate::{
    error::{Error, Result},
    reference::Reference,
    store::{Options, Timeouts},
};

/// Redirects followed for one request; Go's default, which registries are tested with.
const MAX_REDIRECTS: usize = 10;
const DOCKER_HUB: &str = "registry-1.docker.io";

/// The HTTP clients, one for each level of trust.
pub(crate) struct Http {
    verified: Clients,
    insecure: Clients,
    local: Clients,
    mirrors: Vec<String>,
    insecure_registries: Vec<String>,
    pub(crate) timeouts: Timeouts,
}

/// The clients of one level of trust.
struct Clients {
    registry: Client,
    /// Stays at one host: the body of a token request holds the user's secret, and a redirect would take it along.
    token: Client,
}

/// One place to pull from.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// `http://host:port` candidates, best first.
    pub(crate) bases: Vec<String>,
    pub(crate) mirror: bool,
    trust: Trust,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    Verified,
    Insecure,
    /// Loopback: never through a proxy.
    Local,
}

impl Http {
    pub(crate) fn new(options: &Options) -> Result<Self> {
        static PROVIDER: Once = Once::new();
        // An error only says that the program chose its provider already.
        PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let builder = || {
            Client::builder()
                .user_agent(concat!("arca/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(options.timeouts.connect)
        };
        let build = |builder: &dyn Fn() -> reqwest::ClientBuilder| {
            let build = |policy| {
                builder().redirect(policy).build().map_err(|e| {
                    Error::System(format!("cannot set up the HTTP client: {}", super::failure::chain(&e)))
                })
            };
            Ok::<_, Error>(Clients { registry: build(redirects(false))?, token: build(redirects(true))? })
        };
        Ok(Self {
            verified: build(&builder)?,
            insecure: build(&|| builder().danger_accept_invalid_certs(true))?,
            local: build(&|| builder().danger_accept_invalid_certs(true).no_proxy())?,
            mirrors: options.mirrors.clone(),
            insecure_registries: options.insecure_registries.clone(),
            timeouts: options.timeouts,
        })
    }

    /// The places to try for a reference, in order.
    pub(crate) fn endpoints(&self, reference: &Reference) -> Vec<Endpoint> {
        if reference.domain() != "docker.io" {
            return vec![self.endpoint(reference.domain())];
        }
        let mirrors = self.mirrors.iter().map(|url| {
            let url = url.trim_end_matches('/');
            let host = url.split_once("://").map_or(url, |(_, host)| host);
            let mut endpoint = self.endpoint(host);
            // A mirror is configured with its scheme: that one is meant.
            endpoint.bases = vec![url.to_owned()];
            endpoint.mirror = true;
            endpoint
        });
        mirrors.chain([self.endpoint(DOCKER_HUB)]).collect()
    }

    fn endpoint(&self, host: &str) -> Endpoint {
        let (https, http) = (format!("https://{host}"), format!("http://{host}"));
        let (bases, trust) = if is_loopback(host) {
            (vec![http, https], Trust::Local)
        } else if self.insecure_registries.iter().any(|entry| covers(entry, host)) {
            (vec![https, http], Trust::Insecure)
        } else {
            (vec![https], Trust::Verified)
        };
        Endpoint { bases, mirror: false, trust }
    }

    pub(crate) fn client(&self, endpoint: &Endpoint) -> &Client {
        &self.clients(endpoint).registry
    }

    pub(crate) fn token_client(&self, endpoint: &Endpoint) -> &Client {
        &self.clients(endpoint).token
    }

    fn clients(&self, endpoint: &Endpoint) -> &Clients {
        match endpoint.trust {
            Trust::Verified => &self.verified,
            Trust::Insecure => &self.insecure,
            Trust::Local => &self.local,
        }
    }
}

/// A few redirects, and never from https down to http (a token or a layer would travel in the clear). reqwest
/// drops the `Authorization` header when the host changes.
fn redirects(same_host: bool) -> redirect::Policy {
    redirect::Policy::custom(move |attempt| match refusal(attempt.previous(), attempt.url(), same_host) {
        Some(why) => attempt.error(why),
        None => attempt.follow(),
    })
}

/// Why a redirect is not followed.
fn refusal(previous: &[Url], next: &Url, same_host: bool) -> Option<&'static str> {
    let last = previous.last();
    if previous.len() > MAX_REDIRECTS {
        Some("stopped after 10 redirects")
    } else if last.is_some_and(|last| last.scheme() == "https") && next.scheme() != "https" {
        Some("refused a redirect from https to http")
    } else if !matches!(next.scheme(), "http" | "https") {
        Some("refused a redirect to something else than http")
    } else if same_host && last.is_some_and(|last| last.origin() != next.origin()) {
        Some("refused a redirect of credentials to another host")
    } else {
        None
    }
}

fn host_only(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(address, _)| address);
    }
    host.split_once(':').map_or(host, |(name, _)| name)
}

fn is_loopback(host: &str) -> bool {
    let name = host_only(host);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether an insecureRegistries entry (`host`, `host:port` or CIDR) covers a registry host.
fn covers(entry: &str, host: &str) -> bool {
    if let Some((network, bits)) = entry.split_once('/') {
        let (Ok(network), Ok(bits), Ok(ip)) =
            (network.parse::<IpAddr>(), bits.parse::<u32>(), host_only(host).parse::<IpAddr>())
        else {
            return false;
        };
        return match (network, ip) {
            (IpAddr::V4(n), IpAddr::V4(ip)) if bits <= 32 => {
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                n.to_bits() & mask == ip.to_bits() & mask
            }
            (IpAddr::V6(n), IpAddr::V6(ip)) if bits <= 128 => {
                let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
                n.to_bits() & mask == ip.to_bits() & mask
            }
            _ => false,
        };
    }
    entry == host || entry == host_only(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SPEC I12
    #[test]
    fn redirects_never_lead_down() {
        let refusal = |from: &str, to: &str, same_host| {
            refusal(&[Url::parse(from).unwrap()], &Url::parse(to).unwrap(), same_host)
        };
        assert_eq!(refusal("https://a/x", "https://b/y", false), None);
        assert_eq!(refusal("http://a/x", "https://a/y", false), None);
        for to in ["http://a/y", "ftp://a/y", "file:///etc/passwd"] {
            assert!(refusal("https://a/x", to, false).is_some(), "{to}");
        }
        assert!(refusal("http://a/x", "file:///etc/passwd", false).is_some());
        assert_eq!(refusal("https://a/x", "https://a/y", true), None);
        for to in ["https://b/y", "https://a:444/y", "http://a/y"] {
            assert!(refusal("https://a/x", to, true).is_some(), "{to}");
        }
    }

    #[test]
    fn schemes_and_mirrors() {
        let mut options = Options::new("unused");
        options.mirrors = vec!["http://127.0.0.1:5000/".into()];
        options.insecure_registries = vec!["10.0.0.0/8".into(), "reg.example:5000".into(), "fd00::/8".into()];
        let http = Http::new(&options).unwrap();
        let bases = |name: &str| {
            let reference: Reference = name.parse().unwrap();
            http.endpoints(&reference).into_iter().flat_map(|e| e.bases).collect::<Vec<_>>()
        };
        assert_eq!(bases("busybox"), ["http://127.0.0.1:5000", "https://registry-1.docker.io"]);
        assert_eq!(bases("127.0.0.1:5000/x"), ["http://127.0.0.1:5000", "https://127.0.0.1:5000"]);
        assert_eq!(bases("10.1.2.3:5000/x"), ["https://10.1.2.3:5000", "http://10.1.2.3:5000"]);
        assert_eq!(bases("[fd12::1]:5000/x").len(), 2);
        assert_eq!(bases("reg.example:5000/x").len(), 2);
        for secure in ["reg.example/x", "11.0.0.1/x", "quay.io/x"] {
            assert_eq!(bases(secure).len(), 1, "{secure}");
        }
    }
}
