//! What fuzz targets feed: everything that parses bytes from outside, without a store around it. Each function
//! takes whatever it is given and answers whether that was taken; the only finding is a panic, a hang or too much memory.

use std::{io::Read, path::Path};

use crate::{
    compression::decompress,
    load,
    manifest::{ACCEPT, Manifest, Platform},
    pull,
    reference::Reference,
};

/// A manifest or index, under every media type.
pub fn manifest(bytes: &[u8]) -> bool {
    let mut taken = false;
    for content_type in ACCEPT.into_iter().chain([""]) {
        match Manifest::parse(bytes, content_type) {
            Ok(Manifest::Image { config, layers }) => {
                taken = true;
                for descriptor in layers.iter().chain([&config]) {
                    let _ = descriptor.digest();
                }
            }
            Ok(Manifest::Index(entries)) => {
                taken = true;
                let _ = Platform::host().choose(&entries);
            }
            Err(_) => {}
        }
    }
    taken
}

/// An image configuration.
pub fn config(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| pull::diff_ids(text, 1).is_ok())
}

/// An uncompressed archive as `docker load` gets it, spooled to a file in `dir`.
pub fn archive(bytes: &[u8], dir: &Path) -> bool {
    let Ok(mut file) = tempfile::NamedTempFile::new_in(dir) else { return false };
    std::io::Write::write_all(&mut file, bytes).is_ok() && load::parse(file).is_ok()
}

/// A compressed stream; reads at most 16 MiB of what comes out.
pub fn compressed(bytes: &[u8]) -> bool {
    decompress(bytes).is_ok_and(|out| std::io::copy(&mut out.take(16 << 20), &mut std::io::sink()).is_ok())
}

/// An image name or ID; a name that is taken must be the same after writing it out.
pub fn reference(text: &str) -> bool {
    let _ = Platform::parse(text);
    let reference = text.parse::<Reference>();
    if let Ok(reference) = &reference {
        let again = reference.to_string().parse::<Reference>();
        assert!(again.is_ok_and(|again| again == *reference), "{text:?} does not survive being written");
    }
    reference.is_ok()
}
