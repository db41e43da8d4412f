#!/bin/bash
# Register tiles live in registers, addresses included: next to none of the multiply-adds of a tile may
# wait for something that lay on the stack.
#   tile_registers.sh KILN
kiln=$1
failed=0 asm=$(mktemp)
for model in "$(dirname "$0")"/tiles/*.kir; do
  for target in x86-64-v3 x86-64-v4; do
    $kiln compile "$model" --target $target --emit=asm -o "$asm" || exit 1
    fmas=$(grep -c vfmadd "$asm") reloads=$(grep -c 'Reload' "$asm")
    echo "$(basename "$model") $target: $fmas multiply-adds, $reloads reloads"
    [ "$fmas" -gt 50 ] && [ $((reloads * 2)) -lt "$fmas" ] || { echo "FAILED: $model"; failed=1; }
  done
done
rm -f "$asm"
exit $failed
