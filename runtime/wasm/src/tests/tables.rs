//! Tables take memory too, and of the same limit.

use super::*;

/// Grows its tables in turn by a hundred elements until it gets no more, and tells how many each has, in 32 bits.
const GROW_TABLES: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (table $one 10 funcref) (table $two 0 funcref) (table $three 0 2000 funcref)
    (func (export "_start")
      (loop $again (br_if $again (i32.ne (i32.const -1) (table.grow $three (ref.null func) (i32.const 100)))))
      (loop $again
        (br_if $again (i32.and
          (i32.ne (i32.const -1) (table.grow $one (ref.null func) (i32.const 100)))
          (i32.ne (i32.const -1) (table.grow $two (ref.null func) (i32.const 100))))))
      (i32.store (i32.const 16) (table.size $one))
      (i32.store (i32.const 20) (table.size $two))
      (i32.store (i32.const 24) (table.size $three))
      (i32.store (i32.const 0) (i32.const 16))
      (i32.store (i32.const 4) (i32.const 12))
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

const PAGE: u64 = 64 << 10;

#[tokio::test]
async fn tables_grow_within_the_functions_memory() {
    let bench = Bench::new();
    for (elements, sizes) in [
        // The third has all that it may have, and the other two share what remains.
        (12_010, [5_010, 5_000, 2_000]),
        (12_009, [5_010, 4_900, 2_000]),
        (1_000, [10, 0, 900]),
        // Memory for more than any table can have.
        (1 << 20, [99_910, 100_000, 2_000]),
    ] {
        let limit = PAGE + elements * 8;
        let pool = bench.pool(GROW_TABLES, |settings| settings.limits.memory_bytes = limit).await;
        let told = call(&pool, "").await.unwrap().into_body().collect().await.unwrap().to_bytes();
        let told: Vec<_> = told.chunks(4).map(|size| u32::from_le_bytes(size.try_into().unwrap())).collect();
        assert_eq!(told, sizes, "{elements} elements");
        assert_eq!(bench.engine.memory_in_use_bytes(), 0, "and given back");
    }
}

#[tokio::test]
async fn what_a_module_begins_with_is_known_at_deploy() {
    let bench = Bench::new();
    let tables = "(table 90000 funcref) (table 80000 funcref) (table 50000 funcref)";
    let wat = format!(r#"(module {tables} (memory (export "memory") 1) (func (export "_start")))"#);
    let module = bench.compile(&wat).await.unwrap();
    let needed = PAGE + 220_000 * 8;
    assert_eq!(module.memory_bytes, needed);
    module.check_memory(needed).unwrap();
    let error = module.check_memory(needed - 1).unwrap_err();
    assert_eq!(error.code(), "memory-limit");
    assert!(error.to_string().contains("set limits.memory to at least 2Mi"), "{error}");

    let pool = bench.pool(&wat, |settings| settings.limits.memory_bytes = needed).await;
    assert_eq!(call(&pool, "").await.unwrap().status(), 200);
    let pool = bench.pool(&wat, |settings| settings.limits.memory_bytes = needed - 1).await;
    assert!(pool.instantiate().await.is_err(), "whoever did not check gets no instance");
}

#[tokio::test]
async fn tables_are_of_the_nodes_memory() {
    let bench = Bench::with(|config| config.memory_budget_bytes = PAGE + 10_000 * 8);
    let pool = bench.pool(GROW_TABLES, |_| {}).await;
    let error = call(&pool, "").await.unwrap_err();
    assert!(matches!(error, Error::Overloaded { .. }), "{error:?}");
    assert_eq!(bench.engine.memory_in_use_bytes(), 0);
}
