//! Flow control of one connection (virtio 1.2, 5.10.6.3): nobody sends more than the other side has room for.
//!
//! All counters are of bytes and wrap at 2^32.

/// Room for data of the guest that the client has not taken yet, per connection. Linux' own default.
pub(crate) const BUFFER: u32 = 256 << 10;

/// The guest sent more than there was room for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overrun;

/// Both directions' counters.
#[derive(Debug, Default)]
pub(crate) struct Credit {
    received: u32,
    forwarded: u32,
    /// `forwarded` as the guest last heard it.
    told: u32,
    sent: u32,
    peer_buffer: u32,
    peer_forwarded: u32,
}

impl Credit {
    /// Takes note of a guest's packet: what room it has.
    pub(crate) fn hear(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        (self.peer_buffer, self.peer_forwarded) = (buf_alloc, fwd_cnt);
    }

    /// Bytes that may be sent to the guest now.
    pub(crate) fn room(&self) -> u32 {
        self.peer_buffer.saturating_sub(self.sent.wrapping_sub(self.peer_forwarded))
    }

    /// `bytes` were sent to the guest.
    pub(crate) fn send(&mut self, bytes: u32) {
        self.sent = self.sent.wrapping_add(bytes);
    }

    /// `bytes` came from the guest.
    pub(crate) fn receive(&mut self, bytes: u32) -> Result<(), Overrun> {
        if bytes > BUFFER.saturating_sub(self.received.wrapping_sub(self.forwarded)) {
            return Err(Overrun);
        }
        self.received = self.received.wrapping_add(bytes);
        Ok(())
    }

    /// `bytes` from the guest were written to the client.
    pub(crate) fn forward(&mut self, bytes: u32) {
        self.forwarded = self.forwarded.wrapping_add(bytes);
    }

    /// `fwd_cnt` for a packet that is about to be sent.
    pub(crate) fn tell(&mut self) -> u32 {
        self.told = self.forwarded;
        self.told
    }

    /// Whether the guest should hear of its room: it sees less than half, and there is news worth a packet.
    pub(crate) fn update_due(&self) -> bool {
        let seen = BUFFER.saturating_sub(self.received.wrapping_sub(self.told));
        let news = self.forwarded.wrapping_sub(self.told);
        // A client that reads byte by byte must not cause a packet for each.
        seen < BUFFER / 2 && (news >= BUFFER / 4 || (news > 0 && self.forwarded == self.received))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near_wrap() -> Credit {
        let at = u32::MAX - 99;
        Credit { received: at, forwarded: at, told: at, sent: at, peer_buffer: 1000, peer_forwarded: at }
    }

    #[test]
    fn room_shrinks_with_what_is_sent_and_grows_with_what_the_guest_took() {
        for mut credit in [Credit { peer_buffer: 1000, ..Credit::default() }, near_wrap()] {
            let start = credit.sent;
            credit.send(900);
            assert_eq!(credit.room(), 100);
            credit.send(100);
            assert_eq!(credit.room(), 0);
            credit.hear(1000, start.wrapping_add(950));
            assert_eq!(credit.room(), 950);
        }
    }

    #[test]
    fn a_guest_that_shrinks_its_buffer_or_lies_gets_nothing() {
        let mut credit = near_wrap();
        credit.send(500);
        credit.hear(400, u32::MAX - 99);
        assert_eq!(credit.room(), 0);
        credit.hear(1000, credit.sent.wrapping_add(1));
        assert_eq!(credit.room(), 0);
    }

    #[test]
    fn a_guest_may_fill_the_buffer_but_not_overrun_it() {
        for mut credit in [Credit::default(), near_wrap()] {
            assert_eq!(credit.receive(BUFFER), Ok(()));
            assert_eq!(credit.receive(1), Err(Overrun));
            credit.forward(10);
            assert_eq!(credit.receive(11), Err(Overrun));
            assert_eq!(credit.receive(10), Ok(()));
            assert_eq!(credit.receive(u32::MAX), Err(Overrun));
        }
    }

    #[test]
    fn updates_are_due_below_half_and_when_they_say_much() {
        for mut credit in [Credit::default(), near_wrap()] {
            credit.receive(BUFFER / 2).unwrap();
            credit.forward(BUFFER / 2);
            assert!(!credit.update_due(), "half is left");
            credit.receive(BUFFER / 2).unwrap();
            assert!(credit.update_due());
            credit.tell();
            assert!(!credit.update_due(), "told");
            credit.forward(1);
            assert!(!credit.update_due(), "one byte is no news");
            credit.forward(BUFFER / 2 - 1);
            assert!(!credit.update_due(), "all is free again, and half of it was known");
        }
    }

    #[test]
    fn a_drained_buffer_is_always_told_to_a_guest_that_waits() {
        let mut credit = Credit::default();
        credit.receive(BUFFER).unwrap();
        credit.forward(BUFFER - 10);
        credit.tell();
        credit.receive(BUFFER - 10).unwrap();
        for _ in 0..BUFFER {
            credit.forward(1);
            if credit.update_due() {
                credit.tell();
            }
        }
        assert!(BUFFER - credit.received.wrapping_sub(credit.told) >= BUFFER / 2);
    }
}
