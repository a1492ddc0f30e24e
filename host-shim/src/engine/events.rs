//! `docker events`: a ring of the last events and a live feed.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use futures::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use tokio::{
    sync::broadcast,
    time::{Duration, Instant, sleep_until},
};

use super::clock;
use crate::api::query::Filters;

/// How many past events a late subscriber can still see (moby keeps as many).
const RING: usize = 256;
/// How far a slow subscriber may lag before it is cut (moby's buffer).
const LAG: usize = 1024;
/// Most bytes of an event's attributes: labels are the user's, and there are many events.
const ATTRIBUTES: usize = 64 << 10;
/// Of these, most bytes of labels.
const LABELS: usize = ATTRIBUTES / 2;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A container, or a process in it.
    Container,
    /// An image.
    Image,
    /// A network.
    Network,
    /// A volume.
    Volume,
    /// The daemon.
    Daemon,
}

impl Kind {
    /// `Type` of the event.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Daemon => "daemon",
        }
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What it is about.
    pub kind: Kind,
    /// What happened: `create`, `die`, `exec_create: sh -c true`, ...
    pub action: String,
    /// Id of the object.
    pub actor: String,
    /// Its name, labels and whatever belongs to the action.
    pub attributes: BTreeMap<String, String>,
    /// Nanoseconds since the epoch.
    pub time: i128,
}

impl Event {
    /// An event of now.
    pub fn new(kind: Kind, action: impl Into<String>, actor: impl Into<String>) -> Self {
        Self {
            kind,
            action: action.into(),
            actor: actor.into(),
            attributes: BTreeMap::new(),
            time: clock::now_nanos(),
        }
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.insert(key.into(), value.into());
        self
    }

    /// Adds an object's labels, of too many only the shortest: the other attributes have to fit beside them.
    #[must_use]
    pub fn labelled(mut self, labels: Option<&BTreeMap<String, String>>) -> Self {
        self.attributes.extend(labels.into_iter().flat_map(|labels| fitting(labels, LABELS)));
        self
    }

    fn fit(&mut self) {
        if self.attributes.iter().map(size).sum::<usize>() > ATTRIBUTES {
            self.attributes = fitting(&self.attributes, ATTRIBUTES).collect();
        }
    }

    /// As the API sends it, with the legacy keys `status`, `id` and `from` that older clients read.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut value = json!({});
        if matches!(self.kind, Kind::Container | Kind::Image) {
            value["status"] = json!(self.action);
            value["id"] = json!(self.actor);
            if let (Kind::Container, Some(image)) = (self.kind, self.attributes.get("image")) {
                value["from"] = json!(image);
            }
        }
        value["Type"] = json!(self.kind.as_str());
        value["Action"] = json!(self.action);
        value["Actor"] = json!({ "ID": self.actor, "Attributes": self.attributes });
        value["scope"] = json!("local");
        value["time"] = json!(i64::try_from(self.time / 1_000_000_000).unwrap_or(i64::MAX));
        value["timeNano"] = json!(i64::try_from(self.time).unwrap_or(i64::MAX));
        value
    }

    /// Whether the filters of `docker events` let it pass.
    #[must_use]
    pub fn matches(&self, filters: &Filters) -> bool {
        let attribute = |name: &str| self.attributes.get(name).map(String::as_str);
        let any = |key: &str, test: &dyn Fn(&str) -> bool| {
            !filters.has(key) || filters.get(key).iter().any(|v| test(v))
        };
        let object = |key: &str, kind: Kind| {
            any(key, &|wanted| {
                self.kind == kind
                    && (self.actor.starts_with(wanted)
                        || attribute("name").is_some_and(|name| name == wanted))
            })
        };
        // `exec_create: sh -c true` is matched by `exec_create` as well.
        let action = |wanted: &str| {
            wanted == self.action || self.action.split_once(':').is_some_and(|(action, _)| action == wanted)
        };
        let image = |wanted: &str| {
            let of = if self.kind == Kind::Image { attribute("name") } else { attribute("image") };
            let untagged = |name: &str| match name.rsplit_once(':') {
                Some((repository, tag)) if !tag.contains('/') => repository.to_owned(),
                _ => name.to_owned(),
            };
            of.is_some_and(|of| of == wanted || untagged(of) == wanted)
                || (self.kind == Kind::Image && self.actor == wanted)
        };
        any("event", &action)
            && filters.exact("type", self.kind.as_str())
            && filters.exact("scope", "local")
            && object("container", Kind::Container)
            && object("network", Kind::Network)
            && object("volume", Kind::Volume)
            && object("daemon", Kind::Daemon)
            && any("image", &image)
            && filters.labels("label", attribute)
    }
}

fn size((key, value): (&String, &String)) -> usize {
    key.len() + value.len()
}

/// As many attributes as `room` bytes hold, the longest left out.
fn fitting(all: &BTreeMap<String, String>, mut room: usize) -> impl Iterator<Item = (String, String)> {
    let mut entries: Vec<_> = all.iter().collect();
    if all.iter().map(size).sum::<usize>() > room {
        entries.sort_by_key(|entry| size(*entry));
        entries.retain(|entry| {
            room = room.saturating_sub(size(*entry));
            room > 0
        });
    }
    entries.into_iter().map(|(key, value)| (key.clone(), value.clone()))
}

/// The feed. Cloning is not needed: the engine holds the one there is.
#[derive(Debug)]
pub struct Events {
    ring: Mutex<VecDeque<Event>>,
    live: broadcast::Sender<Event>,
}

impl Default for Events {
    fn default() -> Self {
        Self { ring: Mutex::default(), live: broadcast::Sender::new(LAG) }
    }
}

