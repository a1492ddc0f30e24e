//! A server that sends exactly what it is told, byte for byte, and notes what it was asked.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test uses a part of it")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// One thing to do with a connection.
#[derive(Clone)]
pub enum Step {
    Send(Vec<u8>),
    /// The same bytes for ever.
    Endless(Vec<u8>),
    /// One byte after another, at this distance.
    Drip(Vec<u8>, Duration),
    /// Nothing more, the connection stays open.
    Stall,
}

/// A request: path, and headers in lower case.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub head: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The first byte asked for.
    pub fn from(&self) -> usize {
        let range = self.header("range").and_then(|r| r.strip_prefix("bytes="));
        range.and_then(|r| r.trim_end_matches('-').parse().ok()).unwrap_or(0)
    }
}

pub struct Raw {
    pub host: String,
    pub asked: Arc<Mutex<Vec<Asked>>>,
    /// Bytes that the system took from us.
    pub sent: Arc<AtomicUsize>,
    /// Connections that are open.
    pub open: Arc<AtomicUsize>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A whole answer.
pub fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<Step> {
    let head =
        format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    vec![Step::Send([head.as_bytes(), body].concat())]
}

impl Raw {
    pub async fn start(script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (asked, sent, open) = (
            Arc::<Mutex<Vec<Asked>>>::default(),
            Arc::<AtomicUsize>::default(),
            Arc::<AtomicUsize>::default(),
        );
        let (notes, count, connections) = (Arc::clone(&asked), Arc::clone(&sent), Arc::clone(&open));
        let script = Arc::new(script);
        let server = tokio::spawn(async move {
            let mut tasks = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (script, notes) = (Arc::clone(&script), Arc::clone(&notes));
                let (count, connections) = (Arc::clone(&count), Arc::clone(&connections));
                tasks.spawn(async move {
                    connections.fetch_add(1, Ordering::SeqCst);
                    serve(stream, &*script, &notes, &count).await;
                    connections.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { host, asked, sent, open, server }
    }

    pub fn requests(&self, path: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| asked.path.starts_with(path)).count()
    }
}

async fn serve(
    mut stream: tokio::net::TcpStream,
    script: &(dyn Fn(&Asked) -> Vec<Step> + Send + Sync),
    notes: &Mutex<Vec<Asked>>,
    count: &AtomicUsize,
) {
    let mut buffer = Vec::new();
    let head = loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break String::from_utf8_lossy(&buffer[..end]).into_owned();
        }
        match stream.read_buf(&mut buffer).await {
            Ok(1..) => {}
            _ => return,
        }
    };
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let asked = Asked { method: method.to_owned(), path: path.to_owned(), head };
    notes.lock().unwrap().push(asked.clone());
    let (mut reader, mut writer) = stream.split();
    let work = async {
        for step in script(&asked) {
            let gone = match step {
                Step::Send(bytes) => {
                    count.fetch_add(bytes.len(), Ordering::SeqCst);
                    writer.write_all(&bytes).await.is_err()
                }
                Step::Endless(bytes) => loop {
                    if writer.write_all(&bytes).await.is_err() {
                        break true;
                    }
                    count.fetch_add(bytes.len(), Ordering::SeqCst);
                },
                Step::Drip(bytes, every) => {
                    for byte in bytes {
                        tokio::time::sleep(every).await;
                        if writer.write_all(&[byte]).await.is_err() {
                            return;
                        }
                    }
                    false
                }
                Step::Stall => std::future::pending().await,
            };
            if gone {
                return;
            }
        }
        // One request for each connection: the end is the end of the answer.
        let _ = writer.shutdown().await;
    };
    let hung_up = async {
        let mut rest = [0; 64];
        while matches!(reader.read(&mut rest).await, Ok(1..)) {}
    };
    tokio::select! {
        () = work => {}
        () = hung_up => {}
    }
}
