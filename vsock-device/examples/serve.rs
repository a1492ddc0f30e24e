//! The device as a process of its own, with the command line of vhost-device-vsock: `--guest-cid N --socket PATH --uds-path
//! PATH`. For comparisons and for tests that start a device by hand.

use vsock_device::{Config, Device, End};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut config =
        Config { guest_cid: 3, vhost_socket: "vhost.sock".into(), hybrid_socket: "vsock.sock".into() };
    let mut args = std::env::args().skip(1);
    while let Some(option) = args.next() {
        let value = args.next().ok_or_else(|| format!("{option} needs a value"))?;
        match option.as_str() {
            "--guest-cid" => config.guest_cid = value.parse()?,
            "--socket" => config.vhost_socket = value.into(),
            "--uds-path" => config.hybrid_socket = value.into(),
            _ => return Err(format!("unknown option {option}").into()),
        }
    }
    match Device::start(&config)?.wait() {
        End::Failed(why) => Err(why.into()),
        End::Disconnected | End::Stopped => Ok(()),
    }
}
