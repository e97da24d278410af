//! Limits for the number of connections: sessions, and connections before their login.

use std::path::Path;

use rustix::process::{Resource, getrlimit, setrlimit};

/// Descriptors that are not for mail programs: the vault, listeners, the control socket, token requests, rejected
/// clients; and as many again for browsers. If there are few in all, half of them.
const RESERVED: u64 = 128;

/// The most memory of a session, in bytes: two TLS connections, and a relay buffer of 64 KiB each way while neither
/// side reads.
const SESSION: u64 = 256 * 1024;

/// The memory that everything else may need beyond the start, in bytes: threads, token requests, one Argon2id.
const HEADROOM: u64 = 192 * 1024 * 1024;

/// The share of connections before their login: an eighth. They never need more memory than the sessions (16 KiB each
/// without TLS and 36 with TLS, see `tests/load/before.rs`), and are never so few that two mail programs keep each
/// other out.
const STRANGERS: std::ops::RangeInclusive<u64> = 8..=1024;

/// The number of connections allowed at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub sessions: usize,
    /// Connections before the login.
    pub strangers: usize,
}

impl Capacity {
    /// The limits of this process. A failed allocation ends a Rust program, and so does the kernel if a control group
    /// has no memory left. If either is limited, postkey refuses sessions before the memory is used up.
    pub fn of_this_process() -> Self {
        let by_address_space = getrlimit(Resource::As).current.map(|limit| limit.saturating_sub(address_space()));
        let memory = [by_address_space, memory_max()].into_iter().flatten().min().unwrap_or(u64::MAX);
        Self::of(most_descriptors(), memory)
    }

    /// The limits for this many descriptors and bytes of memory; at least one connection of each kind.
    fn of(descriptors: u64, memory: u64) -> Self {
        // A session has two descriptors, a connection before its login has one.
        let free = descriptors - RESERVED.min(descriptors / 2);
        let most = (free / 2).min(memory.saturating_sub(HEADROOM) / SESSION);
        let strangers = (most / 8).clamp(*STRANGERS.start(), *STRANGERS.end());
        let size = |count: u64| usize::try_from(count.max(1)).unwrap_or(usize::MAX);
        Self { sessions: size(most.saturating_sub(strangers.div_ceil(2))), strangers: size(strangers) }
    }
}

/// The limit of descriptors. It first raises the soft limit, which is low only for programs that use select(2).
fn most_descriptors() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if setrlimit(Resource::Nofile, limit).is_err() {
        limit = getrlimit(Resource::Nofile);
    }
    limit.current.unwrap_or(1 << 20).min(1 << 20)
}

/// The memory that this process has mapped, in bytes; 0 if the system does not say.
fn address_space() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.strip_suffix("kB")?.trim().parse().ok());
    size.unwrap_or(0_u64).saturating_mul(1024)
}

/// The memory that the control groups allow this process, in bytes; each of them may have a limit, cgroups(7). None if
/// there is no limit, or no cgroup v2.
fn memory_max() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let own = Path::new("/sys/fs/cgroup").join(own);
    let limits = own.ancestors().take_while(|group| group.starts_with("/sys/fs/cgroup"));
    limits.filter_map(|group| std::fs::read_to_string(group.join("memory.max")).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIBIBYTE: u64 = 1 << 30;

    /// A limit in the systemd unit: a number, or gibibytes.
    fn limit_of_unit(name: &str) -> u64 {
        let unit = include_str!("../../systemd/postkey.service");
        let value = unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap();
        match value.strip_suffix('G') {
            Some(gibibytes) => gibibytes.parse::<u64>().unwrap() * GIBIBYTE,
            None => value.parse().unwrap(),
        }
    }

    #[test]
    fn the_descriptors_and_memory_of_the_unit_match() {
        let (descriptors, memory) = (limit_of_unit("LimitNOFILE"), limit_of_unit("MemoryMax"));
        let (by_both, by_memory) = (Capacity::of(descriptors, memory), Capacity::of(1 << 20, memory));
        assert_eq!(by_both, by_memory, "there are enough descriptors");
        let used = RESERVED as usize + by_both.strangers + 2 * by_both.sessions;
        assert!(used <= descriptors as usize && used * 5 / 4 >= descriptors as usize, "{used} of {descriptors}");
        let comment = format!("{} sessions and {} connections", by_both.sessions, by_both.strangers);
        assert!(include_str!("../../systemd/postkey.service").contains(&comment), "{comment}");
    }

    #[test]
    fn all_connections_fit_within_the_limits() {
        for descriptors in [16, 64, 256, 1024, 4096, 65_536, 1 << 20] {
            for memory in [GIBIBYTE / 4, GIBIBYTE, 8 * GIBIBYTE, u64::MAX] {
                let Capacity { sessions, strangers } = Capacity::of(descriptors, memory);
                let (sessions, strangers) = (sessions as u64, strangers as u64);
                assert!(sessions >= 1 && strangers >= 8, "{descriptors} {memory}");
                if descriptors >= 64 {
                    assert!(2 * sessions + strangers + RESERVED.min(descriptors / 2) <= descriptors);
                }
                assert!(memory == u64::MAX || HEADROOM + sessions * SESSION + strangers * 16_384 <= memory);
            }
        }
    }

    #[test]
    fn small_limits_are_shared_out() {
        assert_eq!(Capacity::of(64, u64::MAX), Capacity { sessions: 12, strangers: 8 });
        assert_eq!(Capacity::of(1024, u64::MAX), Capacity { sessions: 420, strangers: 56 });
        assert_eq!(Capacity::of(1 << 20, u64::MAX).strangers, 1024);
    }
}
