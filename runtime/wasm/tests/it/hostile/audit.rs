//! What a guest finds in its world: what was declared, and nothing else.

use runtime_api::full;

use crate::bench::{Bench, invocation, text};

/// All of WASI 0.2 (command and proxy worlds), by its packages.
const OFFERED: [(&str, &[&str]); 7] = [
    (
        "cli",
        &[
            "environment",
            "exit",
            "stdin",
            "stdout",
            "stderr",
            "terminal-input",
            "terminal-output",
            "terminal-stdin",
            "terminal-stdout",
            "terminal-stderr",
        ],
    ),
    ("clocks", &["monotonic-clock", "wall-clock"]),
    ("filesystem", &["types", "preopens"]),
    ("http", &["types", "outgoing-handler"]),
    ("io", &["error", "poll", "streams"]),
    ("random", &["random", "insecure", "insecure-seed"]),
    (
        "sockets",
        &[
            "instance-network",
            "ip-name-lookup",
            "network",
            "tcp",
            "tcp-create-socket",
            "udp",
            "udp-create-socket",
        ],
    ),
];

/// What other hosts offer, and this one does not.
const ABSENT: [&str; 10] = [
    "wasi:blobstore/container@0.2.0",
    "wasi:config/store@0.2.0",
    "wasi:config/runtime@0.2.0",
    "wasi:keyvalue/store@0.2.0",
    "wasi:logging/logging@0.2.0",
    "wasi:messaging/producer@0.2.0",
    "wasi:nn/inference@0.2.0",
    "wasi:sql/readwrite@0.2.0",
    "wasi:tls/types@0.2.0",
    "fermyon:spin/key-value@2.0.0",
];

