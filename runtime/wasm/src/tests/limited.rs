//! Compilations that the kernel ends, since they take more than they may.

use super::*;
use crate::failpoint::{CPU_SECONDS, MEMORY_BYTES, TRIAL_SECONDS, WRITABLE_BYTES};

/// What a compiler says of a module with other limits, and then one whose limits are as ever.
async fn rejected_twice(wasm: &[u8], limits: &[(&str, &str)]) -> String {
    let bench = Bench::new();
    let artifact = bench.artifact(wasm);
    let limited = Bench::compiler_with(&bench.folder, &bench.engine, limits);
    let error = limited.compile(&artifact).await.unwrap_err();
    assert_eq!(error.code(), "compile-limit", "{error}");
    assert_eq!(limited.compiled(), 1);
    // It is the module's fault, also when it comes again.
    let again = bench.compiler.compile(&artifact).await.unwrap_err();
    assert_eq!(again.to_string(), error.to_string());
    assert_eq!(bench.compiler.compiled(), 0);
    error.to_string()
}

#[tokio::test]
async fn the_kernel_ends_what_takes_too_much_processor_time() {
    let endless = r#"(module (func $endless (loop br 0)) (start $endless) (func (export "_start")))"#;
    // Nothing but processor time ends it, however busy the machine is.
    let limits = [(CPU_SECONDS, "1"), (TRIAL_SECONDS, "3600")];
    let said = rejected_twice(&wat::parse_str(endless).unwrap(), &limits).await;
    assert!(said.contains("too much processor time"), "{said}");
}

#[tokio::test]
async fn the_kernel_ends_what_takes_too_much_memory() {
    // 80 MiB in a section that nobody reads, but the child does: more than an allocator has in reserve.
    let mut module = wat::parse_str(guests::HELLO).unwrap();
    let bench = Bench::new();
    module.extend([0, 0x82, 0x80, 0x80, 0x28, 1, b'x']);
    module.resize(module.len() + (80 << 20), 0);
    bench.compiler.compile(&bench.artifact(&module)).await.expect("with all its memory it compiles");

    let said = rejected_twice(&module, &[(MEMORY_BYTES, &(8 << 20).to_string())]).await;
    assert!(said.contains("too much memory"), "{said}");
}

/// What the kernel refuses of memory while nothing is wrong with the module: what an instance begins with, and what it
/// grows by.
#[tokio::test]
async fn memory_that_the_machine_lacks_is_no_property_of_the_module() {
    for wat in [
        r#"(module (memory 4096) (func (export "_start")))"#,
        r#"(module (memory 1) (table 1 funcref)
            (func $start (if (i32.eq (memory.grow (i32.const 4095)) (i32.const -1)) (then unreachable)))
            (start $start) (func (export "_start")))"#,
    ] {
        let bench = Bench::new();
        let artifact = bench.artifact(&wat::parse_str(wat).unwrap());
        // Less than the instance's memory, which fits into the address space (else Linux looks at no limit), and enough
        // for the compiler, which takes hardly more than it has.
        let memory = (16 << 20).to_string();
        let short = Bench::compiler_with(&bench.folder, &bench.engine, &[(WRITABLE_BYTES, &memory)]);
        for tried in 1..=2 {
            let error = short.compile(&artifact).await.unwrap_err();
            assert_eq!(error.code(), "compile-limit", "{wat}: {error}");
            assert!(error.to_string().contains("too much memory"), "{wat}: {error}");
            assert_eq!(short.compiled(), tried, "{wat}: it is tried again each time");
        }
        bench.compiler.compile(&artifact).await.expect("as soon as there is memory");
        assert_eq!(bench.compiler.compiled(), 1);
    }
}
