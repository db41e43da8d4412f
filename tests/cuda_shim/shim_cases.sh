#!/bin/bash
# What the shim says to each kernel of shim_cases.cpp. Argument: the program.
failures=0
expect() { # NAME WORDS
  said=$("$1" "$2" 2>&1)
  case $said in
  *"$3"*) ;;
  *) echo "FAILED: $2 says '$said', not '$3'"; failures=1 ;;
  esac
}
{
  expect "$1" barrier_of_some "the threads of a block wait at different barriers"
  expect "$1" barrier_and_shuffle "some threads of a warp wait for the warp, others for the block"
  expect "$1" copy_nobody_waits_for "a thread ends while its copies are under way"
  expect "$1" copy_across_its_size "an access whose address is not a multiple of its size"
  expect "$1" copy_read_before_and_after 64
  expect "$1" shared_that_nobody_wrote 128
  expect "$1" a_barrier 128
  expect "$1" ids 64
  expect "$1" shuffles 64
  expect "$1" ballot 48
  expect "$1" some_end 40
  expect "$1" box 12
  expect "$1" box_of_fewer_bytes "wait for each other, or for copies that nobody asked for, for ever"
  expect "$1" box_of_more_bytes "more bytes come to a barrier than it was told of"
  expect "$1" box_nobody_waits_for "a block ends while copies of tensors are under way"
  expect "$1" product_of_a_warp 4096
  expect "$1" product_of_some_lanes "lanes of a warp are at different products"
} 2>/dev/null
[ "$("$1" no_barrier)" -lt 128 ] || { echo "FAILED: a missing barrier is not seen"; failures=1; }
exit $failures
