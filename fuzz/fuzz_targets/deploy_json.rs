//! The body of a deploy: whatever is taken writes back to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runtime_api::FunctionSpec;

fuzz_target!(|bytes: &[u8]| {
    let Ok(spec) = runtime_http::fuzzing::spec(bytes) else { return };
    let written = serde_json::to_vec(&spec).unwrap();
    assert_eq!(runtime_http::fuzzing::spec(&written).unwrap(), spec);
    assert_eq!(serde_json::from_slice::<FunctionSpec>(&written).unwrap(), spec);
    let _ = (spec.name(), spec.image(), spec.memory_limit());
});
