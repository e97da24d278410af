//! Argon2id (RFC 9106), which makes it slow to guess passwords of a stolen vault.
//!
//! One derivation runs at a time, in memory that all share and that is returned to the system when none is waiting. Malloc
//! would keep freed memory in the arena of each thread: 100 derivations once left 600 MB behind.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::error::VaultError;
use crate::mutex::lock;

/// In KiB. Malloc returns to the system at once what is larger than 32 MiB (`M_MMAP_THRESHOLD` in mallopt(3)).
const LEAST_MEMORY: usize = Stretch::STRONG.memory as usize;

static WORKBENCH: Workbench = Workbench::new();

/// The memory that all derivations share.
struct Workbench {
    blocks: Mutex<Vec<Block>>,
    /// The number of derivations that run or wait.
    waiting: AtomicUsize,
}

/// The cost of a derivation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// In KiB.
    memory: u32,
    passes: u32,
}

impl Stretch {
    /// For new app passwords: the second choice of RFC 9106 section 4, with one lane because one thread does the work.
    pub const STRONG: Self = Self { memory: 64 * 1024, passes: 3 };

    /// For all app passwords in format 1.
    pub const FORMAT_1: Self = Self { memory: 19 * 1024, passes: 2 };

    /// The most that a record may ask for, in KiB. More would take the memory away from other programs.
    const MOST_MEMORY: u32 = 256 * 1024;

    /// Memory in KiB, and passes.
    pub const fn parameters(self) -> (u32, u32) {
        (self.memory, self.passes)
    }

    /// Memory times passes.
    pub fn cost(self) -> u64 {
        u64::from(self.memory) * u64::from(self.passes)
    }

    /// Whether a record may ask for this.
    pub fn is_acceptable(self) -> bool {
        (8..=Self::MOST_MEMORY).contains(&self.memory) && (1..=16).contains(&self.passes)
    }

    /// Whether this is cheaper to guess than new passwords are.
    pub fn is_weak(self) -> bool {
        self.cost() < Self::STRONG.cost()
    }

    /// Derives a key from a password. Waits for its turn.
    pub fn derive(self, password: &[u8], salt: &[u8]) -> Result<Zeroizing<[u8; 32]>, VaultError> {
        WORKBENCH.derive(self, password, salt)
    }
}

impl Workbench {
    const fn new() -> Self {
        Self { blocks: Mutex::new(Vec::new()), waiting: AtomicUsize::new(0) }
    }

    fn derive(&self, stretch: Stretch, password: &[u8], salt: &[u8]) -> Result<Zeroizing<[u8; 32]>, VaultError> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // A derivation overwrites what a panic has left there.
        let mut blocks = lock(&self.blocks);
        let derived = derive_in(&mut blocks, stretch, password, salt);
        if self.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            *blocks = Vec::new();
        }
        derived
    }
}

fn derive_in(
    blocks: &mut Vec<Block>,
    stretch: Stretch,
    password: &[u8],
    salt: &[u8],
) -> Result<Zeroizing<[u8; 32]>, VaultError> {
    let params = Params::new(stretch.memory, stretch.passes, 1, Some(32)).map_err(|_| VaultError::NoMemory)?;
    let needed = params.block_count().max(LEAST_MEMORY);
    if blocks.len() < needed {
        *blocks = Vec::new();
        blocks.try_reserve_exact(needed).map_err(|_| VaultError::NoMemory)?;
        blocks.resize(needed, Block::default());
    }
    let mut bytes = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(password, salt, bytes.as_mut_slice(), blocks)
        .map_err(|_| VaultError::NoMemory)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_is_returned_when_no_derivation_waits() {
        let workbench = Workbench::new();
        let derive = |number: u8| {
            let memory = if number.is_multiple_of(2) { 1024 } else { 19 * 1024 };
            let derived = workbench.derive(Stretch { memory, passes: 1 }, &[number], b"0123456789abcdef");
            assert!(derived.is_ok());
        };
        std::thread::scope(|scope| (0..8).for_each(|number| drop(scope.spawn(move || derive(number)))));
        assert_eq!(workbench.blocks.lock().unwrap().capacity(), 0);
    }

    #[test]
    fn shared_memory_does_not_change_the_derived_key() {
        let params = Params::new(19 * 1024, 2, 1, Some(32)).unwrap();
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        for password in [b"password", b"anothers"] {
            let mut plain = [0; 32];
            argon2.hash_password_into(password, b"somesalt-16bytes", &mut plain).unwrap();
            assert_eq!(*Stretch::FORMAT_1.derive(password, b"somesalt-16bytes").unwrap(), plain);
        }
    }

    #[test]
    fn a_record_cannot_ask_for_gigabytes() {
        assert!(Stretch::STRONG.is_acceptable() && Stretch::FORMAT_1.is_acceptable() && Stretch::FORMAT_1.is_weak());
        for (memory, passes) in [(1024 * 1024, 1), (u32::MAX, 3), (64 * 1024, 17), (64 * 1024, 0), (7, 3)] {
            assert!(!Stretch { memory, passes }.is_acceptable(), "{memory} KiB, {passes} passes");
        }
    }
}
