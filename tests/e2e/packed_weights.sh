#!/bin/bash
# Packed weights: right on every level of this machine, threads change no bits, and packages hold them packed.
#   packed_weights.sh KILN
set -u
kiln=$1
model=$(cd "$(dirname "$0")" && pwd)/packed_weights.kir
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
failed=0
fail() { echo "FAILED: $*"; failed=1; }
for entry in blocks4_1 blocks4_3 blocks4_70 plain2_1 plain2_70 columns8_1 columns8_70 twice; do
  for options in "" "--threads 2" "-O 0" "-O 1"; do
    "$kiln" check "$model" --entry $entry --dim N=40 --tolerance 1e-5 $options > "$folder/log" 2>&1 || { fail "$entry $options"; cat "$folder/log"; }
  done
done
# 51,200 codes in 4, 2 and 8 bits with their scales; as floats, each of nine is 200 KiB.
"$kiln" compile "$model" -o "$folder/m.kiln" > "$folder/log" || fail "compile"
size=$(stat -c %s "$folder/m.kiln")
[ "$size" -lt 600000 ] || fail "the package has $size bytes"
exit $failed
