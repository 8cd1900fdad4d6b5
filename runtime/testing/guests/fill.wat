;; Fills 64 MiB again and again, each time in one instruction, within which no compiler looks at the clock.
(module
  (memory (export "memory") 1)
  (func (export "_start")
    (drop (memory.grow (i32.const 1024)))
    (loop $again
      (memory.fill (i32.const 65536) (i32.const 7) (i32.const 0x4000000))
      (br $again))))
