;; The first half of a wasi:http component: what it imports, its memory, and a few functions that answer. The file
;; that follows defines the core module `$Main` with a function `handle`, and `http_end.wat` ties the knot.
;; `hello_http.wat` is the same without a split, and explains each step.
(component
  (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
  (alias export $error "error" (type $io-error))

  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $pollable (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
  (alias export $poll "pollable" (type $pollable))

  (import "wasi:io/streams@0.2.0" (instance $streams
    (export "input-stream" (type $input-stream (sub resource)))
    (export "output-stream" (type $output-stream (sub resource)))
    (type $stream-error-shape (variant (case "last-operation-failed" (own $io-error)) (case "closed")))
    (export "stream-error" (type $stream-error (eq $stream-error-shape)))
    (export "[method]input-stream.blocking-read" (func
      (param "self" (borrow $input-stream)) (param "len" u64) (result (result (list u8) (error $stream-error)))))
    (export "[method]output-stream.check-write" (func
      (param "self" (borrow $output-stream)) (result (result u64 (error $stream-error)))))
    (export "[method]output-stream.write" (func
      (param "self" (borrow $output-stream)) (param "contents" (list u8)) (result (result (error $stream-error)))))
    (export "[method]output-stream.blocking-write-and-flush" (func
      (param "self" (borrow $output-stream)) (param "contents" (list u8)) (result (result (error $stream-error)))))
    (export "[method]output-stream.blocking-splice" (func
      (param "self" (borrow $output-stream)) (param "src" (borrow $input-stream)) (param "len" u64)
      (result (result u64 (error $stream-error)))))
    (export "[method]output-stream.subscribe" (func
      (param "self" (borrow $output-stream)) (result (own $pollable))))))
  (alias export $streams "input-stream" (type $input-stream))
  (alias export $streams "output-stream" (type $output-stream))

  (import "wasi:http/types@0.2.0" (instance $types
    (export "fields" (type $fields (sub resource)))
    (export "incoming-request" (type $incoming-request (sub resource)))
    (export "incoming-body" (type $incoming-body (sub resource)))
    (export "outgoing-response" (type $outgoing-response (sub resource)))
    (export "outgoing-body" (type $outgoing-body (sub resource)))
    (export "response-outparam" (type $response-outparam (sub resource)))
    (type $header-error-shape (variant (case "invalid-syntax") (case "forbidden") (case "immutable")))
    (export "header-error" (type $header-error (eq $header-error-shape)))
    ;; A response is set to a result whose error has this type. It has to be spelled out to the letter.
    (type $dns-shape (record (field "rcode" (option string)) (field "info-code" (option u16))))
    (export "DNS-error-payload" (type $dns (eq $dns-shape)))
    (type $tls-shape (record (field "alert-id" (option u8)) (field "alert-message" (option string))))
    (export "TLS-alert-received-payload" (type $tls (eq $tls-shape)))
    (type $size-shape (record (field "field-name" (option string)) (field "field-size" (option u32))))
    (export "field-size-payload" (type $size (eq $size-shape)))
    (type $error-code-shape (variant
      (case "DNS-timeout") (case "DNS-error" $dns) (case "destination-not-found") (case "destination-unavailable")
      (case "destination-IP-prohibited") (case "destination-IP-unroutable") (case "connection-refused")
      (case "connection-terminated") (case "connection-timeout") (case "connection-read-timeout")
      (case "connection-write-timeout") (case "connection-limit-reached") (case "TLS-protocol-error")
      (case "TLS-certificate-error") (case "TLS-alert-received" $tls) (case "HTTP-request-denied")
      (case "HTTP-request-length-required") (case "HTTP-request-body-size" (option u64))
      (case "HTTP-request-method-invalid") (case "HTTP-request-URI-invalid") (case "HTTP-request-URI-too-long")
      (case "HTTP-request-header-section-size" (option u32)) (case "HTTP-request-header-size" (option $size))
      (case "HTTP-request-trailer-section-size" (option u32)) (case "HTTP-request-trailer-size" $size)
      (case "HTTP-response-incomplete") (case "HTTP-response-header-section-size" (option u32))
      (case "HTTP-response-header-size" $size) (case "HTTP-response-body-size" (option u64))
      (case "HTTP-response-trailer-section-size" (option u32)) (case "HTTP-response-trailer-size" $size)
      (case "HTTP-response-transfer-coding" (option string)) (case "HTTP-response-content-coding" (option string))
      (case "HTTP-response-timeout") (case "HTTP-upgrade-failed") (case "HTTP-protocol-error") (case "loop-detected")
      (case "configuration-error") (case "internal-error" (option string))))
    (export "error-code" (type $error-code (eq $error-code-shape)))
    (export "[constructor]fields" (func (result (own $fields))))
    (export "[method]fields.get" (func
      (param "self" (borrow $fields)) (param "name" string) (result (list (list u8)))))
    (export "[method]fields.append" (func
      (param "self" (borrow $fields)) (param "name" string) (param "value" (list u8))
      (result (result (error $header-error)))))
    (export "[method]incoming-request.headers" (func
      (param "self" (borrow $incoming-request)) (result (own $fields))))
    (export "[method]incoming-request.path-with-query" (func
      (param "self" (borrow $incoming-request)) (result (option string))))
    (export "[method]incoming-request.consume" (func
      (param "self" (borrow $incoming-request)) (result (result (own $incoming-body)))))
    (export "[method]incoming-body.stream" (func
      (param "self" (borrow $incoming-body)) (result (result (own $input-stream)))))
    (export "[constructor]outgoing-response" (func (param "headers" (own $fields)) (result (own $outgoing-response))))
    (export "[method]outgoing-response.set-status-code" (func
      (param "self" (borrow $outgoing-response)) (param "status-code" u16) (result (result))))
    (export "[method]outgoing-response.body" (func
      (param "self" (borrow $outgoing-response)) (result (result (own $outgoing-body)))))
    (export "[method]outgoing-body.write" (func
      (param "self" (borrow $outgoing-body)) (result (result (own $output-stream)))))
    (export "[static]outgoing-body.finish" (func
      (param "this" (own $outgoing-body)) (param "trailers" (option (own $fields)))
      (result (result (error $error-code)))))
    (export "[static]response-outparam.set" (func
      (param "param" (own $response-outparam))
      (param "response" (result (own $outgoing-response) (error $error-code)))))))
  (alias export $types "incoming-request" (type $incoming-request))
  (alias export $types "outgoing-body" (type $outgoing-body))
  (alias export $types "response-outparam" (type $response-outparam))

  ;; Results come back below 64; the constants of the guests lie from 64 on; from 32 KiB on is room that the host asks
  ;; for when it hands over text. `free` is where that room goes on: a guest that reads in a loop sets it back.
  (core module $Memory
    (memory (export "memory") 2)
    (global $free (export "free") (mut i32) (i32.const 32768))
    (data (i32.const 64) "content-type")                              ;; 12 bytes
    (data (i32.const 80) "text/plain")                                ;; 10 bytes
    (data (i32.const 96) "piece\n")                                   ;; 6 bytes
    (func (export "realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and
        (i32.add (global.get $free) (i32.sub (local.get $align) (i32.const 1)))
        (i32.sub (i32.const 0) (local.get $align))))
      (global.set $free (i32.add (local.get $at) (local.get $size)))
      (local.get $at)))
  (core instance $data (instantiate $Memory))
  (alias core export $data "memory" (core memory $memory))
  (alias core export $data "realloc" (core func $realloc))

  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core func $read (canon lower (func $streams "[method]input-stream.blocking-read")
    (memory $memory) (realloc $realloc)))
  (core func $check-write (canon lower (func $streams "[method]output-stream.check-write") (memory $memory)))
  (core func $write (canon lower (func $streams "[method]output-stream.write") (memory $memory)))
  (core func $write-and-flush (canon lower (func $streams "[method]output-stream.blocking-write-and-flush")
    (memory $memory)))
  (core func $splice (canon lower (func $streams "[method]output-stream.blocking-splice") (memory $memory)))
  (core func $subscribe (canon lower (func $streams "[method]output-stream.subscribe")))
  (core func $fields (canon lower (func $types "[constructor]fields")))
  (core func $get (canon lower (func $types "[method]fields.get") (memory $memory) (realloc $realloc)))
  (core func $append (canon lower (func $types "[method]fields.append") (memory $memory)))
  (core func $headers (canon lower (func $types "[method]incoming-request.headers")))
  (core func $path (canon lower (func $types "[method]incoming-request.path-with-query")
    (memory $memory) (realloc $realloc)))
  (core func $consume (canon lower (func $types "[method]incoming-request.consume") (memory $memory)))
  (core func $input (canon lower (func $types "[method]incoming-body.stream") (memory $memory)))
  (core func $response (canon lower (func $types "[constructor]outgoing-response")))
  (core func $set-status (canon lower (func $types "[method]outgoing-response.set-status-code")))
  (core func $body (canon lower (func $types "[method]outgoing-response.body") (memory $memory)))
  (core func $output (canon lower (func $types "[method]outgoing-body.write") (memory $memory)))
  (core func $finish (canon lower (func $types "[static]outgoing-body.finish") (memory $memory) (realloc $realloc)))
  (core func $set (canon lower (func $types "[static]response-outparam.set") (memory $memory)))
  (core func $drop-pollable (canon resource.drop $pollable))
  (core func $drop-output (canon resource.drop $output-stream))
  (core func $drop-body (canon resource.drop $outgoing-body))
  (core instance $host
    (export "memory" (memory $memory))
    (export "free" (global $data "free"))
    (export "block" (func $block))
    (export "read" (func $read))
    (export "check-write" (func $check-write))
    (export "write" (func $write))
    (export "write-and-flush" (func $write-and-flush))
    (export "splice" (func $splice))
    (export "subscribe" (func $subscribe))
    (export "fields" (func $fields))
    (export "get" (func $get))
    (export "append" (func $append))
    (export "headers" (func $headers))
    (export "path" (func $path))
    (export "consume" (func $consume))
    (export "input" (func $input))
    (export "response" (func $response))
    (export "set-status" (func $set-status))
    (export "body" (func $body))
    (export "output" (func $output))
    (export "finish" (func $finish))
    (export "set" (func $set))
    (export "drop-pollable" (func $drop-pollable))
    (export "drop-output" (func $drop-output))
    (export "drop-body" (func $drop-body)))

  ;; What most answers have in common.
  (core module $Answer
    (import "host" "memory" (memory 2))
    (import "host" "fields" (func $fields (result i32)))
    (import "host" "append" (func $append (param i32 i32 i32 i32 i32 i32)))
    (import "host" "response" (func $response (param i32) (result i32)))
    (import "host" "body" (func $body (param i32 i32)))
    (import "host" "set" (func $set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
    (import "host" "output" (func $output (param i32 i32)))
    (import "host" "write-and-flush" (func $write-and-flush (param i32 i32 i32 i32)))
    (import "host" "drop-output" (func $drop-output (param i32)))
    (import "host" "finish" (func $finish (param i32 i32 i32 i32)))

    ;; Headers that hold `content-type: text/plain`.
    (func $text (export "text") (result i32)
      (local $headers i32)
      (local.set $headers (call $fields))
      (call $append (local.get $headers) (i32.const 64) (i32.const 12) (i32.const 80) (i32.const 10) (i32.const 0))
      (local.get $headers))
    ;; Sends the head of a response and gives its body.
    (func $send (export "send") (param $out i32) (param $response i32) (result i32)
      (call $body (local.get $response) (i32.const 0))
      (call $set (local.get $out) (i32.const 0) (local.get $response)
        (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
      (i32.load (i32.const 4)))
    ;; Sends the head `200 OK` with `content-type: text/plain` and gives the body.
    (func (export "head") (param $out i32) (result i32)
      (call $send (local.get $out) (call $response (call $text))))
    ;; Gives the stream of a body.
    (func (export "open") (param $body i32) (result i32)
      (call $output (local.get $body) (i32.const 0))
      (i32.load (i32.const 4)))
    ;; Writes at most 4096 bytes, or traps.
    (func $print (export "print") (param $stream i32) (param $at i32) (param $length i32)
      (call $write-and-flush (local.get $stream) (local.get $at) (local.get $length) (i32.const 0))
      (if (i32.load8_u (i32.const 0)) (then unreachable)))
    ;; Writes "piece\n".
    (func (export "piece") (param $stream i32)
      (call $print (local.get $stream) (i32.const 96) (i32.const 6)))
    ;; Ends a body as it should end.
    (func (export "end") (param $stream i32) (param $body i32)
      (call $drop-output (local.get $stream))
      (call $finish (local.get $body) (i32.const 0) (i32.const 0) (i32.const 0))))
  (core instance $answer (instantiate $Answer (with "host" (instance $host))))

