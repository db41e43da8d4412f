#!/bin/bash
# Attention in all its forms (attention.kir) against the interpreter, and the same bits on any number of
# threads.
#   attention.sh KILN
set -u
kiln=$1
model=$(cd "$(dirname "$0")" && pwd)/attention.kir
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failed=0
passes() { # NAME COMMAND...
  local name=$1; shift
  "$@" >out.txt 2>&1 || { echo "FAILED: $name"; cat out.txt; failed=1; }
}
for entry in whole transposed transposed_spans long spans causal causal_spans grouped regrouped guarded unguarded extremes; do
  passes $entry $kiln check "$model" --entry $entry --threads 2 --tolerance 1e-5
done
passes halves $kiln check "$model" --entry halves --threads 2 --tolerance 1e-3
for size in 130_2900 5_7 2_1700; do
  passes inputs $kiln run "$model" --entry inputs_$size --output q=@q.npy --output k=@k.npy --output v=@v.npy
  inputs="--input q=@q.npy --input k=@k.npy --input v=@v.npy"
  passes $size $kiln check "$model" --entry symbolic $inputs --threads 2 --tolerance 1e-5
  for threads in 1 2; do
    passes "run of $size" $kiln run "$model" --entry symbolic $inputs --threads $threads --output y=@$threads.npy
  done
  passes "the same bits, $size" cmp 1.npy 2.npy
done
exit $failed
