  ;; Answers twice. The second time the handle is spent, which traps.
  (core module $Main
    (import "answer" "head" (func $head (param $out i32) (result i32)))
    (func (export "handle") (param $request i32) (param $out i32)
      (drop (call $head (local.get $out)))
      (drop (call $head (local.get $out)))))
