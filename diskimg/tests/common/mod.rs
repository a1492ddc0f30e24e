//! Shared by the tests: archives made in memory, and a reader of EROFS images written from the format's
//! description alone, so that writer and reader do not share mistakes.

#![allow(dead_code, reason = "each test program uses a part")]

pub(crate) mod archive;
pub(crate) mod image;

use std::fs::File;
use std::io::Read;

use diskimg::{Error, LayerDisk, Options, Summary};

/// Writes `layers` into an image and opens it.
pub(crate) fn build(layers: &[Vec<u8>], options: Options) -> Result<(image::Image, Summary), Error> {
    let file = tempfile::tempfile().expect("temporary file");
    let mut disk = LayerDisk::create(file.try_clone().expect("dup"), options)?;
    for layer in layers {
        disk.apply(&layer[..])?;
    }
    let summary = disk.finish()?;
    assert_eq!(file.metadata().expect("stat").len(), summary.bytes);
    Ok((image::Image::new(read_all(file)), summary))
}

fn read_all(mut file: File) -> Vec<u8> {
    use std::io::Seek;
    file.rewind().expect("rewind");
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).expect("read");
    bytes
}
