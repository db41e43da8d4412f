#!/bin/bash
# Attention in all its forms (attention.kir) against the interpreter.
#   attention.sh KILN
set -u
kiln=$1
model=$(cd "$(dirname "$0")" && pwd)/attention.kir
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failed=0
for threads in 2; do
  for entry in whole spans causal causal_spans grouped regrouped guarded unguarded; do
    $kiln check "$model" --entry $entry --threads $threads --tolerance 1e-5 >out.txt 2>&1 || { echo "FAILED: $entry, $threads threads"; cat out.txt; failed=1; }
  done
  for size in 130_2900 5_7; do
    $kiln run "$model" --entry inputs_$size --output q=@q.npy --output k=@k.npy --output v=@v.npy >out.txt 2>&1 || failed=1
    $kiln check "$model" --entry symbolic --input q=@q.npy --input k=@k.npy --input v=@v.npy --threads $threads --tolerance 1e-5 >out.txt 2>&1 || { echo "FAILED: $size, $threads threads"; cat out.txt; failed=1; }
  done
done
exit $failed
