#!/bin/bash
# Products and reductions of their columns in one kernel (row_blocks.kir) against the interpreter, and the same bits on
# any number of threads.
#   row_blocks.sh KILN
set -u
kiln=$1
model=$(cd "$(dirname "$0")" && pwd)/row_blocks.kir
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failed=0
passes() { # NAME COMMAND...
  local name=$1; shift
  "$@" >out.txt 2>&1 || { echo "FAILED: $name"; cat out.txt; failed=1; }
}
for entry in one several fewer row normalise scaled greatest batches; do
  passes $entry $kiln check "$model" --entry $entry --threads 2 --tolerance 1e-5
done
for target in x86-64-v2 x86-64-v3; do
  passes $target $kiln compile "$model" --target $target -o $target.kiln
done
for size in 1 48 205; do
  passes inputs $kiln run "$model" --entry inputs_$size --output x=@x.npy --output w=@w.npy --output b=@b.npy
  inputs="--input x=@x.npy --input w=@w.npy --input b=@b.npy"
  passes $size $kiln check "$model" --entry unknown $inputs --threads 2 --tolerance 1e-5
  for threads in 1 2; do
    passes "run of $size" $kiln run "$model" --entry unknown $inputs --threads $threads --output output=@$threads.npy
  done
  passes "the same bits, $size" cmp 1.npy 2.npy
done
# Each entry is one kernel; a product and a reduction apart would be two with loops that reduce.
$kiln compile "$model" --stop-after lower -o kernels.txt >/dev/null 2>&1
kernels=$(awk '/^kernel/ { seen = 0 } / reduce \{/ && !seen { seen = 1; n++ } END { print n }' kernels.txt)
[ "$kernels" = 9 ] || { echo "FAILED: $kernels kernels for 9 entries"; failed=1; }
exit $failed
