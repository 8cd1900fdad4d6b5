  ;; Answers with an error of its own choice in place of a response.
  (core module $Main
    (import "host" "set" (func $set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
    (func (export "handle") (param $request i32) (param $out i32)
      ;; 38 is internal-error, here without a text.
      (call $set (local.get $out) (i32.const 1) (i32.const 38)
        (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))))
