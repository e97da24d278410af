//! Random bytes from the operating system, names that nobody can guess, and random pauses.

use std::time::Duration;

/// # Panics
///
/// If the system has no random bytes, which cannot happen on Linux after boot.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(clippy::expect_used, reason = "nothing is safe without random bytes, and no outsider can prevent them")]
    getrandom::fill(&mut bytes).expect("random bytes from the kernel");
    bytes
}

/// A name of 128 random bits, as 32 hexadecimal digits.
pub fn name() -> String {
    format!("{:032x}", u128::from_ne_bytes(bytes()))
}

/// Shortens a pause by up to a quarter, so that many programs that began it together do not end it together.
pub fn shortened(pause: Duration) -> Duration {
    let [byte] = bytes::<1>();
    pause - pause * u32::from(byte) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_shortened_by_up_to_a_quarter() {
        let pause = Duration::from_secs(100);
        let pauses: Vec<Duration> = (0..1000).map(|_| shortened(pause)).collect();
        let (least, most) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
        assert!(Duration::from_secs(75) <= *least && *most <= pause, "{least:?} to {most:?}");
        assert!(*least < Duration::from_secs(80) && Duration::from_secs(95) < *most, "{least:?} to {most:?}");
    }
}
