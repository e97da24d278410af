//! The program: see [`postkey`].

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    postkey::cli::run(std::env::args_os())
}
