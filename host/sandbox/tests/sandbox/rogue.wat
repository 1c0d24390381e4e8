;; An adapter that misbehaves on command, written against the canonical ABI by hand so that it can also do what no
;; toolchain lets a guest do (wild pointers, broken text).
;;
;; `handle` reads the first letter of a timer's name; `requirements` the first letter of the configuration; `migrate` the
;; version it comes from. Every other event is answered with the state it came with and no effects.
;;
;; The test puts text in place of the two markers below, and other versions in place of `@0.1.0`.
;;
;; Memory: 0 to 8191 fixed data and answers; from 8192 on what `cabi_realloc` gave out.
(module
  (import "otahost:adapter/host@0.1.0" "now" (func $now (result i64)))
  (import "otahost:adapter/host@0.1.0" "random" (func $random (param i32 i32)))
  (import "otahost:adapter/host@0.1.0" "log" (func $log (param i32 i32 i32)))
  ;;IMPORTS

  (memory (export "memory") 4)
  (table $table 1 funcref)
  (global $top (mut i32) (i32.const 8192))
  ;; Would show if anything survived a call.
  (global $calls (mut i32) (i32.const 0))

  (data (i32.const 0) "rogue protocol")
  (data (i32.const 32) "0.0.1")
  (data (i32.const 48) "{}")
  (data (i32.const 64) "no thanks\n")
  (data (i32.const 80) "\ff\fe")
  (data (i32.const 96) "cloud")
  (data (i32.const 112) "a/b")
  (data (i32.const 1024) "a line of log that is forty bytes long..")

  ;; A bump allocator; nothing is ever given back, the store dies with the call.
  (func (export "cabi_realloc") (param $old i32) (param $had i32) (param $align i32) (param $want i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.set $top (i32.add (local.get $at) (local.get $want)))
    (block $enough
      (loop $more
        (br_if $enough (i32.le_u (global.get $top) (i32.shl (memory.size) (i32.const 16))))
        (drop (memory.grow (i32.const 1)))
        (br $more)))
    (local.get $at))

  ;; Puts a list or string (address, length) where an answer wants it.
  (func $pair (param $to i32) (param $address i32) (param $length i32)
    (i32.store (local.get $to) (local.get $address))
    (i32.store offset=4 (local.get $to) (local.get $length)))

  (func (export "otahost:adapter/adapter@0.1.0#describe") (result i32)
    (call $pair (i32.const 4096) (i32.const 0) (i32.const 14))
    (call $pair (i32.const 4104) (i32.const 32) (i32.const 5))
    (call $pair (i32.const 4112) (i32.const 48) (i32.const 2))
    (i32.store (i32.const 4120) (i32.const 3))
    (i32.const 4096))

  ;; result<requirements, list<string>>: case at 0, six lists or one from 4 on.
  (func (export "otahost:adapter/adapter@0.1.0#requirements") (param $config i32) (param $length i32) (result i32)
    (local $command i32)
    (local.set $command (i32.load8_u (local.get $config)))
    ;; `h`: asks the host, which only `handle` may.
    (if (i32.eq (local.get $command) (i32.const 104)) (then (drop (call $now))))
    ;; `f`: two faults.
    (if (i32.eq (local.get $command) (i32.const 102)) (then
      (i32.store8 (i32.const 4096) (i32.const 1))
      (call $pair (i32.const 4100) (i32.const 4200) (i32.const 2))
      (call $pair (i32.const 4200) (i32.const 64) (i32.const 10))
      (call $pair (i32.const 4208) (i32.const 32) (i32.const 5))))
    ;; `t`: a target with an empty name.
    (if (i32.eq (local.get $command) (i32.const 116)) (then
      (call $pair (i32.const 4140) (i32.const 4200) (i32.const 1))))
    (i32.const 4096))

  ;; result<list<u8>, string>: from 1 the state as it came, from 2 a refusal, from 3 a state that is too large.
  (func (export "otahost:adapter/adapter@0.1.0#migrate")
    (param $from i32) (param $state i32) (param $length i32) (result i32)
    (call $pair (i32.const 4100) (local.get $state) (local.get $length))
    (if (i32.eq (local.get $from) (i32.const 2)) (then
      (i32.store8 (i32.const 4096) (i32.const 1))
      (call $pair (i32.const 4100) (i32.const 64) (i32.const 10))))
    (if (i32.eq (local.get $from) (i32.const 3)) (then
      (call $pair (i32.const 4100) (i32.const 0) (i32.const 60001))))
    (i32.const 4096))

  (func $deep (param $n i32) (result i32)
    (i32.add (call $deep (i32.add (local.get $n) (i32.const 1))) (i32.const 1)))

  ;; The arguments lie in memory: state (address 0, length 4), event (case 8, payload from 16).
  ;; The answer is result<step, string>: case at 4096; state at 4100 and effects at 4108, or the sentence at 4100.
  (func $handle (export "otahost:adapter/adapter@0.1.0#handle") (param $in i32) (result i32)
    (local $command i32)
    (local $left i32)
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    (call $pair (i32.const 4100) (i32.load (local.get $in)) (i32.load offset=4 (local.get $in)))
    (if (i32.ne (i32.load8_u offset=8 (local.get $in)) (i32.const 9)) (then (return (i32.const 4096))))
    (local.set $command (i32.load8_u (i32.load offset=16 (local.get $in))))

    ;; `t`: traps.
    (if (i32.eq (local.get $command) (i32.const 116)) (then (unreachable)))
    ;; `d`: recurses without end.
    (if (i32.eq (local.get $command) (i32.const 100)) (then (drop (call $deep (i32.const 0)))))
    ;; `l`: loops without end.
    (if (i32.eq (local.get $command) (i32.const 108)) (then (loop $again (br $again))))
    ;; `m`: takes memory without end.
    (if (i32.eq (local.get $command) (i32.const 109)) (then
      (loop $again (drop (memory.grow (i32.const 16))) (br $again))))
    ;; `x`: takes table elements without end.
    (if (i32.eq (local.get $command) (i32.const 120)) (then
      (loop $again (drop (table.grow $table (ref.null func) (i32.const 1000))) (br $again))))
    ;; `h`: calls the host without end.
    (if (i32.eq (local.get $command) (i32.const 104)) (then
      (loop $again (drop (call $now)) (br $again))))
    ;; `b`: hands the host a text of 4 MiB.
    (if (i32.eq (local.get $command) (i32.const 98)) (then
      (drop (memory.grow (i32.const 64)))
      (call $log (i32.const 2) (i32.const 8192) (i32.const 4194304))))
    ;; `B`: hands the host 1 MiB of zeros again and again.
    (if (i32.eq (local.get $command) (i32.const 66)) (then
      (drop (memory.grow (i32.const 16)))
      (loop $again (call $log (i32.const 2) (i32.const 8192) (i32.const 1048576)) (br $again))))
    ;; `g`: logs 40 bytes 2,000 times.
    (if (i32.eq (local.get $command) (i32.const 103)) (then
      (local.set $left (i32.const 2000))
      (loop $again
        (call $log (i32.const 2) (i32.const 1024) (i32.const 40))
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (br_if $again (local.get $left)))))
    ;; `w`: logs one line and traps.
    (if (i32.eq (local.get $command) (i32.const 119)) (then
      (call $log (i32.const 4) (i32.const 64) (i32.const 10))
      (unreachable)))
    ;; `e`: refuses the event.
    (if (i32.eq (local.get $command) (i32.const 101)) (then
      (i32.store8 (i32.const 4096) (i32.const 1))
      (call $pair (i32.const 4100) (i32.const 64) (i32.const 10))))
    ;; `u`: refuses it in bytes that are no text.
    (if (i32.eq (local.get $command) (i32.const 117)) (then
      (i32.store8 (i32.const 4096) (i32.const 1))
      (call $pair (i32.const 4100) (i32.const 80) (i32.const 2))))
    ;; `v`: a case that does not exist.
    (if (i32.eq (local.get $command) (i32.const 118)) (then (i32.store8 (i32.const 4096) (i32.const 7))))
    ;; `s`: a state one byte too large.
    (if (i32.eq (local.get $command) (i32.const 115)) (then
      (call $pair (i32.const 4100) (i32.const 0) (i32.const 60001))))
    ;; `o`: a state that lies outside memory.
    (if (i32.eq (local.get $command) (i32.const 111)) (then
      (call $pair (i32.const 4100) (i32.const 0x7ffffff0) (i32.const 60000))))
    ;; `c`: how often this instance was called, as one byte of state.
    (if (i32.eq (local.get $command) (i32.const 99)) (then
      (i32.store8 (i32.const 5000) (global.get $calls))
      (call $pair (i32.const 4100) (i32.const 5000) (i32.const 1))))
    ;; `n`: the time, as eight bytes of state.
    (if (i32.eq (local.get $command) (i32.const 110)) (then
      (i64.store (i32.const 5000) (call $now))
      (call $pair (i32.const 4100) (i32.const 5000) (i32.const 8))))
    ;; `r`: 16 random bytes.
    (if (i32.eq (local.get $command) (i32.const 114)) (then
      (call $random (i32.const 16) (i32.const 4100))))
    ;; `p`: publishes `{}`; `q`: the same with QoS 2. One effect at 6000: case 0, the record from 8 on.
    (if (i32.or (i32.eq (local.get $command) (i32.const 112)) (i32.eq (local.get $command) (i32.const 113))) (then
      (call $pair (i32.const 6008) (i32.const 96) (i32.const 5))
      (call $pair (i32.const 6016) (i32.const 112) (i32.const 3))
      (call $pair (i32.const 6024) (i32.const 48) (i32.const 2))
      (i32.store8 (i32.const 6032) (i32.sub (local.get $command) (i32.const 111)))
      (call $pair (i32.const 4108) (i32.const 6000) (i32.const 1))))
    (i32.const 4096))
  ;;FUNCTIONS
)
