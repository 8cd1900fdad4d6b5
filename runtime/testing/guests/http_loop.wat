  ;; Runs for ever without an answer, and calls nothing.
  (core module $Main
    (func (export "handle") (param $request i32) (param $out i32)
      (loop $again (br $again))))
