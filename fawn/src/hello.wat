;; The first function: what `fawn up` serves when it is given no other. It answers every request with a few words.
;;
;; A wasi:http component in the text format, so that it can be read, and built into the binary without any toolchain
;; for WebAssembly. It makes eight calls of the host and has no allocator.
(component
  ;; 1. What it imports: of each WASI interface only the functions it calls. A host's richer interface satisfies it.
  (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
  (alias export $error "error" (type $io-error))

  (import "wasi:io/streams@0.2.0" (instance $streams
    (export "output-stream" (type $output-stream (sub resource)))
    (type $stream-error-shape (variant (case "last-operation-failed" (own $io-error)) (case "closed")))
    (export "stream-error" (type $stream-error (eq $stream-error-shape)))
    (export "[method]output-stream.blocking-write-and-flush" (func
      (param "self" (borrow $output-stream)) (param "contents" (list u8))
      (result (result (error $stream-error)))))))
  (alias export $streams "output-stream" (type $output-stream))

  (import "wasi:http/types@0.2.0" (instance $types
    (export "fields" (type $fields (sub resource)))
    (export "incoming-request" (type (sub resource)))
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
    (export "[static]fields.from-list" (func
      (param "entries" (list (tuple string (list u8)))) (result (result (own $fields) (error $header-error)))))
    (export "[constructor]outgoing-response" (func (param "headers" (own $fields)) (result (own $outgoing-response))))
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
  (alias export $types "response-outparam" (type $response-outparam))

  ;; 2. The memory is a module of its own: imports are lowered onto it before the code, which calls them, exists.
  (core module $Memory
    (memory (export "memory") 1)
    ;; The host asks for room when it has text to hand over, which is here only why `finish` failed. It does not.
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) unreachable)
    (data (i32.const 16) "content-type")                            ;; 12 bytes
    (data (i32.const 32) "text/plain")                              ;; 10 bytes
    (data (i32.const 64) "\10\00\00\00\0c\00\00\00"                 ;; The headers: one entry, a name and a value,
                         "\20\00\00\00\0a\00\00\00")                ;; each as address and length.
    (data (i32.const 128)                                           ;; 305 bytes
      "Hello from Fawn!\n"
      "\n"
      "This answer came from a WebAssembly function: a sandbox of its own ran it,\n"
      "and is gone again.\n"
      "\n"
      "Serve a function of your own, a module (WASI) or a component (wasi:http),\n"
      "as a binary or as text:\n"
      "\n"
      "    fawn deploy FILE.wasm\n"
      "\n"
      "This port speaks the OpenFaaS API too, so faas-cli deploys to it.\n"))
  (core instance $data (instantiate $Memory))
  (alias core export $data "memory" (core memory $memory))
  (alias core export $data "realloc" (core func $realloc))

  ;; 3. Each import as a core function (Canonical ABI).
  (core func $from-list (canon lower (func $types "[static]fields.from-list") (memory $memory)))
  (core func $response (canon lower (func $types "[constructor]outgoing-response")))
  (core func $body (canon lower (func $types "[method]outgoing-response.body") (memory $memory)))
  (core func $stream (canon lower (func $types "[method]outgoing-body.write") (memory $memory)))
  (core func $set (canon lower (func $types "[static]response-outparam.set") (memory $memory)))
  (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush")
    (memory $memory)))
  (core func $drop-stream (canon resource.drop $output-stream))
  (core func $finish (canon lower (func $types "[static]outgoing-body.finish") (memory $memory) (realloc $realloc)))

  ;; 4. The code. A result comes back in memory: at 0 whether it failed, at 4 what it holds.
  (core module $Main
    (import "host" "memory" (memory 1))
    (import "host" "from-list" (func $from-list (param $entries i32) (param $count i32) (param $result i32)))
    (import "host" "response" (func $response (param $headers i32) (result i32)))
    (import "host" "body" (func $body (param $response i32) (param $result i32)))
    (import "host" "stream" (func $stream (param $body i32) (param $result i32)))
    ;; The last six are the payload of an error: the widest shape that any case of error-code has.
    (import "host" "set" (func $set (param $out i32) (param $failed i32) (param $response i32)
      (param i32 i64 i32 i32 i32 i32)))
    (import "host" "write" (func $write
      (param $stream i32) (param $bytes i32) (param $length i32) (param $result i32)))
    (import "host" "drop-stream" (func $drop-stream (param $stream i32)))
    (import "host" "finish" (func $finish
      (param $body i32) (param $has-trailers i32) (param $trailers i32) (param $result i32)))

    (func (export "handle") (param $request i32) (param $out i32)
      (local $response i32) (local $body i32) (local $stream i32)
      (call $from-list (i32.const 64) (i32.const 1) (i32.const 0))
      (local.set $response (call $response (i32.load (i32.const 4))))
      (call $body (local.get $response) (i32.const 0))
      (local.set $body (i32.load (i32.const 4)))
      (call $set (local.get $out) (i32.const 0) (local.get $response)
        (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
      (call $stream (local.get $body) (i32.const 0))
      (local.set $stream (i32.load (i32.const 4)))
      (call $write (local.get $stream) (i32.const 128) (i32.const 305) (i32.const 0))
      (call $drop-stream (local.get $stream))
      (call $finish (local.get $body) (i32.const 0) (i32.const 0) (i32.const 0))))
  (core instance $main (instantiate $Main (with "host" (instance
    (export "memory" (memory $memory))
    (export "from-list" (func $from-list))
    (export "response" (func $response))
    (export "body" (func $body))
    (export "stream" (func $stream))
    (export "set" (func $set))
    (export "write" (func $write))
    (export "drop-stream" (func $drop-stream))
    (export "finish" (func $finish))))))

  ;; 5. What it exports.
  (func $handle (param "request" (own $incoming-request)) (param "response-out" (own $response-outparam))
    (canon lift (core func $main "handle")))
  (instance $handler (export "handle" (func $handle)))
  (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))
