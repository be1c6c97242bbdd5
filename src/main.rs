//! The binary: runs the command line and exits with code 0, 1 or 2.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    payout_sidecar::cli::main()
}
