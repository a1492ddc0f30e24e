//! What QEMU tells over the vhost-user socket: the guest's memory, and where its rings are.

use std::{fs::File, io, os::fd::AsRawFd, sync::Arc};

use rustix::fs::{OFlags, SealFlags, fcntl_get_seals, fcntl_getfl, fcntl_setfl};
use vhost::vhost_user::{
    Error as VhostError, GpuBackend, Result as VhostResult, VhostUserBackendReqHandlerMut,
    message::{
        VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
        VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserSharedMsg,
        VhostUserSingleMemoryRegion, VhostUserVirtioFeatures, VhostUserVringAddrFlags, VhostUserVringState,
    },
};
use virtio_queue::QueueT;
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::queue::Ring;

/// Receive, transmit, and the event queue, which QEMU serves itself.
const QUEUES: usize = 3;
/// More than QEMU's 128.
const MAX_QUEUE_SIZE: u16 = 1024;
/// `VIRTIO_F_VERSION_1`.
const VERSION_1: u64 = 1 << 32;
/// `VIRTIO_RING_F_EVENT_IDX`.
const EVENT_IDX: u64 = 1 << 29;

/// No machine has memory beyond: rings near the end of 64 bits would make sums overflow.
const MAX_ADDRESS: u64 = 1 << 52;

/// Where a region of the guest's memory is in QEMU's own address space, in which it names rings.
#[derive(Debug)]
struct Mapping {
    qemu: u64,
    guest: u64,
    size: u64,
}

/// The device's state that QEMU sets.
#[derive(Debug)]
pub(crate) struct Backend {
    guest_cid: u64,
    epoll: Arc<Epoll>,
    /// Token of the first ring's kick; the others follow.
    kick_token: u64,
    features: u64,
    memory: Option<GuestMemoryMmap>,
    mappings: Vec<Mapping>,
    rings: [Ring; QUEUES],
    /// A ring starts anew: the guest knows of no connection.
    restarted: bool,
}

impl Backend {
    pub(crate) fn new(guest_cid: u64, epoll: Arc<Epoll>, kick_token: u64) -> io::Result<Self> {
        let ring = || Ring::new(MAX_QUEUE_SIZE).map_err(io::Error::other);
        Ok(Self {
            guest_cid,
            epoll,
            kick_token,
            features: 0,
            memory: None,
            mappings: Vec::new(),
            rings: [ring()?, ring()?, ring()?],
            restarted: false,
        })
    }

    /// Memory, receive ring and transmit ring, if the driver runs.
    pub(crate) fn running(&mut self) -> Option<(&GuestMemoryMmap, &mut Ring, &mut Ring)> {
        let [receive, transmit, _] = &mut self.rings;
        match &self.memory {
            Some(memory) if receive.usable() && transmit.usable() => Some((memory, receive, transmit)),
            _ => None,
        }
    }

    /// The driver broke its rings: they are not touched until it sets them up anew.
    pub(crate) fn give_up(&mut self) {
        for ring in &mut self.rings {
            ring.broken = true;
        }
    }

    /// Whether the driver has started anew since the last question.
    pub(crate) fn take_restarted(&mut self) -> bool {
        std::mem::take(&mut self.restarted)
    }

    fn ring(&mut self, index: u32) -> VhostResult<&mut Ring> {
        self.rings.get_mut(index as usize).ok_or(VhostError::InvalidParam)
    }

    fn guest_address(&self, qemu: u64) -> VhostResult<u64> {
        self.mappings
            .iter()
            .find_map(|mapping| {
                let offset = qemu.checked_sub(mapping.qemu)?;
                (offset < mapping.size).then(|| mapping.guest.checked_add(offset))?
            })
            .ok_or(VhostError::InvalidParam)
    }

