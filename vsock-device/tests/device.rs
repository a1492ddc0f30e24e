//! The device from outside, without a VM.
#![cfg(target_os = "linux")]

use std::{
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
};

use vsock_device::{Config, Device, End, Error};

fn config(folder: &Path) -> Config {
    Config { guest_cid: 3, vhost_socket: folder.join("vhost"), hybrid_socket: folder.join("hybrid") }
}

#[test]
fn clients_of_a_guest_that_does_not_run_yet_see_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::start(&config(folder.path())).unwrap();
    for name in ["vhost", "hybrid"] {
        assert_eq!(std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    for _ in 0..300 {
        let mut client = UnixStream::connect(folder.path().join("hybrid")).unwrap();
        client.write_all(b"CONNECT 5555\n").unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"");
    }
    assert_eq!(device.has_ended(), None);
    assert_eq!(device.stop(), End::Stopped);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the sockets' files are gone");
}

#[test]
fn ends_when_qemu_goes() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let device = Device::start(&config).unwrap();
    drop(UnixStream::connect(&config.vhost_socket).unwrap());
    assert_eq!(device.wait(), End::Disconnected);
    assert!(UnixStream::connect(&config.hybrid_socket).is_err());
}

#[test]
fn what_is_no_vhost_user_ends_it_in_an_orderly_way() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let device = Device::start(&config).unwrap();
    let mut frontend = UnixStream::connect(&config.vhost_socket).unwrap();
    frontend.write_all(&[0xff; 64]).unwrap();
    assert!(matches!(device.wait(), End::Failed(_) | End::Disconnected));
}

#[test]
fn can_be_stopped_while_qemu_is_connected_and_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let device = Device::start(&config).unwrap();
    let mut frontend = UnixStream::connect(&config.vhost_socket).unwrap();
    drop(device);
    assert_eq!(frontend.read(&mut [0]).unwrap(), 0);
}

#[test]
fn what_cannot_be_started_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let good = config(folder.path());
    let missing = Config { vhost_socket: folder.path().join("no/such/folder"), ..good.clone() };
    assert!(matches!(Device::start(&missing), Err(Error::Bind { path, .. }) if path == missing.vhost_socket));
    for guest_cid in [0, 2, u64::from(u32::MAX)] {
        assert!(matches!(Device::start(&Config { guest_cid, ..good.clone() }), Err(Error::GuestCid(_))));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
