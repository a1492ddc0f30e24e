//! What clients may take: time, memory, connections. Everything the API bounds, in one place.

use std::time::Duration;

/// Bounds of what clients may take. They are not configurable: see docs/SPECIFICATION.md, section A.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time, of whatever kind. Beyond it the one that idles longest is closed for a new one; if none
    /// idles, the one whose client has not read for longer than [`Limits::unread`]; if there is none, the new one gets 503.
    pub connections: usize,
    /// Of these, hijacked ones (attach, exec): the rest stays for requests that end.
    pub sessions: usize,
    /// A client that has not read for so long may lose its place when places are short.
    pub unread: Duration,
    /// Time to send a request's headers, also the longest idle time of a kept-alive connection. As dockerd's.
    pub headers: Duration,
    /// Bytes of a request's line and headers.
    pub header_bytes: usize,
    /// Header lines of a request. As Go's.
    pub header_count: usize,
    /// Bytes of a body of JSON. What a kernel takes as arguments and environment (2 MiB) fits.
    pub json_bytes: usize,
    /// Time for a body of JSON to arrive.
    pub json_time: Duration,
    /// Longest pause within a body that is uploaded (`docker load`, `docker cp`), and of a client that takes an answer once
    /// all of it is made. Streams (`logs -f`, `events`, `stats`, attach) may be left unread.
    pub stall: Duration,
    /// Time that running requests get after the daemon was told to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            sessions: 3072,
            unread: Duration::from_secs(30),
            headers: Duration::from_secs(300),
            header_bytes: 128 << 10,
            header_count: 500,
            json_bytes: 4 << 20,
            json_time: Duration::from_secs(60),
            stall: crate::engine::archive::STALL,
            drain: Duration::from_secs(2),
        }
    }
}

impl Limits {
    /// Those of this process: fewer connections where it may open few files.
    #[must_use]
    pub fn of_process() -> Self {
        use nix::sys::resource::{Resource, getrlimit};
        let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
        Self::default().within(files)
    }

    /// As many connections as `files` open files allow, with most of them left for the daemon's own work.
    #[must_use]
    pub fn within(mut self, files: u64) -> Self {
        let most = usize::try_from(files / 4).unwrap_or(usize::MAX).max(8);
        self.connections = self.connections.min(most);
        self.sessions = self.sessions.min(self.connections / 4 * 3);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_follow_the_limit_of_open_files() {
        let limits = Limits::default();
        assert_eq!(limits.within(1 << 20), limits);
        let few = limits.within(256);
        assert_eq!((few.connections, few.sessions), (64, 48));
        assert_eq!(limits.within(1).connections, 8);
    }
}
