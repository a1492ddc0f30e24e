//! Moves bytes between a process's descriptors and its buffers.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    output::Filled,
    stdio::{Output, Stdio},
};

/// Most bytes taken from a pipe after its grace is over: the largest pipe (`/proc/sys/fs/pipe-max-size`) holds that much.
const LAST_DRAIN: usize = 1024 * 1024;

/// Set when the process has ended: how long its streams may stay open without an end of their own. A grandchild in the
/// background may hold them for ever.
pub(crate) type Grace = watch::Receiver<Option<Duration>>;

/// Reads `fd` to its end, or until the grace is over.
pub(crate) async fn output(
    stdio: Arc<Stdio>,
    which: Output,
    fd: OwnedFd,
    mut grace: Grace,
) -> io::Result<()> {
    let fd = register(fd, Interest::READABLE)?;
    let mut deadline = None;
    let mut left = usize::MAX;
    loop {
        if deadline.is_none() {
            deadline = grace.borrow_and_update().map(|grace| Instant::now() + grace);
        }
        let until = deadline.unwrap_or_else(Instant::now);
        let mut ready = tokio::select! {
            biased;
            ready = fd.readable() => ready?,
            changed = grace.changed(), if deadline.is_none() => match changed {
                Ok(()) => continue,
                Err(_) => break,
            },
            () = sleep_until(until), if deadline.is_some() => break,
        };
        if left == usize::MAX && deadline.is_some_and(|deadline| deadline < Instant::now()) {
            left = LAST_DRAIN;
        }
        match ready.try_io(|fd| stdio.fill(which, |room| read(fd.get_ref(), room))) {
            Ok(Ok(Filled::Bytes(n))) => {
                left = left.saturating_sub(n);
                if left == 0 {
                    break;
                }
            }
            Ok(Ok(Filled::Full)) => stdio.room(which).await,
            // A terminal whose last user is gone answers EIO.
            Ok(Ok(Filled::End) | Err(_)) => break,
            Err(_would_block) => {}
        }
    }
    stdio.finish(which);
    Ok(())
}

/// Writes the input queue to `fd` until it is done or nobody reads. A terminal stays open: its end of file is a character
/// that only the user types.
pub(crate) async fn input(
    stdio: Arc<Stdio>,
    fd: OwnedFd,
    terminal: bool,
    mut grace: Grace,
) -> io::Result<()> {
    let fd = register(fd, Interest::WRITABLE.add(Interest::ERROR))?;
    loop {
        let (front, done) = stdio.input();
        if let Some(bytes) = front {
            tokio::select! {
                ready = fd.writable() => match ready?.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), &bytes)?)) {
                    Ok(Ok(n)) => stdio.input_written(n),
                    Ok(Err(_)) => break,
                    Err(_would_block) => {}
                },
                _ = grace.changed() => break,
            }
        } else if done && !terminal {
            return Ok(());
        } else {
            tokio::select! {
                () = stdio.input_changed() => {}
                _ = fd.ready(Interest::ERROR), if !terminal => break,
                _ = grace.changed() => break,
            }
        }
    }
    stdio.close_input();
    Ok(())
}

fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
    // SAFETY: the descriptor is owned by the AsyncFd until it is dropped and never replaced or closed before.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(io::Error::from)
}

/// One read into the free part of `room`.
fn read(fd: &OwnedFd, room: &mut bytes::BytesMut) -> io::Result<usize> {
    let used = room.len();
    let n = loop {
        match rustix::io::read(fd, room.spare_capacity_mut()) {
            Ok((filled, _)) => break filled.len(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    // SAFETY: read(2) has just initialised `n` bytes behind the used ones.
    unsafe { room.set_len(used + n) };
    Ok(n)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _};

    use proto::sandbox::{StdioResponse, stdio_response::Kind};

    use super::*;
    use crate::process::stdio::{Session, Step};

    fn pipe() -> (OwnedFd, OwnedFd) {
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap()
    }

    async fn collect(stdio: &Stdio, session: &mut Session) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            match stdio.step(session) {
                Step::Send(StdioResponse { kind: Some(Kind::Output(chunk)) }) => {
                    all.extend_from_slice(&chunk.data);
                    stdio.acknowledge([all.len() as u64, 0]);
                    if chunk.eof {
                        return all;
                    }
                }
                Step::Idle => stdio.changed().await,
                _ => {}
            }
        }
    }

    #[tokio::test]
    async fn a_blocked_writer_goes_on_after_acks_and_nothing_is_lost() {
        let (reader, writer) = pipe();
        let stdio = Arc::new(Stdio::new(false, true, false, false));
        let (_exit, grace) = watch::channel(None);
        tokio::spawn(output(Arc::clone(&stdio), Output::Out, reader, grace));
        let data: Vec<u8> = (0..3_000_000_u32).map(|i| i as u8).collect();
        let copy = data.clone();
        let thread = std::thread::spawn(move || File::from(writer).write_all(&copy).unwrap());
        let (mut session, _) = stdio.open([0, 0]).unwrap();
        assert!(collect(&stdio, &mut session).await == data);
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn a_pipe_held_open_ends_after_the_grace_with_all_that_was_written() {
        let (reader, writer) = pipe();
        let mut held = File::from(writer);
        held.write_all(b"last words").unwrap();
        let stdio = Arc::new(Stdio::new(false, true, false, false));
        let (exit, grace) = watch::channel(None);
        exit.send_replace(Some(Duration::from_millis(1)));
        output(Arc::clone(&stdio), Output::Out, reader, grace).await.unwrap();
        let (mut session, _) = stdio.open([0, 0]).unwrap();
        assert_eq!(collect(&stdio, &mut session).await, b"last words");
    }

    #[tokio::test]
    async fn input_is_closed_when_the_reader_goes() {
        let (reader, writer) = pipe();
        let stdio = Arc::new(Stdio::new(true, false, false, false));
        let (_exit, grace) = watch::channel(None);
        let pump = tokio::spawn(input(Arc::clone(&stdio), writer, false, grace));
        stdio.push_input(0, "abc".into(), false).unwrap();
        drop(reader);
        pump.await.unwrap().unwrap();
        stdio.push_input(3, "dropped".into(), false).unwrap();
        assert_eq!(stdio.input(), (None, false));
    }
}
