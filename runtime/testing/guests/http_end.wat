
  ;; The last part of every component that begins with `http_begin.wat`.
  (core instance $main (instantiate $Main (with "host" (instance $host)) (with "answer" (instance $answer))))
  (func $handle (param "request" (own $incoming-request)) (param "response-out" (own $response-outparam))
    (canon lift (core func $main "handle")))
  (instance $handler (export "handle" (func $handle)))
  (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))
