#!/bin/bash
# Attention in all its forms (attention.kir) against the interpreter, and the same bits on any number of
# threads.
#   attention.sh KILN
set -u
kiln=$1
here=$(cd "$(dirname "$0")" && pwd)
model=$here/attention.kir
. "$here/entries.sh"
for entry in whole transposed transposed_spans long spans causal causal_spans grouped regrouped guarded unguarded extremes; do
  passes $entry $kiln check "$model" --entry $entry --threads 2 --tolerance 1e-5
done
passes halves $kiln check "$model" --entry halves --threads 2 --tolerance 1e-3
for size in 130_2900 5_7 2_1700; do
  passes inputs $kiln run "$model" --entry inputs_$size --output q=@q.npy --output k=@k.npy --output v=@v.npy
  inputs="--input q=@q.npy --input k=@k.npy --input v=@v.npy"
  entry_passes $size symbolic y $inputs
done
exit $failed
