  ;; Traps before it answers.
  (core module $Main
    (func (export "handle") (param $request i32) (param $out i32)
      unreachable))