/// Asks for all that may lead out of the sandbox, and prints a digit for each: how many there are, or 1 for an error.
const AUDITOR: &str = r#"(component
          (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
          (alias export $error "error" (type $io-error))
          (import "wasi:io/streams@0.2.0" (instance $streams
            (export "output-stream" (type $output-stream (sub resource)))
            (type $shape (variant (case "last-operation-failed" (own $io-error)) (case "closed")))
            (export "stream-error" (type $stream-error (eq $shape)))
            (export "[method]output-stream.blocking-write-and-flush" (func
              (param "self" (borrow $output-stream)) (param "contents" (list u8)) (result (result (error $stream-error)))))))
          (alias export $streams "output-stream" (type $output-stream))
          (import "wasi:cli/stdout@0.2.0" (instance $stdout
            (export "output-stream" (type $o (eq $output-stream)))
            (export "get-stdout" (func (result (own $o))))))
          (import "wasi:cli/environment@0.2.0" (instance $environment
            (export "get-environment" (func (result (list (tuple string string)))))
            (export "get-arguments" (func (result (list string))))
            (export "initial-cwd" (func (result (option string))))))
          (import "wasi:filesystem/types@0.2.0" (instance $files (export "descriptor" (type (sub resource)))))
          (alias export $files "descriptor" (type $descriptor))
          (import "wasi:filesystem/preopens@0.2.0" (instance $preopens
            (export "descriptor" (type $d (eq $descriptor)))
            (export "get-directories" (func (result (list (tuple (own $d) string)))))))
          (import "wasi:sockets/network@0.2.0" (instance $network
            (export "network" (type (sub resource)))
            (type $code (enum "unknown" "access-denied" "not-supported" "invalid-argument" "out-of-memory" "timeout"
              "concurrency-conflict" "not-in-progress" "would-block" "invalid-state" "new-socket-limit"
              "address-not-bindable" "address-in-use" "remote-unreachable" "connection-refused" "connection-reset"
              "connection-aborted" "datagram-too-large" "name-unresolvable" "temporary-resolver-failure"
              "permanent-resolver-failure"))
            (export "error-code" (type $error-code (eq $code)))
            (type $family (enum "ipv4" "ipv6"))
            (export "ip-address-family" (type $ip-address-family (eq $family)))))
          (alias export $network "network" (type $net))
          (alias export $network "error-code" (type $code))
          (alias export $network "ip-address-family" (type $family))
          (import "wasi:sockets/instance-network@0.2.0" (instance $instance-network
            (export "network" (type $n (eq $net)))
            (export "instance-network" (func (result (own $n))))))
          (import "wasi:sockets/ip-name-lookup@0.2.0" (instance $lookup
            (export "network" (type $n (eq $net)))
            (export "error-code" (type $c (eq $code)))
            (export "resolve-address-stream" (type $stream (sub resource)))
            (export "resolve-addresses" (func
              (param "network" (borrow $n)) (param "name" string) (result (result (own $stream) (error $c)))))))
          (import "wasi:sockets/tcp@0.2.0" (instance $tcp (export "tcp-socket" (type (sub resource)))))
          (alias export $tcp "tcp-socket" (type $tcp-socket))
          (import "wasi:sockets/tcp-create-socket@0.2.0" (instance $tcp-create
            (export "tcp-socket" (type $t (eq $tcp-socket)))
            (export "error-code" (type $c (eq $code)))
            (export "ip-address-family" (type $f (eq $family)))
            (export "create-tcp-socket" (func (param "address-family" $f) (result (result (own $t) (error $c)))))))
          (import "wasi:sockets/udp@0.2.0" (instance $udp (export "udp-socket" (type (sub resource)))))
          (alias export $udp "udp-socket" (type $udp-socket))
          (import "wasi:sockets/udp-create-socket@0.2.0" (instance $udp-create
            (export "udp-socket" (type $t (eq $udp-socket)))
            (export "error-code" (type $c (eq $code)))
            (export "ip-address-family" (type $f (eq $family)))
            (export "create-udp-socket" (func (param "address-family" $f) (result (result (own $t) (error $c)))))))

          (core module $Memory
            (memory (export "memory") 2)
            (global $free (mut i32) (i32.const 4096))
            (func (export "realloc") (param $old i32) (param $had i32) (param $align i32) (param $size i32) (result i32)
              (global.set $free (i32.and (i32.add (global.get $free) (i32.const 15)) (i32.const -16)))
              (global.get $free)
              (global.set $free (i32.add (global.get $free) (local.get $size)))))
          (core instance $memory (instantiate $Memory))
          (alias core export $memory "memory" (core memory $m))
          (alias core export $memory "realloc" (core func $realloc))
          (core func $stdout (canon lower (func $stdout "get-stdout")))
          (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush") (memory $m)))
          (core func $environ (canon lower (func $environment "get-environment") (memory $m) (realloc $realloc)))
          (core func $args (canon lower (func $environment "get-arguments") (memory $m) (realloc $realloc)))
          (core func $cwd (canon lower (func $environment "initial-cwd") (memory $m) (realloc $realloc)))
          (core func $dirs (canon lower (func $preopens "get-directories") (memory $m) (realloc $realloc)))
          (core func $network (canon lower (func $instance-network "instance-network")))
          (core func $resolve (canon lower (func $lookup "resolve-addresses") (memory $m) (realloc $realloc)))
          (core func $tcp (canon lower (func $tcp-create "create-tcp-socket") (memory $m)))
          (core func $udp (canon lower (func $udp-create "create-udp-socket") (memory $m)))
          (core module $Main
            (import "host" "memory" (memory 2))
            (import "host" "stdout" (func $stdout (result i32)))
            (import "host" "write" (func $write (param i32 i32 i32 i32)))
            (import "host" "environ" (func $environ (param i32)))
            (import "host" "args" (func $args (param i32)))
            (import "host" "cwd" (func $cwd (param i32)))
            (import "host" "dirs" (func $dirs (param i32)))
            (import "host" "network" (func $network (result i32)))
            (import "host" "resolve" (func $resolve (param i32 i32 i32 i32)))
            (import "host" "tcp" (func $tcp (param i32 i32)))
            (import "host" "udp" (func $udp (param i32 i32)))
            (data (i32.const 256) "localhost")
            (func $digit (param $at i32) (param $number i32)
              (i32.store8 (i32.add (i32.const 512) (local.get $at)) (i32.add (i32.const 48) (local.get $number))))
            (func (export "run") (result i32)
              (call $environ (i32.const 0)) (call $digit (i32.const 0) (i32.load (i32.const 4)))
              (call $args (i32.const 0)) (call $digit (i32.const 1) (i32.load (i32.const 4)))
              (call $cwd (i32.const 0)) (call $digit (i32.const 2) (i32.load8_u (i32.const 0)))
              (call $dirs (i32.const 0)) (call $digit (i32.const 3) (i32.load (i32.const 4)))
              (call $resolve (call $network) (i32.const 256) (i32.const 9) (i32.const 0))
              (call $digit (i32.const 4) (i32.load8_u (i32.const 0)))
              (call $tcp (i32.const 0) (i32.const 0)) (call $digit (i32.const 5) (i32.load8_u (i32.const 0)))
              (call $udp (i32.const 0) (i32.const 0)) (call $digit (i32.const 6) (i32.load8_u (i32.const 0)))
              (call $udp (i32.const 1) (i32.const 0)) (call $digit (i32.const 7) (i32.load8_u (i32.const 0)))
              (call $write (call $stdout) (i32.const 512) (i32.const 8) (i32.const 0))
              (i32.const 0)))
          (core instance $main (instantiate $Main (with "host" (instance
            (export "memory" (memory $m)) (export "stdout" (func $stdout)) (export "write" (func $write))
            (export "environ" (func $environ)) (export "args" (func $args)) (export "cwd" (func $cwd))
            (export "dirs" (func $dirs)) (export "network" (func $network)) (export "resolve" (func $resolve))
            (export "tcp" (func $tcp)) (export "udp" (func $udp))))))
          (func $run (result (result)) (canon lift (core func $main "run")))
          (instance $r (export "run" (func $run)))
          (export "wasi:cli/run@0.2.0" (instance $r)))"#;

/// A command component that imports this interface.
fn importing(interface: &str) -> String {
    format!(
        r#"(component
          (import "{interface}" (instance))
          (core module $m (func (export "run") (result i32) (i32.const 0)))
          (core instance $i (instantiate $m))
          (func $run (result (result)) (canon lift (core func $i "run")))
          (instance $r (export "run" (func $run)))
          (export "wasi:cli/run@0.2.0" (instance $r)))"#
    )
}

