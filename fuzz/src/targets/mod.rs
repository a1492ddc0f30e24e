//! The targets. Each module has `target`, the function that is fed, and `seeds`.

use crate::Target;

mod account;
mod archive;
mod compressed;
mod config_json;
mod first_line;
mod frame;
mod guest_answer;
mod http_body;
mod http_query;
mod image_config;
mod layer;
mod log_file;
mod manifest;
mod message;
mod process_output;
mod process_table;
mod reference;
mod runner_file;
mod seccomp;
mod stdio;
mod store_record;
mod unpack;
mod vsock;

/// Builds the list from module names.
macro_rules! targets {
    ($($module:ident $(words $words:expr)? $(, json $json:expr)? $(, repair $repair:expr)?;)*) => {
        /// All targets.
        pub const ALL: &[Target] = &[$(targets!(@one $module ($($words)?) ($($json)?) ($($repair)?))),*];
    };
    (@one $module:ident ($($words:expr)?) ($($json:expr)?) ($($repair:expr)?)) => {
        Target {
            name: stringify!($module),
            run: $module::target,
            seeds: $module::seeds,
            words: targets!(@or $($words)?),
            json: targets!(@some $($json)?),
            repair: targets!(@some $($repair)?),
        }
    };
    (@or) => { &[] };
    (@or $words:expr) => { $words };
    (@some) => { None };
    (@some $repair:expr) => { Some($repair) };
}

targets! {
    account words account::WORDS;
    archive words archive::WORDS, repair crate::targets::layer::repair;
    compressed;
    config_json words config_json::WORDS, json 0;
    first_line words &["CONNECT ", "\r\n"];
    frame;
    guest_answer;
    http_body words http_body::WORDS, json 1;
    http_query words http_query::WORDS;
    image_config words image_config::WORDS, json 0;
    layer words layer::WORDS, repair layer::repair;
    log_file words &["{\"log\":\"", "\",\"stream\":\"stdout\",\"time\":\"2026-01-02T03:04:05.000000006Z\"}\n", "\\u", "\n"];
    manifest words manifest::WORDS, json 0;
    message;
    process_output words &["\n", "\r\n"];
    process_table words &["\n", "max", " ", "usage_usec "];
    reference words &["docker.io/", "library/", ":", "@sha256:", "localhost", "..", "[::1]", "index."];
    runner_file words runner_file::WORDS, json 1;
    seccomp words seccomp::WORDS, json 1;
    stdio;
    store_record words store_record::WORDS, json 0;
    unpack words layer::WORDS, repair layer::repair;
    vsock;
}

/// Splits the first byte off: the choice a target makes for an input.
fn choice(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (*first, rest))
}

/// Splits text at its first newline.
fn line(data: &[u8]) -> (&[u8], &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (line, rest) = data.split_at(at);
    (line, rest.get(1..).unwrap_or_default())
}

/// A runtime for targets of asynchronous functions, one for each thread.
#[allow(clippy::panic, reason = "a target without a runtime is of no use")]
fn runtime() -> std::rc::Rc<tokio::runtime::Runtime> {
    thread_local! {
        static RUNTIME: std::rc::Rc<tokio::runtime::Runtime> = std::rc::Rc::new(
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap_or_else(|error| panic!("{error}"))
        );
    }
    RUNTIME.with(std::rc::Rc::clone)
}

/// Hexadecimal SHA-256.
fn digest(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
