//! Random bytes from the operating system, and names that nobody guesses.

/// Random bytes from the operating system.
///
/// # Panics
/// If the system has none to give, which Linux does not let happen after boot.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(
        clippy::expect_used,
        reason = "without random bytes nothing here is safe, and nobody outside can take them away"
    )]
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    bytes
}

/// A name of 128 random bits, as 32 hexadecimal digits.
pub fn name() -> String {
    format!("{:032x}", u128::from_ne_bytes(bytes()))
}
