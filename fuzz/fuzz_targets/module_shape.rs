//! What is read of a module before it is compiled. The files are taken as they are, without the engine behind them.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[expect(dead_code, reason = "not all of it is called here")]
#[path = "../../runtime/wasm/src/inspect.rs"]
mod inspect;
#[expect(dead_code, reason = "not all of it is called here")]
#[path = "../../runtime/wasm/src/scan.rs"]
mod scan;

fuzz_target!(|bytes: &[u8]| {
    let _ = scan::scan(bytes);
    if let Ok(found) = inspect::inspect(bytes) {
        let _ = found.world();
    }
});
