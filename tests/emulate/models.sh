#!/bin/bash
# Whole models for targets with matrix registers: the results of the same models by vectors, bit for bit, and no more
# products than channels that lie side by side need.
#   models.sh KILN KILN-RUN KILN-RUN-EMULATED
set -u
kiln=$1 run=$2 emulated=$3
model=$(cd "$(dirname "$0")" && pwd)/models.kir
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
failed=0
fail() { echo "FAILED: $*"; failed=1; }
vectors=x86-64-v4+avx512vnni+avx512bf16
"$kiln" compile "$model" --target $vectors -o "$folder/vectors.kiln" > "$folder/log" || fail "compile"
if ! "$run" "$folder/vectors.kiln" --entry bytes --input x=1xf32=1 > "$folder/log" 2>&1; then
  cat "$folder/log"
  echo "this processor lacks AVX-512 VNNI or BF16: nothing is run"
  exit 77
fi
# check ENTRY TARGET MOST-PRODUCTS
check() {
  "$kiln" compile "$model" --target $2 -o "$folder/tiles.kiln" > "$folder/log" || fail "compile for $2"
  "$run" "$folder/vectors.kiln" --entry $1 --input x=1xf32=1 > "$folder/want" || fail "$1"
  for threads in 1 2; do
    KILN_COUNT_TILES=1 "$emulated" "$folder/tiles.kiln" --entry $1 --threads $threads --input x=1xf32=1 \
      > "$folder/got" 2> "$folder/counts" || fail "$1 for $2"
    cmp "$folder/want" "$folder/got" || fail "$1 for $2, $threads threads"
  done
  count=$(sed -n 's/^products \([0-9]*\),.*/\1/p' "$folder/counts")
  echo "$1 for $2: $(cat "$folder/counts")"
  if grep -q products "$folder/counts"; then # else the processor has them
    [ "$count" -gt 0 ] && [ "$count" -le $3 ] || fail "$1 for $2: $count products, at most $3 expected"
  fi
}
check bytes x86-64-v4+avx512vnni+amxint8 1200
check pairs x86-64-v4+avx512vnni+amxbf16 3700
exit $failed
