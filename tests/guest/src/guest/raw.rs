//! Guests that speak no gRPC.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener, VsockStream};

/// An HTTP/2 frame (RFC 9113).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// What each connection gets, for ever.
fn flood(mode: &str) -> Vec<u8> {
    match mode {
        "garbage" => (0..65_536u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect(),
        "settings" => frame(4, 0, 0, &[]).repeat(1000),
        "ping" => frame(6, 0, 0, &[7; 8]).repeat(1000),
        // Headers without an end.
        "continuation" => frame(9, 0, 1, &[0x40, 1, b'a', 1, b'b'].repeat(1000)).repeat(20),
        // Answers to requests that nobody made, and pushes.
        "headers" => [frame(1, 4, 1, &[0x88]), frame(5, 4, 1, &[0, 0, 0, 2, 0x82]), frame(1, 5, 1, &[0x88])]
            .concat()
            .repeat(500),
        // A message of four gigabytes on the first stream.
        "giant" => frame(0, 0, 1, &[[0, 0xff, 0xff, 0xff, 0xff].as_slice(), &[1; 16_000]].concat()),
        "reset" => [frame(3, 0, 1, &[0, 0, 0, 8]), frame(7, 0, 0, &[0; 8])].concat(),
        other => panic!("unknown mode {other}"),
    }
}

pub(crate) async fn serve(mode: &str) {
    let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, 5555)).unwrap();
    let mut silent = Vec::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        match mode {
            "silent" => silent.push(stream),
            "closes" => drop(stream),
            mode => {
                let mode = mode.to_owned();
                tokio::spawn(async move {
                    let _ = feed(stream, &mode).await;
                });
            }
        }
    }
}

async fn feed(stream: VsockStream, mode: &str) -> std::io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    tokio::spawn(async move {
        let mut room = vec![0; 65_536];
        while reader.read(&mut room).await.is_ok_and(|n| n > 0) {}
    });
    if mode != "garbage" {
        writer.write_all(&frame(4, 0, 0, &[])).await?;
    }
    match mode {
        "continuation" => writer.write_all(&frame(1, 0, 1, &[0x88])).await?,
        "giant" => {
            // :status 200 and content-type: application/grpc, so that the data counts.
            let mut headers = vec![0x88, 0x5f, 16];
            headers.extend(b"application/grpc");
            writer.write_all(&frame(1, 4, 1, &headers)).await?;
        }
        _ => {}
    }
    let flood = flood(mode);
    loop {
        writer.write_all(&flood).await?;
    }
}

/// Connects to everything at the host, and lets go at once.
pub(crate) async fn dial_the_host() {
    let mut port = 0u32;
    loop {
        let mut tries = Vec::new();
        for _ in 0..64 {
            port = port.wrapping_add(1) % 70_000;
            tries.push(tokio::spawn(VsockStream::connect(VsockAddr::new(2, port))));
        }
        for attempt in tries {
            if let Ok(Ok(_)) = attempt.await {
                super::console("the host listens\n");
            }
        }
    }
}
