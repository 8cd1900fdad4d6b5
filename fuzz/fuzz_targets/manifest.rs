//! What a registry sends: a manifest and a configuration with a zero byte between them, or a challenge.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |&byte| byte == 0);
    let manifest = parts.next().unwrap_or_default();
    runtime_oci::fuzzing::manifest(manifest, parts.next());
    runtime_oci::fuzzing::challenge(bytes);
});