    /// Stops listening for a ring's kick. Closing it would not do: QEMU holds the same open file.
    fn forget_kick(&mut self, index: u32) {
        if let Some(kick) = self.rings.get_mut(index as usize).and_then(|ring| ring.kick.take()) {
            let _ = self.epoll.ctl(ControlOperation::Delete, kick.as_raw_fd(), EpollEvent::default());
        }
    }
}

fn other<E: Into<Box<dyn std::error::Error + Send + Sync>>>(error: E) -> VhostError {
    VhostError::ReqHandlerError(io::Error::other(error))
}

/// Memory that could shrink under us would end this process with SIGBUS: QEMU's `memory-backend-memfd` seals its size, and
/// nothing else is taken.
fn check_region(region: &VhostUserMemoryRegion, file: &File) -> VhostResult<()> {
    let end = |at: u64| at.checked_add(region.memory_size).ok_or(VhostError::InvalidParam);
    let sealed = fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
    let size = file.metadata().map_err(VhostError::ReqHandlerError)?.len();
    let (inside, last) = (end(region.mmap_offset)? <= size, end(region.guest_phys_addr)?);
    if sealed && inside && last <= MAX_ADDRESS { Ok(()) } else { Err(VhostError::InvalidParam) }
}

const UNSUPPORTED: VhostError = VhostError::InvalidOperation("not supported by the vsock device");

impl VhostUserBackendReqHandlerMut for Backend {
    fn set_owner(&mut self) -> VhostResult<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> VhostResult<()> {
        Ok(())
    }

    fn reset_device(&mut self) -> VhostResult<()> {
        for ring in &mut self.rings {
            ring.enabled = false;
        }
        self.restarted = true;
        Ok(())
    }

    fn get_features(&mut self) -> VhostResult<u64> {
        Ok(VERSION_1 | EVENT_IDX | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits())
    }

    fn set_features(&mut self, features: u64) -> VhostResult<()> {
        self.features = features;
        for ring in &mut self.rings {
            ring.queue.set_event_idx(features & EVENT_IDX != 0);
            // Without protocol features there is no message to enable a ring.
            ring.enabled |= features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0;
        }
        Ok(())
    }

