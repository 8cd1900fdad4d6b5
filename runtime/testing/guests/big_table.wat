;; Asks for a table of ten million entries before it begins.
(module
  (memory (export "memory") 1)
  (table 10000000 funcref)
  (func (export "_start")))
