  ;; A core module's inside that tells what is left in its instance of another's life, or leaves all it can. Shared by
  ;; a command and a wasi:http component; it expects a memory of four pages that may grow.
  (type $number (func (result i32)))
  (func $known (type $number) (i32.const 1234))
  (func $secret (type $number) (i32.const 666))
  (table $table 16 funcref)
  (elem (i32.const 3) func $known)
  (elem declare func $secret)
  (global $counter (mut i64) (i64.const 7))
  (global $vector (mut v128) (v128.const i64x2 0 0))
  (global $reference (mut funcref) (ref.null func))
  ;; Across the border of two pages of the machine, and with empty ones up to the next.
  (data (i32.const 69568) "fawndatafawndatafawndatafawndatafawndatafawndatafawndatafawndata")
  (data (i32.const 69632) "fawndatafawndatafawndatafawndatafawndatafawndatafawndatafawndata")
  (data (i32.const 200000) "fawndatafawndatafawndatafawndatafawndatafawndatafawndatafawndata")

  ;; The first 64 bytes of a range that are not all zero, or its end.
  (func $foreign (param $at i32) (param $end i32) (result i32)
    (loop $next
      (if (i32.ge_u (local.get $at) (local.get $end)) (then (return (local.get $end))))
      (if (v128.any_true (v128.or
        (v128.or (v128.load (local.get $at)) (v128.load offset=16 (local.get $at)))
        (v128.or (v128.load offset=32 (local.get $at)) (v128.load offset=48 (local.get $at)))))
        (then (return (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 64)))
      (br $next))
    unreachable)

  ;; The first eight bytes of a range that are not the module's own data, or its end.
  (func $changed (param $at i32) (param $end i32) (result i32)
    (loop $next
      (if (i32.ge_u (local.get $at) (local.get $end)) (then (return (local.get $end))))
      (if (i64.ne (i64.load (local.get $at)) (i64.const 0x617461646e776166)) (then (return (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br $next))
    unreachable)

  ;; What was found in the high half, and where in the low one.
  (func $finding (param $what i32) (param $where i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get $what)) (i64.const 32)) (i64.extend_i32_u (local.get $where))))

  ;; Looks at everything from `$from` on, grows, and looks at what it got. Zero if all is as in a new instance; else 1
  ;; for memory, 2 for data, 3 for memory that it grew, 4 for a global, 5 for the table, 6 for elements that it grew, 7
  ;; for a size; with the place.
  (func $look (param $from i32) (param $pages i32) (param $elements i32) (result i64)
    (local $at i32)
    (if (i32.ne (memory.size) (i32.const 4)) (then (return (call $finding (i32.const 7) (memory.size)))))
    (if (i32.ne (table.size $table) (i32.const 16)) (then
      (return (call $finding (i32.const 7) (table.size $table)))))

    (local.set $at (call $foreign (local.get $from) (i32.const 69568)))
    (if (i32.ne (local.get $at) (i32.const 69568)) (then (return (call $finding (i32.const 1) (local.get $at)))))
    (local.set $at (call $changed (i32.const 69568) (i32.const 69696)))
    (if (i32.ne (local.get $at) (i32.const 69696)) (then (return (call $finding (i32.const 2) (local.get $at)))))
    (local.set $at (call $foreign (i32.const 69696) (i32.const 200000)))
    (if (i32.ne (local.get $at) (i32.const 200000)) (then (return (call $finding (i32.const 1) (local.get $at)))))
    (local.set $at (call $changed (i32.const 200000) (i32.const 200064)))
    (if (i32.ne (local.get $at) (i32.const 200064)) (then (return (call $finding (i32.const 2) (local.get $at)))))
    (local.set $at (call $foreign (i32.const 200064) (i32.const 262144)))
    (if (i32.ne (local.get $at) (i32.const 262144)) (then (return (call $finding (i32.const 1) (local.get $at)))))

    (if (i64.ne (global.get $counter) (i64.const 7)) (then (return (call $finding (i32.const 4) (i32.const 0)))))
    (if (v128.any_true (global.get $vector)) (then (return (call $finding (i32.const 4) (i32.const 1)))))
    (if (i32.eqz (ref.is_null (global.get $reference))) (then
      (return (call $finding (i32.const 4) (i32.const 2)))))

    (if (i32.ne (call_indirect $table (type $number) (i32.const 3)) (i32.const 1234)) (then
      (return (call $finding (i32.const 5) (i32.const 3)))))
    (local.set $at (call $element (i32.const 0) (i32.const 3)))
    (if (i32.ne (local.get $at) (i32.const 3)) (then (return (call $finding (i32.const 5) (local.get $at)))))
    (local.set $at (call $element (i32.const 4) (i32.const 16)))
    (if (i32.ne (local.get $at) (i32.const 16)) (then (return (call $finding (i32.const 5) (local.get $at)))))

    (if (i32.ne (table.grow $table (ref.null func) (local.get $elements)) (i32.const 16)) (then
      (return (call $finding (i32.const 7) (i32.const -1)))))
    (local.set $at (call $element (i32.const 16) (table.size $table)))
    (if (i32.ne (local.get $at) (table.size $table)) (then
      (return (call $finding (i32.const 6) (local.get $at)))))

    (if (i32.ne (memory.grow (local.get $pages)) (i32.const 4)) (then
      (return (call $finding (i32.const 7) (i32.const -2)))))
    (local.set $at (call $foreign (i32.const 262144) (i32.mul (memory.size) (i32.const 65536))))
    (if (i32.ne (local.get $at) (i32.mul (memory.size) (i32.const 65536))) (then
      (return (call $finding (i32.const 3) (local.get $at)))))
    (i64.const 0))

  ;; The first element of a range that is not null, or its end.
  (func $element (param $at i32) (param $end i32) (result i32)
    (loop $next
      (if (i32.ge_u (local.get $at) (local.get $end)) (then (return (local.get $end))))
      (if (i32.eqz (ref.is_null (table.get $table (local.get $at)))) (then (return (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next))
    unreachable)

  ;; Grows by that many pages and elements, sets each global and element, and fills `$run` bytes of every `$step`, from
  ;; `$from` to the end of the memory, over its own data.
  (func $leave (param $from i32) (param $pages i32) (param $elements i32)
    (param $step i32) (param $run i32) (param $byte i32)
    (local $at i32) (local $end i32)
    (if (i32.ne (memory.grow (local.get $pages)) (i32.const 4)) (then unreachable))
    (if (i32.ne (table.grow $table (ref.func $secret) (local.get $elements)) (i32.const 16)) (then unreachable))
    (table.fill $table (i32.const 0) (ref.func $secret) (table.size $table))
    (global.set $counter (i64.const 0x5ec4e75ec4e7))
    (global.set $vector (v128.const i64x2 0x5ec4e75ec4e7 0x5ec4e75ec4e7))
    (global.set $reference (ref.func $secret))
    (local.set $end (i32.mul (memory.size) (i32.const 65536)))
    (memory.fill (i32.const 69568) (local.get $byte) (i32.const 128))
    (local.set $at (local.get $from))
    (loop $next
      (if (i32.le_u (i32.add (local.get $at) (local.get $run)) (local.get $end)) (then
        (memory.fill (local.get $at) (local.get $byte) (local.get $run))
        (local.set $at (i32.add (local.get $at) (local.get $step)))
        (br $next)))))

  ;; 0: looks. 1: leaves what it can. 2: that, and traps. 3: that, and runs for ever. 4: that, and looks.
  (func $obey (export "obey") (param $order i32) (param $from i32) (param $pages i32) (param $elements i32)
    (param $step i32) (param $run i32) (param $byte i32) (result i64)
    (if (i32.eqz (local.get $order)) (then
      (return (call $look (local.get $from) (local.get $pages) (local.get $elements)))))
    (call $leave (local.get $from) (local.get $pages) (local.get $elements)
      (local.get $step) (local.get $run) (local.get $byte))
    (if (i32.eq (local.get $order) (i32.const 2)) (then unreachable))
    (if (i32.eq (local.get $order) (i32.const 3)) (then (loop $again (br $again))))
    (if (i32.eq (local.get $order) (i32.const 4)) (then
      (return (call $look (local.get $from) (i32.const 0) (i32.const 0)))))
    (i64.const 0))
