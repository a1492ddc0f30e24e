//! Header of a vsock packet (virtio 1.2, 5.10.6). Decoding never fails: what the fields mean is judged later.

/// Bytes of a header.
pub(crate) const HEADER_LEN: usize = 44;
/// Context id of the host (virtio 1.2, 5.10.4).
pub(crate) const HOST_CID: u64 = 2;
/// `type` of a stream socket's packet.
pub(crate) const TYPE_STREAM: u16 = 1;
/// SHUTDOWN: the sender of the packet will receive no more.
pub(crate) const SHUTDOWN_RECEIVE: u32 = 1;
/// SHUTDOWN: the sender of the packet will send no more.
pub(crate) const SHUTDOWN_SEND: u32 = 2;

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Request,
    Response,
    Reset,
    Shutdown,
    Data,
    CreditUpdate,
    CreditRequest,
}

impl Op {
    pub(crate) fn from_wire(value: u16) -> Option<Self> {
        Some(match value {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::Data,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }

    pub(crate) fn to_wire(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Reset => 3,
            Self::Shutdown => 4,
            Self::Data => 5,
            Self::CreditUpdate => 6,
            Self::CreditRequest => 7,
        }
    }
}

/// `struct virtio_vsock_hdr`, little-endian on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub src_cid: u64,
    pub dst_cid: u64,
    pub src_port: u32,
    pub dst_port: u32,
    /// Bytes of payload.
    pub len: u32,
    /// Kind of socket.
    pub kind: u16,
    pub op: u16,
    pub flags: u32,
    /// The sender's whole receive buffer for this connection, bytes.
    pub buf_alloc: u32,
    /// Bytes the sender has taken out of that buffer, modulo 2^32.
    pub fwd_cnt: u32,
}

impl Header {
    /// A packet from the host to the guest.
    pub(crate) fn to_guest(guest_cid: u64, host_port: u32, guest_port: u32, op: Op) -> Self {
        Self {
            src_cid: HOST_CID,
            dst_cid: guest_cid,
            src_port: host_port,
            dst_port: guest_port,
            kind: TYPE_STREAM,
            op: op.to_wire(),
            ..Self::default()
        }
    }

    pub(crate) fn op(&self) -> Option<Op> {
        Op::from_wire(self.op)
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_LEN]) -> Self {
        let mut at = 0;
        Self {
            src_cid: u64::from_le_bytes(take(bytes, &mut at)),
            dst_cid: u64::from_le_bytes(take(bytes, &mut at)),
            src_port: u32::from_le_bytes(take(bytes, &mut at)),
            dst_port: u32::from_le_bytes(take(bytes, &mut at)),
            len: u32::from_le_bytes(take(bytes, &mut at)),
            kind: u16::from_le_bytes(take(bytes, &mut at)),
            op: u16::from_le_bytes(take(bytes, &mut at)),
            flags: u32::from_le_bytes(take(bytes, &mut at)),
            buf_alloc: u32::from_le_bytes(take(bytes, &mut at)),
            fwd_cnt: u32::from_le_bytes(take(bytes, &mut at)),
        }
    }

    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut at = 0;
        put(&mut bytes, &mut at, &self.src_cid.to_le_bytes());
        put(&mut bytes, &mut at, &self.dst_cid.to_le_bytes());
        put(&mut bytes, &mut at, &self.src_port.to_le_bytes());
        put(&mut bytes, &mut at, &self.dst_port.to_le_bytes());
        put(&mut bytes, &mut at, &self.len.to_le_bytes());
        put(&mut bytes, &mut at, &self.kind.to_le_bytes());
        put(&mut bytes, &mut at, &self.op.to_le_bytes());
        put(&mut bytes, &mut at, &self.flags.to_le_bytes());
        put(&mut bytes, &mut at, &self.buf_alloc.to_le_bytes());
        put(&mut bytes, &mut at, &self.fwd_cnt.to_le_bytes());
        bytes
    }
}

fn take<const N: usize>(bytes: &[u8; HEADER_LEN], at: &mut usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[*at..*at + N]);
    *at += N;
    field
}

fn put(bytes: &mut [u8; HEADER_LEN], at: &mut usize, field: &[u8]) {
    bytes[*at..*at + field.len()].copy_from_slice(field);
    *at += field.len();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_stand_where_the_specification_puts_them() {
        let mut header = Header::to_guest(3, 0x4000_0001, 5555, Op::Data);
        (header.len, header.flags, header.buf_alloc, header.fwd_cnt) = (7, 8, 9, 10);
        let bytes = header.encode();
        assert_eq!(bytes[0..16], [2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[16..24], [1, 0, 0, 0x40, 0xb3, 0x15, 0, 0]);
        assert_eq!(bytes[24..32], [7, 0, 0, 0, 1, 0, 5, 0]);
        assert_eq!(bytes[32..44], [8, 0, 0, 0, 9, 0, 0, 0, 10, 0, 0, 0]);
    }

    #[test]
    fn operations_are_numbered_from_one() {
        let known: Vec<_> = (0..=u16::MAX).filter_map(Op::from_wire).map(Op::to_wire).collect();
        assert_eq!(known, [1, 2, 3, 4, 5, 6, 7]);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_and_encode_to_the_same(bytes: [u8; HEADER_LEN]) {
            prop_assert_eq!(Header::decode(&bytes).encode(), bytes);
        }
    }
}
