;; Imports a function that no host has.
(module
  (import "env" "magic" (func $magic (param i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (drop (call $magic (i32.const 1)))))
