//! First line of a host client: `CONNECT <port>\n`, answered by `OK <port of the host>\n` (the convention of Firecracker and
//! Cloud Hypervisor).

/// Longest line, with its newline.
const MAX_LINE: usize = 32;

/// What a line is after one more byte.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Not complete.
    Partial,
    /// The client asks for this port of the guest.
    Connect(u32),
    /// No request, nor will it become one.
    Invalid,
}

/// A line that comes in pieces.
#[derive(Debug, Default)]
pub(crate) struct LineParser {
    bytes: [u8; MAX_LINE],
    len: usize,
}

impl LineParser {
    /// Takes the next byte. Nothing behind the newline may be given: it belongs to the stream.
    pub(crate) fn push(&mut self, byte: u8) -> Line {
        if byte == b'\n' {
            return match parse(&self.bytes[..self.len]) {
                Some(port) => Line::Connect(port),
                None => Line::Invalid,
            };
        }
        // One place is the newline's.
        if self.len + 1 >= MAX_LINE {
            return Line::Invalid;
        }
        self.bytes[self.len] = byte;
        self.len += 1;
        Line::Partial
    }
}

fn parse(line: &[u8]) -> Option<u32> {
    let line = std::str::from_utf8(line).ok()?;
    let digits = line.strip_suffix('\r').unwrap_or(line).strip_prefix("CONNECT ")?;
    // `parse` alone would take a sign.
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// The answer to a client whose connection is open.
pub(crate) fn answer(host_port: u32) -> String {
    format!("OK {host_port}\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn feed(text: &[u8]) -> (Line, usize) {
        let mut parser = LineParser::default();
        for (index, byte) in text.iter().enumerate() {
            match parser.push(*byte) {
                Line::Partial => {}
                end => return (end, index + 1),
            }
        }
        (Line::Partial, text.len())
    }

    #[test]
    fn a_request_ends_at_its_newline() {
        assert_eq!(feed(b"CONNECT 5555\nPRI * HTTP/2.0"), (Line::Connect(5555), 13));
        assert_eq!(feed(b"CONNECT 4294967295\r\n"), (Line::Connect(u32::MAX), 20));
        assert_eq!(feed(b"CONNECT 55"), (Line::Partial, 10));
    }

    #[test]
    fn anything_else_is_invalid() {
        for text in [
            "\n",
            "CONNECT \n",
            "CONNECT +5\n",
            "CONNECT -1\n",
            "CONNECT 4294967296\n",
            "connect 5\n",
            "CONNECT  5\n",
        ] {
            assert_eq!(feed(text.as_bytes()).0, Line::Invalid, "{text:?}");
        }
        assert_eq!(feed(&[b'x'; 100]), (Line::Invalid, MAX_LINE));
        assert_eq!(feed(b"CONNECT \xff\n").0, Line::Invalid);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes: Vec<u8>) {
            let (_, taken) = feed(&bytes);
            prop_assert!(taken <= MAX_LINE);
        }

        #[test]
        fn every_port_is_understood(port: u32) {
            prop_assert_eq!(feed(format!("CONNECT {port}\n").as_bytes()).0, Line::Connect(port));
        }
    }
}
