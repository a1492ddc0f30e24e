//! `tar2erofs IN.tar... OUT`: merges layer archives, lowest first, into one EROFS image. `--upper` before them
//! writes a disk for stacking, with overlayfs whiteouts.

#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::error::Error;
use std::fs::File;
use std::io::BufReader;
use std::time::Instant;

use diskimg::{LayerDisk, Options};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let upper = args.first().is_some_and(|arg| arg == "--upper");
    if upper {
        args.remove(0);
    }
    let Some(out) = args.pop().filter(|_| !args.is_empty()) else {
        return Err("usage: tar2erofs [--upper] IN.tar... OUT".into());
    };
    let options = if upper { Options::upper() } else { Options::bottom() };
    let start = Instant::now();
    let mut disk = LayerDisk::create(File::create(&out)?, options)?;
    for layer in &args {
        println!("{layer}: {:?}", disk.apply(BufReader::with_capacity(1 << 20, File::open(layer)?))?);
    }
    println!("{out}: {:?} in {:?}", disk.finish()?, start.elapsed());
    Ok(())
}
