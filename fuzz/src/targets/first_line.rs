//! The line by which a host program names a guest's port.

use vsock_device::fuzzing::first_line;

use crate::Reach;

pub(super) fn target(data: &[u8]) -> Reach {
    let port = first_line(data);
    if let Some(port) = port {
        assert_eq!(first_line(format!("CONNECT {port}\n").as_bytes()), Some(port));
    }
    Reach::of(data.starts_with(b"CONNECT "), port.is_some())
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    vec![b"CONNECT 5555\nPRI * HTTP/2.0".to_vec(), b"CONNECT 4294967295\r\n".to_vec()]
}
