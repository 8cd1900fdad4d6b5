;; Runs for ever and calls nothing: only the clock can stop it.
(module
  (memory (export "memory") 1)
  (func (export "_start")
    (loop $again (br $again))))