    fn set_mem_table(&mut self, regions: &[VhostUserMemoryRegion], files: Vec<File>) -> VhostResult<()> {
        let mut mapped = Vec::new();
        let mut mappings = Vec::new();
        for (region, file) in regions.iter().zip(files) {
            check_region(region, &file)?;
            let memory = region.mmap_region(file)?;
            mapped.push(GuestRegionMmap::new(memory, GuestAddress(region.guest_phys_addr)).map_err(other)?);
            let (qemu, guest, size) = (region.user_addr, region.guest_phys_addr, region.memory_size);
            mappings.push(Mapping { qemu, guest, size });
        }
        self.memory = Some(GuestMemoryMmap::from_regions(mapped).map_err(other)?);
        self.mappings = mappings;
        Ok(())
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> VhostResult<()> {
        let size = u16::try_from(num).map_err(|_| VhostError::InvalidParam)?;
        self.ring(index)?.queue.try_set_size(size).map_err(other)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> VhostResult<()> {
        let [descriptor, used, available] = [descriptor, used, available].map(|at| self.guest_address(at));
        let memory = self.memory.clone().ok_or(VhostError::InvalidParam)?;
        let (descriptor, used, available) = (descriptor?, used?, available?);
        let ring = self.ring(index)?;
        ring.queue.try_set_desc_table_address(GuestAddress(descriptor)).map_err(other)?;
        ring.queue.try_set_avail_ring_address(GuestAddress(available)).map_err(other)?;
        ring.queue.try_set_used_ring_address(GuestAddress(used)).map_err(other)?;
        // The front-end tells only where to go on in the available ring; the used ring says it for itself.
        let next = ring.queue.used_idx(&memory, std::sync::atomic::Ordering::Acquire).map_err(other)?;
        ring.queue.set_next_used(next.0);
        ring.broken = false;
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> VhostResult<()> {
        let base = u16::try_from(base).map_err(|_| VhostError::InvalidParam)?;
        let ring = self.ring(index)?;
        ring.queue.set_next_avail(base);
        // A paused VM goes on where it was; after a reset all starts at 0.
        let resumed = ring.stopped_at == Some(base);
        self.restarted |= !resumed;
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> VhostResult<VhostUserVringState> {
        self.forget_kick(index);
        let ring = self.ring(index)?;
        ring.queue.set_ready(false);
        ring.call = None;
        let base = ring.queue.next_avail();
        ring.stopped_at = Some(base);
        Ok(VhostUserVringState::new(index, u32::from(base)))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> VhostResult<()> {
        self.forget_kick(index.into());
        let token = self.kick_token + u64::from(index);
        let epoll = Arc::clone(&self.epoll);
        let ring = self.ring(index.into())?;
        let file = file.ok_or(UNSUPPORTED)?;
        // Edge-triggered: every kick is an event, and the counter need not be read.
        let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, token);
        epoll.ctl(ControlOperation::Add, file.as_raw_fd(), event).map_err(VhostError::ReqHandlerError)?;
        ring.kick = Some(file);
        ring.queue.set_ready(true);
        Ok(())
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> VhostResult<()> {
        if let Some(file) = &file {
            // It should be an event descriptor, but could be a pipe that nobody reads: a signal must not block.
            let flags = fcntl_getfl(file).map_err(|error| VhostError::ReqHandlerError(error.into()))?;
            fcntl_setfl(file, flags | OFlags::NONBLOCK)
                .map_err(|error| VhostError::ReqHandlerError(error.into()))?;
        }
        self.ring(index.into())?.call = file;
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, _file: Option<File>) -> VhostResult<()> {
        self.ring(index.into()).map(drop)
    }

    fn get_protocol_features(&mut self) -> VhostResult<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG)
    }

    fn set_protocol_features(&mut self, _features: u64) -> VhostResult<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> VhostResult<u64> {
        Ok(QUEUES as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> VhostResult<()> {
        self.ring(index)?.enabled = enable;
        Ok(())
    }

    fn get_config(&mut self, offset: u32, size: u32, _flags: VhostUserConfigFlags) -> VhostResult<Vec<u8>> {
        let config = self.guest_cid.to_le_bytes();
        let (from, len) = (offset as usize, size as usize);
        let to = from.checked_add(len).ok_or(VhostError::InvalidParam)?;
        config.get(from..to).map(<[u8]>::to_vec).ok_or(VhostError::InvalidParam)
    }

    fn set_config(&mut self, _offset: u32, _buf: &[u8], _flags: VhostUserConfigFlags) -> VhostResult<()> {
        Err(UNSUPPORTED)
    }

    fn set_gpu_socket(&mut self, _backend: GpuBackend) -> VhostResult<()> {
        Err(UNSUPPORTED)
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> VhostResult<File> {
        Err(UNSUPPORTED)
    }

    fn get_inflight_fd(&mut self, _inflight: &VhostUserInflight) -> VhostResult<(VhostUserInflight, File)> {
        Err(UNSUPPORTED)
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> VhostResult<()> {
        Err(UNSUPPORTED)
    }

    fn get_max_mem_slots(&mut self) -> VhostResult<u64> {
        Err(UNSUPPORTED)
    }

    fn add_mem_region(&mut self, _region: &VhostUserSingleMemoryRegion, _file: File) -> VhostResult<()> {
        Err(UNSUPPORTED)
    }

    fn remove_mem_region(&mut self, _region: &VhostUserSingleMemoryRegion) -> VhostResult<()> {
        Err(UNSUPPORTED)
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _file: File,
    ) -> VhostResult<Option<File>> {
        Err(UNSUPPORTED)
    }

    fn check_device_state(&mut self) -> VhostResult<()> {
        Err(UNSUPPORTED)
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> VhostResult<()> {
        Err(UNSUPPORTED)
    }
}
