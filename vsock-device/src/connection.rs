//! One connection as the guest sees it: which packets may come, which are to be sent. No input or output here: the endpoint
//! moves the bytes and tells what became of them.

use crate::{
    credit::{BUFFER, Credit, Overrun},
    packet::{Header, Op, SHUTDOWN_RECEIVE, SHUTDOWN_SEND},
};

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The client asked for it; REQUEST waits for room in the receive queue.
    New,
    /// REQUEST is sent. Next: RESPONSE, or RST.
    Requested,
    /// Bytes flow. Each direction may have been closed by its sender (`client_done`, `guest_done`).
    Established,
    /// The guest closed both directions and waits for RST, which it gets when the client has all of its data.
    Closing,
    /// The guest has forgotten the connection; the client still gets the data that came before.
    Draining,
}

/// What the endpoint does with a packet of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing but to look at the connection's state again.
    Taken,
    /// The guest accepted: the client gets its answer.
    Opened,
    /// The payload goes to the client; it is within the credit.
    Payload,
    /// The guest broke the protocol, or refused: it gets RST if `tell`, and the connection is forgotten.
    Over { tell: bool },
}

/// The guest's side of a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    guest_cid: u64,
    host_port: u32,
    guest_port: u32,
    state: State,
    pub(crate) credit: Credit,
    /// The client will send no more, and the guest has all it sent.
    client_done: bool,
    /// The guest knows of `client_done`.
    client_done_told: bool,
    /// The guest will send no more.
    guest_done: bool,
    /// The guest will read no more.
    guest_deaf: bool,
    /// The guest asked for a CREDIT_UPDATE.
    credit_asked: bool,
    /// We lack room and have asked for it since the last packet of the guest.
    room_asked: bool,
    /// REQUEST was sent before, so that an answer may come at any time.
    repeated: bool,
}

