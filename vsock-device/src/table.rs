//! All clients by their host port: those that have not said which port they want, and connections.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{client::Client, endpoint::Endpoint, hybrid::LineParser};

/// Most clients at a time. Beyond it a new one is closed at once.
const MAX_CLIENTS: usize = 1024;
/// First host port: far from those that programs choose.
const FIRST_PORT: u32 = 1 << 30;
/// Time a client has for its first line, and a guest for its answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A client in the table.
#[derive(Debug)]
pub(crate) enum Slot {
    /// It has not sent its whole first line.
    Greeting { client: Client, line: LineParser, since: Instant },
    /// It has asked for a port of the guest.
    Connected(Box<Endpoint>),
}

impl Slot {
    /// Since when somebody owes an answer.
    fn waits_since(&self) -> Option<Instant> {
        match self {
            Self::Greeting { since, .. } => Some(*since),
            Self::Connected(endpoint) => endpoint.unanswered().then_some(endpoint.since),
        }
    }
}

/// The clients.
#[derive(Debug)]
pub(crate) struct Table {
    slots: HashMap<u32, Slot>,
    next: u32,
    /// Somebody may owe an answer: [`Self::overdue`] has to be asked.
    waiting: bool,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self { slots: HashMap::new(), next: FIRST_PORT, waiting: false }
    }

    /// A free port, or none if there are too many clients.
    pub(crate) fn free_port(&mut self) -> Option<u32> {
        if self.slots.len() >= MAX_CLIENTS {
            return None;
        }
        loop {
            let port = self.next;
            // u32::MAX is VMADDR_PORT_ANY.
            self.next = if port >= u32::MAX - 1 { FIRST_PORT } else { port + 1 };
            if !self.slots.contains_key(&port) {
                return Some(port);
            }
        }
    }

    pub(crate) fn insert(&mut self, port: u32, slot: Slot) {
        self.waiting |= slot.waits_since().is_some();
        self.slots.insert(port, slot);
    }

    pub(crate) fn get(&mut self, port: u32) -> Option<&mut Slot> {
        self.slots.get_mut(&port)
    }

    pub(crate) fn endpoint(&mut self, port: u32) -> Option<&mut Endpoint> {
        match self.slots.get_mut(&port) {
            Some(Slot::Connected(endpoint)) => Some(endpoint),
            _ => None,
        }
    }

    pub(crate) fn remove(&mut self, port: u32) -> Option<Slot> {
        self.slots.remove(&port)
    }

    pub(crate) fn clear(&mut self) {
        self.slots = HashMap::new();
    }

    /// Whether [`Self::overdue`] should be asked from time to time.
    pub(crate) fn waiting(&self) -> bool {
        self.waiting
    }

    /// Ports of all from whom, or from whose guest, an answer is awaited.
    pub(crate) fn awaited(&self) -> Vec<u32> {
        self.slots.iter().filter(|(_, slot)| slot.waits_since().is_some()).map(|(port, _)| *port).collect()
    }

    /// Ports of clients whose answer, or whose guest's answer, is late.
    pub(crate) fn overdue(&mut self, now: Instant) -> Vec<u32> {
        let mut late = Vec::new();
        self.waiting = false;
        for (port, slot) in &self.slots {
            match slot.waits_since() {
                Some(since) if now.saturating_duration_since(since) >= PATIENCE => late.push(*port),
                Some(_) => self.waiting = true,
                None => {}
            }
        }
        late
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn slot(since: Instant) -> Slot {
        let client = Client::new(UnixStream::pair().unwrap().0).unwrap();
        Slot::Greeting { client, line: LineParser::default(), since }
    }

    #[test]
    fn ports_in_use_are_skipped_and_the_counter_wraps() {
        let mut table = Table::new();
        let now = Instant::now();
        assert_eq!(table.free_port(), Some(FIRST_PORT));
        table.insert(FIRST_PORT, slot(now));
        table.next = u32::MAX - 1;
        assert_eq!(table.free_port(), Some(u32::MAX - 1));
        assert_eq!(table.free_port(), Some(FIRST_PORT + 1));
    }

    #[test]
    fn there_is_a_limit() {
        let mut table = Table::new();
        let now = Instant::now();
        for _ in 0..MAX_CLIENTS / 4 {
            for _ in 0..4 {
                let port = table.free_port().unwrap();
                table.insert(port, slot(now));
            }
        }
        assert_eq!(table.free_port(), None);
        table.remove(FIRST_PORT);
        assert!(table.free_port().is_some());
    }

    #[test]
    fn those_that_owe_an_answer_too_long_are_found() {
        let mut table = Table::new();
        let start = Instant::now();
        table.insert(1, slot(start));
        table.insert(2, slot(start + PATIENCE / 2));
        assert!(table.waiting());
        assert_eq!(table.overdue(start + PATIENCE), [1]);
        table.remove(1);
        assert!(table.waiting());
        assert_eq!(table.overdue(start + PATIENCE * 2), [2]);
        table.remove(2);
        table.overdue(start);
        assert!(!table.waiting());
    }
}