impl Events {
    /// Tells everybody who listens, and remembers it. Of too many attributes the longest are left out.
    pub fn publish(&self, mut event: Event) {
        event.fit();
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() == RING {
            ring.pop_front();
        }
        ring.push_back(event.clone());
        // Under the ring's lock, so that a new subscriber sees every event exactly once. Nobody listening is no error.
        let _ = self.live.send(event);
    }

    /// Past events from `since` on, when given, then live ones until `until` (nanoseconds since the epoch). Without `until`
    /// the stream does not end. An `until` in the past gives past events only.
    pub fn subscribe(
        &self,
        since: Option<i128>,
        until: Option<i128>,
        filters: Filters,
    ) -> impl Stream<Item = Event> + Send + use<> {
        let (past, live) = {
            let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            let past: Vec<Event> = match (since, until) {
                (None, None) => Vec::new(),
                _ => ring
                    .iter()
                    .filter(|event| since.is_none_or(|since| event.time >= since))
                    .filter(|event| until.is_none_or(|until| event.time <= until))
                    .cloned()
                    .collect(),
            };
            (past, self.live.subscribe())
        };
        // One that is too far for a clock is never.
        let deadline = until.and_then(|until| {
            let left = until.saturating_sub(clock::now_nanos()).max(0);
            Instant::now().checked_add(Duration::from_nanos(u64::try_from(left).ok()?))
        });
        let live = stream::unfold(live, move |mut live| async move {
            let end = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            // In this order: what was published before the deadline is told, however late it is asked for.
            let received = tokio::select! {
                biased;
                received = live.recv() => received,
                () = end => return None,
            };
            match received {
                Ok(event) if until.is_some_and(|until| event.time > until) => None,
                Ok(event) => Some((event, live)),
                Err(broadcast::error::RecvError::Lagged(lost)) => {
                    // An end is seen, a gap is not.
                    tracing::warn!(lost, "a client of /events that does not read is cut");
                    None
                }
                Err(broadcast::error::RecvError::Closed) => None,
            }
        });
        stream::iter(past).chain(live).filter(move |event| std::future::ready(event.matches(&filters)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str) -> Event {
        Event::new(Kind::Container, action, "abc123")
            .with("name", "web")
            .with("image", "nginx:1")
            .with("l", "v")
    }

    #[test]
    fn legacy_keys_are_there() {
        let json = event("start").to_json();
        assert_eq!(
            (&json["status"], &json["id"], &json["from"]),
            (&json!("start"), &json!("abc123"), &json!("nginx:1"))
        );
        assert_eq!(json["Actor"]["Attributes"]["name"], "web");
        assert!(Event::new(Kind::Network, "create", "n").to_json().get("status").is_none());
    }

    #[test]
    fn filters_select() {
        let passes = |action: &str, filters: &str| event(action).matches(&Filters::parse(filters).unwrap());
        assert!(passes("exec_create: sh", r#"{"event":["exec_create"]}"#));
        assert!(!passes("start", r#"{"event":["die"]}"#));
        assert!(passes("start", r#"{"container":["web"],"type":["container"]}"#));
        assert!(passes("start", r#"{"container":["abc"]}"#));
        assert!(!passes("start", r#"{"network":["web"]}"#));
        assert!(passes("start", r#"{"image":["nginx"]}"#));
        assert!(passes("start", r#"{"label":["l=v"]}"#));
        assert!(!passes("start", r#"{"label":["l=w"]}"#));
    }

    /// SPEC A15
    #[tokio::test]
    async fn who_lags_is_cut_and_what_is_kept_is_bounded() {
        let events = Events::default();
        let slow = events.subscribe(None, None, Filters::default());
        for _ in 0..=LAG {
            events.publish(event("start"));
        }
        // It ends, though nobody said until when.
        assert!(slow.count().await <= LAG);
        events.publish(event("create").with("big", "x".repeat(4 << 20)).with("small", "y"));
        let ring = events.ring.lock().unwrap();
        let last = ring.back().unwrap();
        assert_eq!((last.attributes.get("big"), last.attributes["small"].as_str()), (None, "y"));
    }

    /// SPEC A15
    #[test]
    fn of_many_labels_the_longest_are_left_out_soon() {
        let labels: BTreeMap<_, _> =
            (0..100_000).map(|n| (format!("label-{n}"), "x".repeat(n % 50))).collect();
        let begun = std::time::Instant::now();
        let mut event = Event::new(Kind::Container, "start", "a").labelled(Some(&labels)).with("name", "web");
        assert_eq!(event.attributes["name"], "web");
        event.attributes.extend(labels);
        event.fit();
        let sum: usize = event.attributes.iter().map(size).sum();
        assert!((ATTRIBUTES - 100..=ATTRIBUTES).contains(&sum), "{sum}");
        // Quadratic, it would take a minute.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn an_until_that_is_too_far_is_never() {
        for until in [i128::from(u64::MAX) * 2, i128::MAX] {
            let events = Events::default();
            let mut seen = Box::pin(events.subscribe(None, Some(until), Filters::default()));
            let first = tokio::time::timeout(Duration::from_millis(50), seen.next()).await;
            assert!(first.is_err(), "it ended");
        }
    }

    #[tokio::test]
    async fn past_then_live_then_the_end() {
        let events = Events::default();
        events.publish(event("create"));
        let until = clock::now_nanos() + 50_000_000;
        let seen = events.subscribe(Some(0), Some(until), Filters::default());
        let fresh =
            events.subscribe(None, Some(until + 1), Filters::parse(r#"{"event":["start"]}"#).unwrap());
        events.publish(event("start"));
        let actions: Vec<String> = seen.map(|event| event.action).collect().await;
        assert_eq!(actions, ["create", "start"]);
        assert_eq!(fresh.count().await, 1);
    }
}
