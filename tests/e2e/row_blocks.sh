#!/bin/bash
# Products and reductions of their columns in one kernel (row_blocks.kir) against the interpreter, and the same bits on
# any number of threads.
#   row_blocks.sh KILN
set -u
kiln=$1
here=$(cd "$(dirname "$0")" && pwd)
model=$here/row_blocks.kir
. "$here/entries.sh"
for entry in one several fewer row normalise scaled greatest batches; do
  passes $entry $kiln check "$model" --entry $entry --threads 2 --tolerance 1e-5
done
for target in x86-64-v2 x86-64-v3; do
  passes $target $kiln compile "$model" --target $target -o $target.kiln
done
for size in 1 48 205; do
  passes inputs $kiln run "$model" --entry inputs_$size --output x=@x.npy --output w=@w.npy --output b=@b.npy
  inputs="--input x=@x.npy --input w=@w.npy --input b=@b.npy"
  entry_passes $size unknown output $inputs
done
# Each entry is one kernel; a product and a reduction apart would be two with loops that reduce.
$kiln compile "$model" --stop-after lower -o kernels.txt >/dev/null 2>&1
kernels=$(awk '/^kernel/ { seen = 0 } / reduce \{/ && !seen { seen = 1; n++ } END { print n }' kernels.txt)
[ "$kernels" = 9 ] || { echo "FAILED: $kernels kernels for 9 entries"; failed=1; }
exit $failed
