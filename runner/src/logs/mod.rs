//! The json-file log: docker's format, written by runners, read by the daemon.
//!
//! One JSON object a line: `{"log":"text\n","stream":"stdout","time":"..."}`. A line of output longer than 16 KiB, or one
//! without a newline at the end of the stream, becomes entries without a newline in `log`. With a size limit the file is
//! renamed to `.1`, that to `.2` and so on; with one file only it is truncated.

mod entry;
mod files;
mod follow;
mod lines;
mod reader;
mod sink;
mod writer;

pub use entry::{Entry, LogStream};
pub use reader::{Query, read};
pub(crate) use sink::LogSink;
pub(crate) use writer::LogWriter;

#[cfg(test)]
mod tests;