impl Connection {
    pub(crate) fn new(guest_cid: u64, host_port: u32, guest_port: u32) -> Self {
        Self {
            guest_cid,
            host_port,
            guest_port,
            state: State::New,
            credit: Credit::default(),
            client_done: false,
            client_done_told: false,
            guest_done: false,
            guest_deaf: false,
            credit_asked: false,
            room_asked: false,
            repeated: false,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    pub(crate) fn host_port(&self) -> u32 {
        self.host_port
    }

    pub(crate) fn guest_port(&self) -> u32 {
        self.guest_port
    }

    /// The client has sent its last byte, and the guest has it.
    pub(crate) fn client_done(&self) -> bool {
        self.client_done
    }

    /// The guest has sent its last byte.
    pub(crate) fn guest_done(&self) -> bool {
        self.guest_done
    }

    /// The guest takes no more bytes.
    pub(crate) fn guest_deaf(&self) -> bool {
        self.guest_deaf
    }

    /// A packet of the guest for this connection.
    pub(crate) fn on_packet(&mut self, header: &Header) -> Verdict {
        let Some(op) = header.op() else { return Verdict::Over { tell: true } };
        if op == Op::Reset {
            return match self.state {
                // A refusal, or a guest that dropped data; what it sent before still counts.
                State::Established | State::Closing | State::Draining => {
                    self.state = State::Draining;
                    Verdict::Taken
                }
                State::New | State::Requested => Verdict::Over { tell: false },
            };
        }
        match (self.state, op) {
            (State::Requested | State::New, Op::Response) if self.asked() => {
                self.hear(header);
                self.state = State::Established;
                Verdict::Opened
            }
            (State::Established, Op::Data) if !self.guest_done => {
                self.hear(header);
                match self.credit.receive(header.len) {
                    Ok(()) => Verdict::Payload,
                    Err(Overrun) => Verdict::Over { tell: true },
                }
            }
            (State::Established, Op::Shutdown) => {
                self.hear(header);
                self.guest_done |= header.flags & SHUTDOWN_SEND != 0;
                self.guest_deaf |= header.flags & SHUTDOWN_RECEIVE != 0;
                if self.guest_done && self.guest_deaf {
                    self.state = State::Closing;
                }
                Verdict::Taken
            }
            (State::Established, Op::CreditRequest) => {
                self.hear(header);
                self.credit_asked = true;
                Verdict::Taken
            }
            (State::Established, Op::CreditUpdate | Op::Response) => {
                self.hear(header);
                Verdict::Taken
            }
            // Crossed with the guest's own end.
            (State::Closing | State::Draining, Op::CreditUpdate | Op::CreditRequest | Op::Shutdown) => {
                Verdict::Taken
            }
            _ => Verdict::Over { tell: true },
        }
    }

    fn hear(&mut self, header: &Header) {
        self.credit.hear(header.buf_alloc, header.fwd_cnt);
        self.room_asked &= self.credit.room() == 0;
    }

    /// The guest has not answered for a while: REQUEST is sent once more. A guest that has it already ignores the second one,
    /// or refuses it again.
    pub(crate) fn ask_again(&mut self) {
        if self.state == State::Requested {
            self.state = State::New;
            self.repeated = true;
        }
    }

    /// Whether the guest may know of the connection.
    pub(crate) fn asked(&self) -> bool {
        self.state != State::New || self.repeated
    }

    /// The client has sent its last byte, and the guest has it.
    pub(crate) fn on_client_done(&mut self) {
        self.client_done = true;
    }

    /// Bytes that may be read from the client and sent to the guest now.
    pub(crate) fn room(&self) -> u32 {
        if self.state == State::Established && !self.client_done && !self.guest_deaf {
            self.credit.room()
        } else {
            0
        }
    }

    /// Whether the client has bytes for a guest that has no room. `readable`: the client may have bytes.
    fn starved(&self, readable: bool) -> bool {
        let takes = self.state == State::Established && !self.client_done && !self.guest_deaf;
        takes && readable && self.credit.room() == 0 && !self.room_asked
    }

    /// Whether there is something to send. `readable`: the client may have bytes.
    pub(crate) fn has_work(&self, readable: bool) -> bool {
        self.control(readable).is_some() || (readable && self.room() > 0)
    }

    /// The packet without data that is due, if any.
    fn control(&self, readable: bool) -> Option<(Op, u32)> {
        match self.state {
            State::New => Some((Op::Request, 0)),
            State::Established if self.client_done && !self.client_done_told => {
                Some((Op::Shutdown, SHUTDOWN_SEND))
            }
            State::Established if self.credit_asked => Some((Op::CreditUpdate, 0)),
            State::Established if self.credit.update_due() && !self.guest_done => Some((Op::CreditUpdate, 0)),
            State::Established if self.starved(readable) => Some((Op::CreditRequest, 0)),
            _ => None,
        }
    }

    /// Takes the packet without data that is due.
    pub(crate) fn next_control(&mut self, readable: bool) -> Option<Header> {
        let (op, flags) = self.control(readable)?;
        match op {
            Op::Request => self.state = State::Requested,
            Op::Shutdown => self.client_done_told = true,
            Op::CreditUpdate => self.credit_asked = false,
            Op::CreditRequest => self.room_asked = true,
            Op::Response | Op::Reset | Op::Data => {}
        }
        let mut header = self.header(op);
        header.flags = flags;
        Some(header)
    }

    /// The header for `bytes` of data that go to the guest; never more than [`Self::room`].
    pub(crate) fn data(&mut self, bytes: u32) -> Header {
        self.credit.send(bytes);
        let mut header = self.header(Op::Data);
        header.len = bytes;
        header
    }

    fn header(&mut self, op: Op) -> Header {
        // Every packet tells the room, so one that is due is then not.
        self.credit_asked = false;
        Header {
            buf_alloc: BUFFER,
            fwd_cnt: self.credit.tell(),
            ..Header::to_guest(self.guest_cid, self.host_port, self.guest_port, op)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OVER: Verdict = Verdict::Over { tell: true };

    fn packet(op: Op) -> Header {
        Header { op: op.to_wire(), buf_alloc: 1000, kind: 1, ..Header::default() }
    }

    fn data(len: u32) -> Header {
        Header { len, ..packet(Op::Data) }
    }

    fn shutdown(flags: u32) -> Header {
        Header { flags, ..packet(Op::Shutdown) }
    }

    fn sent(connection: &mut Connection, readable: bool) -> Vec<(Option<Op>, u32)> {
        std::iter::from_fn(|| connection.next_control(readable))
            .map(|header| (header.op(), header.flags))
            .collect()
    }

    fn open() -> Connection {
        let mut connection = Connection::new(3, 1 << 30, 5555);
        assert_eq!(sent(&mut connection, false), [(Some(Op::Request), 0)]);
        assert_eq!(connection.on_packet(&packet(Op::Response)), Verdict::Opened);
        assert_eq!(connection.state(), State::Established);
        connection
    }

    #[test]
    fn a_request_says_who_asks_and_how_much_room_there_is() {
        let header = Connection::new(3, 1 << 30, 5555).next_control(true).unwrap();
        let want = Header { buf_alloc: BUFFER, ..Header::to_guest(3, 1 << 30, 5555, Op::Request) };
        assert_eq!(header, want);
    }

    #[test]
    fn a_refused_request_is_over_without_an_answer() {
        let mut connection = Connection::new(3, 1 << 30, 5555);
        connection.next_control(false).unwrap();
        assert_eq!(connection.on_packet(&packet(Op::Reset)), Verdict::Over { tell: false });
    }

    #[test]
    fn a_request_can_be_repeated_and_the_first_ones_answer_counts() {
        let mut connection = Connection::new(3, 1 << 30, 5555);
        connection.ask_again();
        assert_eq!(sent(&mut connection, false), [(Some(Op::Request), 0)], "nothing to repeat yet");
        connection.ask_again();
        assert!(connection.asked());
        assert_eq!(connection.on_packet(&packet(Op::Response)), Verdict::Opened);
        assert_eq!(sent(&mut connection, false), []);
        connection.ask_again();
        assert_eq!(sent(&mut connection, false), [], "it is open");
    }

    #[test]
    fn nothing_but_an_answer_may_come_before_the_answer() {
        for op in [Op::Request, Op::Shutdown, Op::Data, Op::CreditUpdate, Op::CreditRequest] {
            let mut connection = Connection::new(3, 1 << 30, 5555);
            connection.next_control(false).unwrap();
            assert_eq!(connection.on_packet(&packet(op)), OVER, "{op:?}");
        }
        assert_eq!(Connection::new(3, 1 << 30, 5555).on_packet(&packet(Op::Response)), OVER, "nobody asked");
    }

    #[test]
    fn data_is_sent_within_the_room_and_room_is_asked_for_once() {
        let mut connection = open();
        assert_eq!(connection.room(), 1000);
        assert_eq!(connection.data(1000).len, 1000);
        assert_eq!(sent(&mut connection, false), [], "nothing to send, nothing to ask");
        assert_eq!(sent(&mut connection, true), [(Some(Op::CreditRequest), 0)]);
        connection.on_packet(&packet(Op::CreditUpdate));
        assert_eq!(sent(&mut connection, true), [], "asked already");
        connection.on_packet(&Header { fwd_cnt: 500, ..packet(Op::CreditUpdate) });
        assert_eq!(connection.room(), 500);
        connection.data(500);
        assert_eq!(sent(&mut connection, true), [(Some(Op::CreditRequest), 0)]);
    }

    #[test]
    fn a_question_for_room_is_answered_once() {
        let mut connection = open();
        assert_eq!(connection.on_packet(&packet(Op::CreditRequest)), Verdict::Taken);
        assert_eq!(sent(&mut connection, false), [(Some(Op::CreditUpdate), 0)]);
    }

    #[test]
    fn an_overrun_is_over() {
        let mut connection = open();
        assert_eq!(connection.on_packet(&data(BUFFER)), Verdict::Payload);
        assert_eq!(connection.on_packet(&data(1)), OVER);
    }

    #[test]
    fn the_clients_half_close_leaves_the_other_direction_open() {
        let mut connection = open();
        connection.on_client_done();
        assert_eq!(sent(&mut connection, true), [(Some(Op::Shutdown), SHUTDOWN_SEND)]);
        assert_eq!((connection.room(), connection.state()), (0, State::Established));
        assert_eq!(connection.on_packet(&data(10)), Verdict::Payload);
        assert_eq!(connection.on_packet(&shutdown(SHUTDOWN_SEND | SHUTDOWN_RECEIVE)), Verdict::Taken);
        assert_eq!(connection.state(), State::Closing);
    }

    #[test]
    fn the_guests_half_close_leaves_the_other_direction_open() {
        let mut connection = open();
        assert_eq!(connection.on_packet(&shutdown(SHUTDOWN_SEND)), Verdict::Taken);
        assert!(connection.guest_done());
        assert_eq!((connection.room(), connection.state()), (1000, State::Established));
        assert_eq!(connection.on_packet(&data(1)), OVER, "it said that it would send no more");
    }

    #[test]
    fn shutdowns_add_up() {
        let mut connection = open();
        connection.on_packet(&shutdown(SHUTDOWN_RECEIVE));
        assert_eq!((connection.room(), connection.state()), (0, State::Established));
        connection.on_packet(&shutdown(SHUTDOWN_SEND));
        assert_eq!(connection.state(), State::Closing);
        assert_eq!(connection.on_packet(&packet(Op::CreditUpdate)), Verdict::Taken);
        assert_eq!(connection.on_packet(&packet(Op::Reset)), Verdict::Taken, "its patience ended");
        assert_eq!(connection.state(), State::Draining);
    }

    #[test]
    fn an_unknown_operation_is_over() {
        assert_eq!(open().on_packet(&Header { op: 99, ..packet(Op::Data) }), OVER);
    }

    proptest! {
        #[test]
        fn no_packets_confuse_the_counters(script: Vec<(u16, u32, u32, u32, u32, bool)>) {
            let mut connection = open();
            let mut unread: u64 = 0;
            for (op, len, flags, buf_alloc, fwd_cnt, readable) in script {
                let header = Header { op: op % 9, len, flags, buf_alloc, fwd_cnt, kind: 1, ..Header::default() };
                match connection.on_packet(&header) {
                    Verdict::Payload => unread += u64::from(len),
                    Verdict::Over { .. } => break,
                    Verdict::Taken | Verdict::Opened => {}
                }
                prop_assert!(unread <= u64::from(BUFFER));
                prop_assert!(sent(&mut connection, readable).len() <= 3);
                let room = connection.room();
                prop_assert!(room <= buf_alloc || connection.state() != State::Established);
                if room > 0 {
                    connection.data(room);
                    prop_assert_eq!(connection.room(), 0);
                }
            }
        }
    }
}
