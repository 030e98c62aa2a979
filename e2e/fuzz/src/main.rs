//! The fuzzer: libFuzzer around the target that `SANSO_FUZZ_TARGET` names.
#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<sanso_fuzz::Target> = LazyLock::new(|| {
    let name = std::env::var("SANSO_FUZZ_TARGET").expect("SANSO_FUZZ_TARGET names a target");
    sanso_fuzz::target(&name).expect("SANSO_FUZZ_TARGET is one of sanso_fuzz::TARGETS")
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TARGET(bytes));
