//! One binary for all targets; `PAYOUT_FUZZ_TARGET` names which.
#![no_main]

#[path = "../tests/fuzz/properties.rs"]
mod properties;

use std::sync::LazyLock;

static PROPERTY: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("PAYOUT_FUZZ_TARGET").unwrap_or_default();
    let found = properties::ALL.into_iter().find(|(target, _)| *target == name);
    found
        .unwrap_or_else(|| panic!("PAYOUT_FUZZ_TARGET names no target: {name:?}"))
        .1
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| PROPERTY(data));
