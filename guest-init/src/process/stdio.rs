//! The three streams of a process between its pipes (or terminal) and the host.
//!
//! Pumps ([`super::pump`]) move bytes between descriptors and the buffers here; at most one *session* (a Stdio RPC) moves
//! them between the buffers and the host. Whoever changes something wakes the one consumer it concerns.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use proto::sandbox::{OutputChunk, StdinAck, StdioResponse, Stream, stdio_response::Kind};
use tokio::sync::Notify;

use super::{
    input::{InputError, InputQueue},
    output::{Filled, OutputBuffer},
};

/// Index of an output stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// stdout, or a terminal's only stream.
    Out = 0,
    /// stderr
    Err = 1,
}

struct State {
    outputs: [Option<OutputBuffer>; 2],
    input: InputQueue,
    /// Number of the live session; a session with another number has been taken over.
    session: u64,
    discard_when_detached: bool,
    over: bool,
}

/// See the module.
pub(crate) struct Stdio {
    state: Mutex<State>,
    session: Notify,
    room: [Notify; 2],
    input: Notify,
}

/// Where a session stands.
#[derive(Debug)]
pub(crate) struct Session {
    number: u64,
    cursors: [u64; 2],
    eof_sent: [bool; 2],
    acked: Option<(u64, bool)>,
    last: usize,
}

/// What a session does next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Send this.
    Send(StdioResponse),
    /// Wait for [`Stdio::changed`].
    Idle,
    /// Everything was sent.
    Done,
    /// A newer session is there.
    TakenOver,
}

/// A session asked for output that was not written yet.
#[derive(Debug, thiserror::Error)]
#[error("output is asked for from offset {asked}, but only {end} bytes were written")]
pub(crate) struct OffsetError {
    asked: u64,
    end: u64,
}

impl Stdio {
    /// The streams of a process that has those named.
    pub(crate) fn new(stdin: bool, stdout: bool, stderr: bool, discard_when_detached: bool) -> Self {
        let output = |wanted: bool| wanted.then(OutputBuffer::default);
        let input = if stdin { InputQueue::default() } else { InputQueue::closed() };
        let state = State {
            outputs: [output(stdout), output(stderr)],
            input,
            session: 0,
            discard_when_detached,
            over: false,
        };
        Self {
            state: Mutex::new(state),
            session: Notify::new(),
            room: Default::default(),
            input: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // --- sessions

    /// Starts a session that takes over from the one before. Answers it and the offset at which input goes on.
    pub(crate) fn open(&self, offsets: [u64; 2]) -> Result<(Session, u64), OffsetError> {
        let mut state = self.lock();
        for (buffer, asked) in state.outputs.iter().zip(offsets) {
            if let Some(end) = buffer.as_ref().map(OutputBuffer::end).filter(|end| asked > *end) {
                return Err(OffsetError { asked, end });
            }
        }
        for (buffer, (offset, room)) in state.outputs.iter_mut().zip(offsets.into_iter().zip(&self.room)) {
            if let Some(buffer) = buffer {
                buffer.set_discard(false);
                buffer.acknowledge(offset);
                room.notify_one();
            }
        }
        state.session += 1;
        // Wakes the session before, which sees that it is not the live one.
        self.session.notify_one();
        let session =
            Session { number: state.session, cursors: offsets, eof_sent: [false; 2], acked: None, last: 1 };
        Ok((session, state.input.received()))
    }

    /// The next step of a session.
    pub(crate) fn step(&self, session: &mut Session) -> Step {
        let mut state = self.lock();
        if state.session != session.number {
            // The wake-up may have been the newer session's.
            self.session.notify_one();
            return Step::TakenOver;
        }
        let input = state.input.state();
        if session.acked.unwrap_or_default() != input {
            session.acked = Some(input);
            return Step::Send(message(Kind::StdinAck(StdinAck { offset: input.0, closed: input.1 })));
        }
        let mut done = true;
        // In turn, so that a busy stdout does not starve stderr.
        for index in [1 - session.last, session.last] {
            let Some(buffer) = state.outputs.get_mut(index).and_then(Option::as_mut) else { continue };
            let cursor = &mut session.cursors[index];
            let stream = if index == 0 { Stream::Stdout } else { Stream::Stderr } as i32;
            if let Some((offset, data)) = buffer.next(*cursor) {
                *cursor = offset + data.len() as u64;
                session.last = index;
                return Step::Send(message(Kind::Output(OutputChunk { stream, offset, data, eof: false })));
            }
            if buffer.is_eof() && !session.eof_sent[index] {
                session.eof_sent[index] = true;
                let chunk = OutputChunk { stream, offset: buffer.end(), data: Bytes::new(), eof: true };
                return Step::Send(message(Kind::Output(chunk)));
            }
            done &= session.eof_sent[index];
        }
        if done && state.over { Step::Done } else { Step::Idle }
    }

    /// Waits until [`Stdio::step`] may have something.
    pub(crate) async fn changed(&self) {
        self.session.notified().await;
    }

    /// The session's stream is lost.
    pub(crate) fn detach(&self, session: u64) {
        let mut state = self.lock();
        if state.session == session && state.discard_when_detached {
            for (buffer, room) in state.outputs.iter_mut().zip(&self.room) {
                if let Some(buffer) = buffer {
                    buffer.set_discard(true);
                    room.notify_one();
                }
            }
        }
    }

    /// Nobody will ever ask for the output: a blocked writer or pump goes on.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        for (buffer, room) in state.outputs.iter_mut().zip(&self.room) {
            if let Some(buffer) = buffer {
                buffer.set_discard(true);
                room.notify_one();
            }
        }
    }

