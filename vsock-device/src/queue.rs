//! One virtqueue as the device uses it: descriptor chains as slices of the guest's memory, batched signals.
//!
//! The rings are the guest's to scribble on. A ring that makes no sense is not used again until the driver sets it up anew; a
//! chain that makes no sense is given back unused.

use std::{fs::File, io::Write, sync::atomic::Ordering};

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Address, GuestAddress, GuestMemory, GuestMemoryMmap, GuestMemoryRegion, VolatileSlice};

/// Most buffers of a chain: Linux uses two, or one per page of 64 KiB and a header.
const MAX_BUFFERS: usize = 256;

/// Most descriptors of a chain, empty ones included.
const MAX_DESCRIPTORS: usize = 1024;

/// Which buffers of a chain count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// The guest wrote them.
    Read,
    /// They are to be filled.
    Write,
}

/// The ring itself makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("the guest's ring is broken: {0}")]
pub(crate) struct Broken(#[from] virtio_queue::Error);

/// A chain of buffers.
#[derive(Debug)]
pub(crate) struct Chain<'m> {
    pub head: u16,
    /// Empty if the chain makes no sense.
    pub buffers: Vec<VolatileSlice<'m>>,
}

/// A virtqueue with its two event descriptors.
#[derive(Debug)]
pub(crate) struct Ring {
    pub queue: Queue,
    pub kick: Option<File>,
    pub call: Option<File>,
    /// The front-end lets data pass.
    pub enabled: bool,
    /// Not to be used until it is set up anew.
    pub broken: bool,
    /// Where it was stopped, if it was.
    pub stopped_at: Option<u16>,
}

impl Ring {
    pub(crate) fn new(max_size: u16) -> Result<Self, virtio_queue::Error> {
        let queue = Queue::new(max_size)?;
        Ok(Self { queue, kick: None, call: None, enabled: false, broken: false, stopped_at: None })
    }

    /// Whether the driver has set it up and runs.
    pub(crate) fn usable(&self) -> bool {
        self.enabled && self.queue.ready() && !self.broken
    }

    /// The next chain, if the guest offers one.
    pub(crate) fn pop<'m>(
        &mut self,
        memory: &'m GuestMemoryMmap,
        access: Access,
    ) -> Result<Option<Chain<'m>>, Broken> {
        if self.queue.avail_idx(memory, Ordering::Acquire)?.0 == self.queue.next_avail() {
            return Ok(None);
        }
        // None although the index says that there is one: the entry cannot be read.
        let chain = self.queue.iter(memory)?.next().ok_or(virtio_queue::Error::InvalidAvailRingIndex)?;
        let head = chain.head_index();
        let mut buffers = Vec::with_capacity(4);
        for descriptor in chain.take(MAX_DESCRIPTORS) {
            if descriptor.is_write_only() != (access == Access::Write) {
                continue;
            }
            if !slices(memory, descriptor.addr(), descriptor.len() as usize, &mut buffers) {
                buffers.clear();
                break;
            }
        }
        Ok(Some(Chain { head, buffers }))
    }

    /// Takes the last [`Self::pop`] back.
    pub(crate) fn unpop(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Gives a chain back, with `bytes` written into it.
    pub(crate) fn complete(&mut self, memory: &GuestMemoryMmap, head: u16, bytes: u32) -> Result<(), Broken> {
        Ok(self.queue.add_used(memory, head, bytes)?)
    }

    /// Asks the driver to say when it offers more. True: it has offered more already.
    pub(crate) fn listen(&mut self, memory: &GuestMemoryMmap) -> Result<bool, Broken> {
        Ok(self.queue.enable_notification(memory)?)
    }

    /// The driver need not say when it offers more.
    pub(crate) fn hush(&mut self, memory: &GuestMemoryMmap) -> Result<(), Broken> {
        Ok(self.queue.disable_notification(memory)?)
    }

    /// Interrupts the guest if chains were given back and it wants to know.
    pub(crate) fn signal(&mut self, memory: &GuestMemoryMmap) -> Result<(), Broken> {
        if self.queue.needs_notification(memory)?
            && let Some(call) = &mut self.call
        {
            // A counter that is full has woken the guest already. QEMU can have it block, since it shares the open file's flags: it
            // then holds up its own VM, which is ended for it without waiting for this thread.
            let _ = call.write(&1_u64.to_ne_bytes());
        }
        Ok(())
    }
}

/// Adds the memory of one descriptor, which may lie in several regions. False: it is not all memory, or there are too many.
fn slices<'m>(
    memory: &'m GuestMemoryMmap,
    mut at: GuestAddress,
    mut left: usize,
    buffers: &mut Vec<VolatileSlice<'m>>,
) -> bool {
    while left > 0 {
        let Some(region) = memory.find_region(at) else { return false };
        let rest = region.last_addr().unchecked_offset_from(at).saturating_add(1);
        let part = left.min(usize::try_from(rest).unwrap_or(usize::MAX));
        let Ok(slice) = memory.get_slice(at, part) else { return false };
        if buffers.len() == MAX_BUFFERS {
            return false;
        }
        buffers.push(slice);
        left -= part;
        match at.checked_add(part as u64) {
            Some(next) => at = next,
            None => return left == 0,
        }
    }
    true
}
