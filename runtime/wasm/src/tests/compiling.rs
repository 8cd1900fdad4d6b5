//! From a module to its machine code, once, or to the reason why not.

use super::*;

#[tokio::test]
async fn modules_that_cannot_start_are_rejected_with_the_reason() {
    let bench = Bench::new();
    for (wat, code) in [
        (guests::NO_START, "no-entry-point"),
        (guests::UNKNOWN_IMPORT, "unknown-import"),
        (guests::START_TRAP, "cannot-start"),
        (guests::START_LOOP, "init-timeout"),
        (guests::BIG_TABLE, "malformed-module"),
        (r#"(module (func (export "_start") (param i32)))"#, "no-entry-point"),
        (
            r#"(component (component $c) (instance $i (instantiate $c))
                (export "wasi:http/incoming-handler@0.2.0" (instance $i)))"#,
            "no-entry-point",
        ),
    ] {
        let error = bench.compile(wat).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    }
    let hello = wat::parse_str(guests::HELLO).unwrap();
    for bytes in [&hello[..hello.len() - 5], b"not wasm at all"] {
        let error = bench.compiler.compile(&bench.artifact(bytes)).await.unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn one_digest_is_compiled_once_and_not_again_after_a_restart() {
    let bench = Bench::new();
    let artifact = bench.artifact(&wat::parse_str(guests::HELLO).unwrap());
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let (compiler, artifact) = (bench.compiler.clone(), artifact.clone());
            tokio::spawn(async move { compiler.compile(&artifact).await.map(drop) })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    assert_eq!(bench.compiler.compiled(), 1);
    let restarted = Bench::compiler(&bench.folder, &bench.engine);
    restarted.compile(&artifact).await.unwrap();
    assert_eq!(restarted.compiled(), 0);
}

#[tokio::test]
async fn callers_that_arrive_while_code_is_written_wait_for_it() {
    let bench = Bench::new();
    let hello = wat::parse_str(guests::HELLO).unwrap();
    for round in 0..5_u8 {
        // A custom section makes another module of it.
        let artifact = bench.artifact(&[&hello[..], &[0, 3, 1, b'n', round]].concat());
        let mut callers = Vec::new();
        let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            let (compiler, artifact, done) = (bench.compiler.clone(), artifact.clone(), done.clone());
            callers.push(tokio::spawn(async move {
                let compiled = compiler.compile(&artifact).await.map(drop);
                done.store(true, std::sync::atomic::Ordering::Relaxed);
                compiled
            }));
            tokio::time::timeout(Duration::from_micros(500), std::future::pending::<()>()).await.unwrap_err();
        }
        for caller in callers {
            caller.await.unwrap().unwrap();
        }
        assert_eq!(bench.compiler.compiled(), u64::from(round) + 1);
    }
}

#[tokio::test]
async fn a_damaged_module_is_not_compiled() {
    let bench = Bench::new();
    let artifact = bench.artifact(&wat::parse_str(guests::HELLO).unwrap());
    std::fs::write(&artifact.path, wat::parse_str(guests::ECHO).unwrap()).unwrap();
    assert_eq!(bench.compiler.compile(&artifact).await.unwrap_err().code(), crate::DAMAGED);
}

#[tokio::test]
async fn what_the_machine_fails_at_is_not_blamed_on_the_module() {
    let bench = Bench::new();
    let mut artifact = bench.artifact(&wat::parse_str(guests::HELLO).unwrap());
    artifact.path = bench.folder.path().join("gone");
    let error = bench.compiler.compile(&artifact).await.unwrap_err();
    assert!(matches!(error, Error::Internal(_)), "{error:?}");
}
