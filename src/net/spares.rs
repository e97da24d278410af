//! Descriptors that are kept for clients who come when no other is left: they are told so, and do not wait in vain.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

/// How many there are: so many clients can be told at the same moment.
const SPARES: usize = 4;

/// The spare descriptors of all listeners. One that is given up may be had by any of them, so they share what is left.
#[derive(Clone, Default)]
pub struct Spares(Arc<Mutex<Vec<OwnedFd>>>);

impl Spares {
    /// Takes back what has been given up; whether all are there again. If not, the descriptor of a client who has just
    /// come is the one that is missing.
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

    /// Gives one up; whether there was one.
    pub fn give_up(&self) -> bool {
        self.kept().pop().is_some()
    }

    fn kept(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
