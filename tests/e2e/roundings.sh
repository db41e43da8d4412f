#!/bin/bash
# Explicit roundings in fused kernels.
#   roundings.sh KILN
set -u
kiln=$1
model=$(cd "$(dirname "$0")" && pwd)/roundings.kir
failed=0
for entry in bf16_steps f16_steps of_sums; do
  out=$("$kiln" check "$model" --entry $entry --tolerance 0 2>&1) || { echo "FAILED: $entry"; echo "$out"; failed=1; }
done
exit $failed
