//! The program: see [`postkey`].

#![forbid(unsafe_code)]

use std::alloc::System;

use zeroizing_alloc::ZeroAlloc;

/// Wipes all memory that is given back: libraries for HTTP, JSON and TLS keep copies of tokens that are not ours to
/// wipe.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> std::process::ExitCode {
    postkey::cli::run(std::env::args_os())
}
