#!/bin/bash
# Windows and what moves around them, in the layouts that the compiler chooses, at sizes that fill no tile:
# every model of windows/ beside the interpreter, for each of its lines `// CHECK-DIMS: N=1 H=5 ...`, on one
# thread and on three.
#   windows.sh KILN
kiln=$1
cd "$(dirname "$0")/windows" || exit 1
failed=0 checks=0 out=$(mktemp)
for model in *.kir; do
  while read -r dims; do
    args=()
    for d in $dims; do args+=(--dim "$d"); done
    for threads in 1 3; do
      checks=$((checks + 1))
      $kiln check "$model" "${args[@]}" --threads $threads --tolerance 2e-4 >"$out" 2>&1 ||
        { echo "FAILED: $model $dims, $threads thread(s)"; cat "$out"; failed=1; }
    done
  done < <(sed -n 's|^// CHECK-DIMS: ||p' "$model")
done
rm -f "$out"
echo "$checks checks"
[ $checks -gt 0 ] && exit $failed
