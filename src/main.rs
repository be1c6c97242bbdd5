//! The binary: command line in, exit code 0, 1 or 2 out.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    payout_sidecar::cli::main()
}
