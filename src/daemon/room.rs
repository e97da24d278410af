//! How many sessions there is room for.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Descriptors that are not sessions': the vault, listeners, the control socket, token requests, clients to turn away.
/// Where there are few in all, half of them.
const RESERVED: u64 = 64;

/// What a session has at most, in bytes: two TLS connections, and a relay buffer of 64 KiB each way while neither side reads.
const SESSION: u64 = 256 * 1024;

/// What all else may want beyond what there is at the start, in bytes: threads, token requests, an Argon2id.
const HEADROOM: u64 = 128 * 1024 * 1024;

/// The most sessions at a time, at least one. An allocation that fails ends a Rust program, so where the address space is
/// limited (`RLIMIT_AS`), sessions are refused before it is used up.
pub fn most_sessions() -> usize {
    let by_memory = getrlimit(Resource::As)
        .current
        .map_or(u64::MAX, |limit| limit.saturating_sub(address_space()).saturating_sub(HEADROOM) / SESSION);
    // Each session has two descriptors.
    let descriptors = most_descriptors();
    let by_descriptors = (descriptors - RESERVED.min(descriptors / 2)) / 2;
    usize::try_from(by_descriptors.min(by_memory)).unwrap_or(usize::MAX).max(1)
}

/// The soft limit is raised first: it is low only for the sake of programs that use select(2).
fn most_descriptors() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if setrlimit(Resource::Nofile, limit).is_err() {
        limit = getrlimit(Resource::Nofile);
    }
    limit.current.unwrap_or(1 << 20).min(1 << 20)
}

/// What this process has mapped, in bytes; 0 where the system does not tell.
fn address_space() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.strip_suffix("kB")?.trim().parse().ok());
    size.unwrap_or(0_u64).saturating_mul(1024)
}