#[tokio::test]
async fn every_interface_is_there_and_leads_nowhere() {
    let bench = Bench::with_slots(2);
    for (package, interfaces) in OFFERED {
        for interface in interfaces {
            let wat = importing(&format!("wasi:{package}/{interface}@0.2.0"));
            let pool = bench.pool(&wat).await;
            let answer = pool.invoke(invocation(full("")), u64::MAX).await.unwrap();
            assert_eq!(answer.status(), 200, "{package}/{interface}");
        }
    }
    for interface in ABSENT {
        let wasm = wat::parse_str(importing(interface)).unwrap();
        let error = bench.pool_of(&wasm, |_| {}).await.err().expect(interface);
        assert_eq!(error.code(), "unknown-import", "{interface}");
    }

    let pool = bench
        .pool_with(AUDITOR, |settings| {
            settings.env = vec![("ONE".into(), "1".into()), ("TWO".into(), "2".into())];
            settings.args = vec!["guest".into(), "a".into(), "b".into()];
            settings.stdio.cgi_headers = false;
        })
        .await;
    let answer = pool.invoke(invocation(full("")), u64::MAX).await.unwrap();
    // Two variables and three arguments as declared, no working directory, no files, and an error for each socket and
    // lookup: all else is nothing.
    assert_eq!(text(answer).await, "23001111");
    bench.at_rest("audited", &[&pool]).await;
}
