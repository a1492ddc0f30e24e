//! A terminal with a program in it: what a person at a keyboard sees and does.

use std::{
    io::{Read, Write},
    process::Command,
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

/// A program on a pseudo-terminal.
pub struct Terminal {
    master: Box<dyn MasterPty + Send>,
    keyboard: Box<dyn Write + Send>,
    screen: Receiver<Vec<u8>>,
    seen: String,
    child: Box<dyn Child + Send + Sync>,
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminal").field("seen", &self.seen).finish_non_exhaustive()
    }
}

fn size(rows: u16, cols: u16) -> PtySize {
    PtySize { rows, cols, pixel_width: 0, pixel_height: 0 }
}

impl Terminal {
    /// Runs a command on a terminal of this size.
    ///
    /// # Errors
    /// When no terminal can be had or the program cannot be run.
    pub fn start(command: &Command, rows: u16, cols: u16) -> Result<Self> {
        let pair = native_pty_system().openpty(size(rows, cols))?;
        let mut builder = CommandBuilder::new(command.get_program());
        builder.args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => builder.env(key, value),
                None => builder.env_remove(key),
            }
        }
        let child = pair.slave.spawn_command(builder)?;
        drop(pair.slave);
        let mut reader = pair.master.try_clone_reader()?;
        let (send, screen) = channel();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut chunk) {
                if send.send(chunk[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        let keyboard = pair.master.take_writer()?;
        Ok(Self { master: pair.master, keyboard, screen, seen: String::new(), child })
    }

    /// Types.
    ///
    /// # Errors
    /// When the program has gone.
    pub fn type_keys(&mut self, keys: &str) -> Result<()> {
        self.keyboard.write_all(keys.as_bytes())?;
        Ok(self.keyboard.flush()?)
    }

    /// Changes the size of the window.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn resize(&self, rows: u16, cols: u16) -> Result<()> {
        self.master.resize(size(rows, cols))
    }

    /// Waits until `needle` shows behind what was waited for before, and forgets everything up to it.
    ///
    /// # Errors
    /// When it does not show within `limit`, with what did.
    pub fn wait_for(&mut self, needle: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(at) = self.seen.find(needle) {
                self.seen.drain(..at + needle.len());
                return Ok(());
            }
            match self.screen.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(chunk) => self.seen.push_str(&String::from_utf8_lossy(&chunk)),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("no {needle:?} within {limit:?}; on screen: {:?}", self.seen)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("ended without {needle:?}; on screen: {:?}", self.seen)
                }
            }
        }
    }

    /// Waits for the program's end; its exit code.
    ///
    /// # Errors
    /// When it does not end within `limit`.
    pub fn exit_code(&mut self, limit: Duration) -> Result<u32> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().context("wait")? {
                return Ok(status.exit_code());
            }
            if Instant::now() > deadline {
                self.child.kill()?;
                bail!("still running after {limit:?}; on screen: {:?}", self.seen);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