    /// Output up to these offsets is safe at the host.
    pub(crate) fn acknowledge(&self, offsets: [u64; 2]) {
        let mut state = self.lock();
        for (buffer, (offset, room)) in state.outputs.iter_mut().zip(offsets.into_iter().zip(&self.room)) {
            if buffer.as_mut().is_some_and(|buffer| buffer.acknowledge(offset)) {
                room.notify_one();
            }
        }
    }

    /// Input came.
    pub(crate) fn push_input(&self, offset: u64, data: Bytes, eof: bool) -> Result<(), InputError> {
        let mut state = self.lock();
        state.input.push(offset, data, eof)?;
        self.input.notify_one();
        self.session.notify_one();
        Ok(())
    }

    // --- pumps

    /// Reads once into a buffer; `read` as in [`OutputBuffer::fill`].
    pub(crate) fn fill(
        &self,
        output: Output,
        read: impl FnOnce(&mut bytes::BytesMut) -> std::io::Result<usize>,
    ) -> std::io::Result<Filled> {
        let mut state = self.lock();
        let Some(buffer) = &mut state.outputs[output as usize] else {
            // Nobody wants it: a buffer of the moment.
            return OutputBuffer::default().fill(read);
        };
        let filled = buffer.fill(read)?;
        self.session.notify_one();
        Ok(filled)
    }

    /// Waits until the buffer may have room.
    pub(crate) async fn room(&self, output: Output) {
        self.room[output as usize].notified().await;
    }

    /// The stream is over.
    pub(crate) fn finish(&self, output: Output) {
        if let Some(buffer) = &mut self.lock().outputs[output as usize] {
            buffer.finish();
        }
        self.session.notify_one();
    }

    /// Everything the process had to say was taken.
    pub(crate) fn finish_all(&self) {
        let mut state = self.lock();
        state.over = true;
        state.outputs.iter_mut().flatten().for_each(OutputBuffer::finish);
        state.input.close();
        self.session.notify_one();
    }

    /// The bytes to write next, and whether the process's stdin is to be closed instead.
    pub(crate) fn input(&self) -> (Option<Bytes>, bool) {
        let state = self.lock();
        (state.input.front(), state.input.is_done())
    }

    /// `n` bytes of input were written.
    pub(crate) fn input_written(&self, n: usize) {
        self.lock().input.advance(n);
        self.session.notify_one();
    }

    /// Waits until there may be input.
    pub(crate) async fn input_changed(&self) {
        self.input.notified().await;
    }

    /// The process reads no more.
    pub(crate) fn close_input(&self) {
        self.lock().input.close();
        self.session.notify_one();
    }
}

impl Session {
    /// The session's number, for [`Stdio::detach`].
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

/// A response of one kind.
pub(crate) fn message(kind: Kind) -> StdioResponse {
    StdioResponse { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(stdio: &Stdio, output: Output, data: &[u8]) {
        let filled = stdio.fill(output, |room| {
            room.extend_from_slice(data);
            Ok(data.len())
        });
        assert_eq!(filled.unwrap(), Filled::Bytes(data.len()));
    }

    fn chunk(step: Step) -> (i32, u64, Bytes, bool) {
        match step {
            Step::Send(StdioResponse { kind: Some(Kind::Output(c)) }) => (c.stream, c.offset, c.data, c.eof),
            other => panic!("no output: {other:?}"),
        }
    }

    #[test]
    fn a_newer_session_gets_what_was_not_acknowledged() {
        let stdio = Stdio::new(true, true, false, false);
        let (mut old, _) = stdio.open([0, 0]).unwrap();
        write(&stdio, Output::Out, b"abcdef");
        assert_eq!(chunk(stdio.step(&mut old)).2, "abcdef");
        stdio.acknowledge([2, 0]);
        let (mut new, _) = stdio.open([4, 0]).unwrap();
        assert!(matches!(stdio.step(&mut old), Step::TakenOver));
        assert_eq!(chunk(stdio.step(&mut new)), (1, 4, Bytes::from("ef"), false));
        assert!(matches!(stdio.step(&mut new), Step::Idle));
        stdio.finish_all();
        assert!(matches!(stdio.step(&mut new), Step::Send(StdioResponse { kind: Some(Kind::StdinAck(_)) })));
        assert_eq!(chunk(stdio.step(&mut new)), (1, 6, Bytes::new(), true));
        assert!(matches!(stdio.step(&mut new), Step::Done));
        assert!(stdio.open([7, 0]).is_err());
    }

    #[test]
    fn detached_exec_output_is_dropped() {
        let stdio = Stdio::new(false, true, true, true);
        let (session, _) = stdio.open([0, 0]).unwrap();
        stdio.detach(session.number());
        for _ in 0..100 {
            write(&stdio, Output::Err, &[0; 64 * 1024]);
        }
        let (mut again, _) = stdio.open([0, 0]).unwrap();
        assert!(matches!(
            stdio.step(&mut again),
            Step::Send(StdioResponse { kind: Some(Kind::StdinAck(_)) })
        ));
        assert!(matches!(stdio.step(&mut again), Step::Idle));
        write(&stdio, Output::Err, b"new");
        assert_eq!(chunk(stdio.step(&mut again)), (2, 100 * 64 * 1024, Bytes::from("new"), false));
    }
}
