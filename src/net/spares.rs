//! Spare descriptors for clients that connect when no other is left, so that they get an answer instead of waiting.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

/// The number of spare descriptors, and so of clients that can be answered at the same time.
const SPARES: usize = 4;

/// The spare descriptors of all listeners, which share them.
#[derive(Clone, Default)]
pub struct Spares(Arc<Mutex<Vec<OwnedFd>>>);

impl Spares {
    /// Takes the used descriptors back. Returns whether all are there again; if not, the client that has just connected
    /// has the missing one.
    pub fn fill(&self) -> bool {
        let mut kept = self.kept();
        while kept.len() < SPARES {
            match eventfd(0, EventfdFlags::CLOEXEC) {
                Ok(descriptor) => kept.push(descriptor),
                Err(_) => return false,
            }
        }
        true
    }

    /// Gives one up. Returns whether there was one.
    pub fn give_up(&self) -> bool {
        self.kept().pop().is_some()
    }

    fn kept(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
