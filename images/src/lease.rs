//! Leases: content that a pull or load in progress counts on, which no removal may take away.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::digest::Digest;

/// How many operations lease each digest (of a blob or of a layer).
#[derive(Clone, Default)]
pub(crate) struct Leases(Arc<Mutex<HashMap<Digest, usize>>>);

impl Leases {
    /// Leases `digests` until the guard is dropped. Take it before looking whether they exist.
    pub(crate) fn take(&self, digests: impl IntoIterator<Item = Digest>) -> Lease {
        let digests: Vec<_> = digests.into_iter().collect();
        let mut table = self.lock();
        for digest in &digests {
            *table.entry(digest.clone()).or_default() += 1;
        }
        drop(table);
        Lease { leases: self.clone(), digests }
    }

    /// The table, locked: nothing new can be leased while a sweep holds it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the lease when dropped.
pub(crate) struct Lease {
    leases: Leases,
    digests: Vec<Digest>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut table = self.leases.lock();
        for digest in &self.digests {
            if let Some(count) = table.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    table.remove(digest);
                }
            }
        }
    }
}
