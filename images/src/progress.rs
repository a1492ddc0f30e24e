//! Progress of pulls and loads, as the messages of docker's JSON stream.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde::{Serialize, Serializer, ser::SerializeMap};

/// Least time between two counted messages of one layer; state changes are never held back.
const INTERVAL: Duration = Duration::from_millis(100);

/// One message; `Serialize` gives docker's exact JSON object (without the line end).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgressEvent {
    /// `{"status":…}` or `{"status":…,"id":…}`: a line that is not updated.
    Status {
        /// The text.
        status: String,
        /// The tag for "Pulling from", else nothing.
        id: Option<String>,
    },
    /// `{"status":…,"progressDetail":{…},"progress":…,"id":…}`: the state of one layer.
    Layer {
        /// 12 hex digits of the layer's digest (pull) or diff ID (load).
        id: String,
        /// "Downloading", "Extracting", "Pull complete" and so on.
        status: &'static str,
        /// Bytes done and in all, for states that count.
        counted: Option<(u64, u64)>,
    },
    /// `{"stream":…}`: a line of text with its line end, as `docker load` answers.
    Stream(String),
}

impl ProgressEvent {
    pub(crate) fn status(status: impl Into<String>) -> Self {
        Self::Status { status: status.into(), id: None }
    }
}

#[derive(Serialize)]
struct Counts {
    current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[derive(Serialize)]
struct NoCounts {}

impl Serialize for ProgressEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Stream(text) => map.serialize_entry("stream", text)?,
            Self::Status { status, id } => {
                map.serialize_entry("status", status)?;
                if let Some(id) = id {
                    map.serialize_entry("id", id)?;
                }
            }
            Self::Layer { id, status, counted } => {
                map.serialize_entry("status", status)?;
                match *counted {
                    Some((current, total)) => {
                        map.serialize_entry("progressDetail", &Counts { current, total })?;
                        map.serialize_entry("progress", &bar(current, total))?;
                    }
                    None => map.serialize_entry("progressDetail", &NoCounts {})?,
                }
                map.serialize_entry("id", id)?;
            }
        }
        map.end()
    }
}

/// Where progress goes. Called from async tasks and blocking threads: it must not block.
pub trait Progress: Send + Sync {
    /// Takes one message, in order for each layer.
    fn event(&self, event: ProgressEvent);
}

/// Discards everything.
impl Progress for () {
    fn event(&self, _: ProgressEvent) {}
}

/// Messages are few (ten a second for each layer in work), so the queue stays small even if the
/// reader is slow; a closed receiver is ignored.
impl Progress for tokio::sync::mpsc::UnboundedSender<ProgressEvent> {
    fn event(&self, event: ProgressEvent) {
        let _ = self.send(event);
    }
}

/// The line of one layer, throttled.
pub(crate) struct LayerProgress {
    sink: Arc<dyn Progress>,
    id: String,
    last: Mutex<Option<(Instant, u64)>>,
}

impl LayerProgress {
    pub(crate) fn new(sink: &Arc<dyn Progress>, digest: &str) -> Self {
        Self { sink: Arc::clone(sink), id: short_id(digest), last: Mutex::new(None) }
    }

    /// A change of state: always sent.
    pub(crate) fn state(&self, status: &'static str) {
        self.sink.event(ProgressEvent::Layer { id: self.id.clone(), status, counted: None });
    }

    /// A count: sent if enough time has passed or it is the last one.
    pub(crate) fn count(&self, status: &'static str, current: u64, total: u64) {
        if let Ok(mut last) = self.last.lock() {
            let now = Instant::now();
            let held_back = |(at, before): (Instant, u64)| {
                before == current || (current < total && now.duration_since(at) < INTERVAL)
            };
            if last.is_some_and(held_back) {
                return;
            }
            *last = Some((now, current));
        }
        self.sink.event(ProgressEvent::Layer {
            id: self.id.clone(),
            status,
            counted: Some((current, total)),
        });
    }
}

/// The 12 hex digits by which docker shows a digest.
pub fn short_id(digest: &str) -> String {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.chars().take(12).collect()
}

/// The progress bar text of docker's jsonmessage for a wide terminal.
fn bar(current: u64, total: u64) -> String {
    if current == 0 && total == 0 {
        return String::new();
    }
    let now = human_size(current);
    if total == 0 {
        return format!("{now:>8}");
    }
    let done = usize::try_from(u128::from(current) * 100 / u128::from(total) / 2).map_or(50, |n| n.min(50));
    let numbers =
        if current > total { format!("{now:>8}") } else { format!("{now:>8}/{}", human_size(total)) };
    format!("[{}>{}] {numbers}", "=".repeat(done), " ".repeat(50 - done))
}

/// go-units' HumanSize: four significant digits, decimal units.
#[allow(clippy::cast_precision_loss, reason = "four digits are shown")]
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut size, mut unit) = (bytes as f64, 0);
    while size >= 1000.0 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    let whole_digits = if size >= 100.0 {
        3
    } else if size >= 10.0 {
        2
    } else {
        1
    };
    let text = format!("{size:.*}", 4 - whole_digits);
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests end")]
mod tests {
    use super::*;

    #[test]
    fn json_is_dockers() {
        let json = |e: &ProgressEvent| serde_json::to_string(e).unwrap();
        let from = ProgressEvent::Status {
            status: "Pulling from library/busybox".into(),
            id: Some("latest".into()),
        };
        assert_eq!(json(&from), r#"{"status":"Pulling from library/busybox","id":"latest"}"#);
        let plain = ProgressEvent::Layer { id: "0123456789ab".into(), status: "Waiting", counted: None };
        assert_eq!(json(&plain), r#"{"status":"Waiting","progressDetail":{},"id":"0123456789ab"}"#);
        let counted = ProgressEvent::Layer {
            id: "0123456789ab".into(),
            status: "Downloading",
            counted: Some((512, 1024)),
        };
        assert_eq!(
            json(&counted),
            r#"{"status":"Downloading","progressDetail":{"current":512,"total":1024},"progress":"[=========================>                         ]     512B/1.024kB","id":"0123456789ab"}"#
        );
        let loaded = ProgressEvent::Stream("Loaded image: busybox:latest\n".into());
        assert_eq!(json(&loaded), r#"{"stream":"Loaded image: busybox:latest\n"}"#);
    }

    #[test]
    fn sizes_have_four_digits() {
        for (bytes, text) in
            [(0, "0B"), (999, "999B"), (1000, "1kB"), (2_150_400, "2.15MB"), (144_123_456, "144.1MB")]
        {
            assert_eq!(human_size(bytes), text);
        }
    }

    #[test]
    fn counts_are_throttled_but_the_last_is_sent() {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let sink: Arc<dyn Progress> = Arc::new(sender);
        let layer = LayerProgress::new(&sink, "sha256:0123456789abcdef");
        for n in 1..=1000 {
            layer.count("Downloading", n, 1000);
        }
        let mut counts = Vec::new();
        while let Ok(ProgressEvent::Layer { counted: Some((n, _)), .. }) = receiver.try_recv() {
            counts.push(n);
        }
        assert_eq!(counts.last(), Some(&1000));
        assert!(counts.len() < 100, "{} messages", counts.len());
    }
}
