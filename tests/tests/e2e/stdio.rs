//! Bytes in, bytes out: nothing lost, nothing made up.

use std::{io::Read, process::Stdio, time::Duration};

use crate::support::{Container, docker, sh};

fn noise(len: usize) -> Vec<u8> {
    // xorshift: incompressible enough and the same every time.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[test]
fn three_megabytes_there_and_back() {
    let data = noise(3_000_000);
    let out =
        docker().run_with(&["run", "--rm", "-i", "busybox", "cat"], data.clone(), Duration::from_secs(120));
    assert_eq!(out.code, 0, "{}", out.stderr);
    assert!(out.raw == data, "{} bytes came back", out.raw.len());
}

#[test]
fn end_of_input_reaches_the_process() {
    let args = ["run", "--rm", "-i", "busybox", "sh", "-c", "wc -c; echo after"];
    let out = docker().run_with(&args, noise(100_000), Duration::from_secs(60));
    assert_eq!(out.ok(), "100000\nafter");
}

#[test]
fn without_i_there_is_no_input() {
    assert_eq!(sh("", "wc -c").ok(), "0");
}

#[test]
fn a_hundred_megabytes_out() {
    // yes(1) repeats one line: the sum of the whole is known.
    let script = "yes 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde | head -c 104857600";
    let mut child = docker().spawn(&["run", "--rm", "busybox", "sh", "-c", script]).unwrap();
    drop(child.stdin.take());
    let mut out = child.stdout.take().unwrap();
    let (mut total, mut chunk) = (0_u64, vec![0; 1 << 20]);
    let line = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n";
    loop {
        let n = out.read(&mut chunk).unwrap();
        if n == 0 {
            break;
        }
        for (i, byte) in chunk[..n].iter().enumerate() {
            let at = total + i as u64;
            assert!(*byte == line[usize::try_from(at % 64).unwrap()], "wrong byte at {at}");
        }
        total += n as u64;
    }
    assert_eq!(total, 104_857_600);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_reader_that_leaves_hurts_nobody() {
    let container = Container::named("leaves");
    let mut child = docker()
        .command(&["run", "--name", &container.name, "busybox", "sh", "-c", "echo first; sleep 2; echo last"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut first = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(container.wait(), "0");
    assert_eq!(container.logs().ok(), "first\nlast");
}

#[test]
fn attach_sees_what_comes() {
    let container = Container::named("attach");
    docker().run(&["create", "-i", "--name", &container.name, "busybox", "sh", "-c", "cat; echo end"]).ok();
    let args = ["start", "-a", "-i", &container.name];
    let out = docker().run_with(&args, b"word\n".to_vec(), Duration::from_secs(60));
    assert_eq!(out.ok(), "word\nend");
}

#[test]
fn binary_output_is_left_alone() {
    let out = sh("", r"printf '\000\001\377\r\n\012'");
    assert_eq!(out.raw, [0, 1, 255, b'\r', b'\n', b'\n']);
}
